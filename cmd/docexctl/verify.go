package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// joinErrors is errors.Join, but one error stays what it is.
func joinErrors(first, second error) error {
	if first == nil {
		return second
	}
	return errors.Join(first, second)
}

// findingView is a finding as JSON shows it.
type findingView struct {
	TenantID *string `json:"tenant_id"` // null where it is no tenant's
	Check    string  `json:"check"`
	Problem  string  `json:"problem"`
	Remedy   string  `json:"remedy"`
}

func (c *cli) tenantVerifyCommand() *cobra.Command {
	var schemaSQL string
	var all bool
	command := &cobra.Command{
		Use:   "verify [ID|--all]",
		Short: "Compare tenants with what the registry and the template say",
		Long: `verify looks at a tenant's schema, tables, role, rights and password, and prints what is not as it should be, with the command
that mends it. It changes nothing. Exit code 0 says that nothing was found, 1 that something was.`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("name one tenant, or all of them with --all")
			}
			return c.examine(command.Context(), schemaSQL, args, (*provision.Provisioner).VerifyTenants)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "verify all tenants, as without an ID")
	command.Flags().StringVar(&schemaSQL, "schema-sql", "", "the tenants were made of the files in `DIR`, not of DocEX's tables")
	return command
}

func (c *cli) doctorCommand() *cobra.Command {
	var schemaSQL string
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Look for everything that is wrong, and say what mends it",
		Long: `doctor does what tenant verify does for all tenants, and looks for schemas that no tenant has, for what runs that were ended
have left, at the registry's triggers, the roles of the proxy and logins that nobody can use. It changes nothing. Exit code
0 says that nothing was found, 1 that something was.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			return c.examine(command.Context(), schemaSQL, nil, (*provision.Provisioner).Diagnose)
		},
	}
	command.Flags().StringVar(&schemaSQL, "schema-sql", "", "the tenants were made of the files in `DIR`, not of DocEX's tables")
	return command
}

// examine runs an examination and prints what it finds.
func (c *cli) examine(ctx context.Context, schemaSQL string, ids []string,
	run func(*provision.Provisioner, context.Context, provision.VerifyRequest) ([]provision.Finding, error),
) error {
	if done, err := c.files(func(i sqlite.Installation) error { return c.filesExamine(ctx, i, ids) }); done {
		return err
	}
	var request provision.VerifyRequest
	for _, id := range ids {
		request.IDs = append(request.IDs, registry.TenantID(id)) // not parsed: the registry decides, as for tenant show
	}
	var err error
	if request.SchemaTemplate, err = c.schemaTemplate(); err != nil {
		return err
	}
	if request.Template, err = provision.LoadTemplate(schemaSQL); err != nil {
		return err
	}
	key, err := c.loadKey()
	switch {
	case err == nil:
		request.Key = &key
	case c.keyFile != "":
		return err
	default:
		c.warn("passwords are not looked at: " + oneLine(err))
	}
	provisioner, err := c.provisioner(key, false)
	if err != nil {
		return err
	}
	findings, err := run(provisioner, ctx, request)
	if err != nil {
		return err
	}
	return c.printFindings(findings)
}

func (c *cli) printFindings(findings []provision.Finding) error {
	views := make([]findingView, len(findings))
	for i, f := range findings {
		views[i] = findingView{TenantID: optional(string(f.Tenant)), Check: f.Check, Problem: f.Problem, Remedy: f.Remedy}
	}
	err := c.print(views, func(w io.Writer) {
		if len(views) == 0 {
			fmt.Fprintln(w, "Nothing is wrong")
		}
		for _, v := range views {
			subject := "registry"
			if v.TenantID != nil {
				subject = fmt.Sprintf("tenant '%s'", *v.TenantID)
			}
			fmt.Fprintf(w, "%s, %s: %s\n    %s\n", subject, v.Check, v.Problem, v.Remedy)
		}
	})
	if err == nil && len(findings) > 0 {
		err = fmt.Errorf("%d things are not as they should be", len(findings))
	}
	return err
}
