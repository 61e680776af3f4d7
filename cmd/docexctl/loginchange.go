package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/registry"
)

func (c *cli) loginListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all logins, by name",
		Args:  arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return c.withStore(command.Context(), func(store *registry.Store) error {
				logins, err := store.Logins(command.Context())
				if err != nil {
					return err
				}
				return c.printLogins(logins)
			})
		},
	}
}

func (c *cli) printLogins(logins []*registry.Login) error {
	views := make([]loginView, len(logins))
	for i, l := range logins {
		views[i] = loginView{Login: l.Name, Tenants: ids(l.Tenants), AllTenants: l.AllTenants, ValidUntil: optionalTime(l.ValidUntil)}
	}
	return c.print(views, func(w io.Writer) {
		fmt.Fprintln(w, "LOGIN\tVALID UNTIL\tTENANTS")
		for _, v := range views {
			until, tenants := "-", strings.Join(v.Tenants, ", ")
			if v.ValidUntil != nil {
				until = stamp(*v.ValidUntil)
			}
			if v.AllTenants {
				tenants = "all"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", v.Login, until, tenants)
		}
	})
}

func (c *cli) loginRotateCommand() *cobra.Command {
	var actor string
	var passwordStdin bool
	command := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a login another password and print it, once",
		Long:  "rotate draws another password. Open sessions stay; new ones need the new password at once.",
		Args:  arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return c.loginRotate(command.Context(), args[0], actor, passwordStdin)
		},
	}
	command.Flags().BoolVar(&passwordStdin, "password-stdin", false, "read the password from the first line of standard input instead of drawing one")
	command.Flags().StringVar(&actor, "by", "cli_user", "`NAME` of who does it, for the audit trail")
	return command
}

func (c *cli) loginRotate(ctx context.Context, name, actor string, passwordStdin bool) error {
	provisioner, err := c.provisioner(secret.Key{}, false)
	if err != nil {
		return err
	}
	given := ""
	if passwordStdin {
		if given, err = readPassword(c.in); err != nil {
			return err
		}
	}
	password, err := provisioner.RotateLogin(ctx, name, given, actor)
	if err != nil {
		return err
	}
	view := loginView{Login: name}
	if !passwordStdin { // whoever gave it knows it
		view.Password = password
	}
	return c.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "Login '%s' has another password\n", name)
		view.writePassword(w)
	})
}

func (c *cli) loginDeleteCommand() *cobra.Command {
	var actor string
	command := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a login",
		Long:  "delete has proxies refuse the login and end its open sessions.",
		Args:  arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			provisioner, err := c.provisioner(secret.Key{}, false)
			if err != nil {
				return err
			}
			if err := provisioner.DeleteLogin(command.Context(), args[0], actor); err != nil {
				return err
			}
			view := struct {
				Login   string `json:"login"`
				Deleted bool   `json:"deleted"`
			}{args[0], true}
			return c.print(view, func(w io.Writer) { fmt.Fprintf(w, "Login '%s' deleted\n", args[0]) })
		},
	}
	command.Flags().StringVar(&actor, "by", "cli_user", "`NAME` of who does it, for the audit trail")
	return command
}
