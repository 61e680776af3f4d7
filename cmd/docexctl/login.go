package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func (c *cli) loginCommand() *cobra.Command {
	command := group(&cobra.Command{Use: "login", Short: "Create, list, rotate and delete the logins with which clients reach the proxy"})
	command.AddCommand(c.loginCreateCommand(), c.loginListCommand(), c.loginRotateCommand(), c.loginDeleteCommand())
	return command
}

// loginFlags are the flags of the verb login create.
type loginFlags struct {
	tenants                   []string
	validUntil, createdBy     string
	allTenants, passwordStdin bool
}

func (c *cli) loginCreateCommand() *cobra.Command {
	var f loginFlags
	command := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a login and print its password, once",
		Args:  arguments(cobra.ExactArgs(1)),
		RunE:  func(command *cobra.Command, args []string) error { return c.loginCreate(command.Context(), f, args[0]) },
	}
	flags := command.Flags()
	flags.StringSliceVar(&f.tenants, "tenant", nil, "the tenants that it may use (`ID,...`)")
	flags.BoolVar(&f.allTenants, "all-tenants", false, "it may use all tenants, also those created later")
	flags.StringVar(&f.validUntil, "valid-until", "", "`TIME` after which it is refused, as 2027-01-31T00:00:00Z")
	flags.BoolVar(&f.passwordStdin, "password-stdin", false, "read the password from the first line of standard input instead of drawing one")
	flags.StringVar(&f.createdBy, "created-by", "cli_user", "`NAME` of who does it, for the audit trail")
	return command
}

func (c *cli) loginCreate(ctx context.Context, f loginFlags, name string) error {
	request := provision.LoginRequest{Name: name, AllTenants: f.allTenants, Actor: f.createdBy}
	for _, id := range f.tenants {
		// Not parsed: the registry decides, and it may hold ids that older versions of DocEX allowed.
		request.Tenants = append(request.Tenants, registry.TenantID(id))
	}
	var err error
	if f.validUntil != "" {
		if request.ValidUntil, err = time.Parse(time.RFC3339, f.validUntil); err != nil {
			return usagef("--valid-until %q is no time like 2027-01-31T00:00:00Z", f.validUntil)
		}
	}
	provisioner, err := c.provisioner(secret.Key{}, false) // a login's password is drawn, not derived
	if err != nil {
		return err
	}
	if f.passwordStdin {
		if request.Password, err = readPassword(c.in); err != nil {
			return err
		}
	}
	result, err := provisioner.CreateLogin(ctx, request)
	if err != nil {
		return err
	}
	c.warn(result.Warning)
	view := loginView{Login: name, Tenants: ids(result.Login.Tenants), AllTenants: f.allTenants, ValidUntil: optionalTime(result.Login.ValidUntil)}
	if !f.passwordStdin { // whoever gave it knows it
		view.Password = result.Password
	}
	return c.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "Login '%s' created\n", name)
		if f.allTenants {
			fmt.Fprintln(w, "  Tenants:\tall")
		} else {
			fmt.Fprintf(w, "  Tenants:\t%s\n", strings.Join(view.Tenants, ", "))
		}
		if view.ValidUntil != nil {
			fmt.Fprintf(w, "  Valid Until:\t%s\n", stamp(*view.ValidUntil))
		}
		view.writePassword(w)
	})
}

// readPassword reads one line, without its end.
func readPassword(in io.Reader) (string, error) {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usagef("--password-stdin: standard input holds no password")
	}
	return line, nil
}
