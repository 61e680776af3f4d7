package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// rotateFlags are the flags of the verb tenant rotate.
type rotateFlags struct {
	actor       string
	all, dryRun bool
}

func (c *cli) tenantRotateCommand() *cobra.Command {
	var f rotateFlags
	command := &cobra.Command{
		Use:   "rotate ID|--all",
		Short: "Give tenants' roles the password of the next generation",
		Long: `rotate raises the generation of a tenant's role and gives it the password that is derived from it, together. Proxies
learn of it at once, and open sessions stay. The logins of clients are not concerned: see the verb login. With --all
it does so for each tenant by itself, goes on when one fails, and ends with exit code 5 then.`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error { return c.tenantRotate(command.Context(), f, args) },
	}
	flags := command.Flags()
	flags.BoolVar(&f.all, "all", false, "rotate all tenants that have a role")
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the audit trail")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	return command
}

func (c *cli) tenantRotate(ctx context.Context, f rotateFlags, args []string) error {
	if f.all == (len(args) > 0) {
		return usagef("name one tenant, `docexctl tenant rotate ID`, or all of them with --all")
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	rotate := func(ctx context.Context, name string) (rotatedTenant, error) {
		// The name is not parsed: the registry decides, as for tenant show.
		result, err := provisioner.RotateTenant(ctx, provision.RotateRequest{ID: registry.TenantID(name), Actor: f.actor})
		return rotatedTenant{TenantID: name, Role: result.Role, SecretGeneration: result.Generation}, c.explainKey(err)
	}
	if f.all {
		return c.rotateAll(ctx, f.dryRun, rotate)
	}
	rotated, err := rotate(ctx, args[0])
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	return c.print(rotated, rotated.writeLine)
}

// rotateAll prints what was done even if not all of it was.
func (c *cli) rotateAll(ctx context.Context, dryRun bool, rotate func(context.Context, string) (rotatedTenant, error)) error {
	names, err := c.tenantNames(ctx, func(t *registry.Tenant) bool { return t.Route != nil })
	if err != nil {
		return err
	}
	var done gathered[rotatedTenant]
	// Where the key does not match, the others would fail like the first one.
	outcome := c.bulk(ctx, bulk{what: "rotated", parallel: 1, fatal: is[*provision.KeyMismatchError]}, names, done.from(rotate))
	if dryRun {
		return joinErrors(c.nothingChanged(), outcome.err("rotated"))
	}
	return joinErrors(c.print(done.made(), func(w io.Writer) {
		for _, rotated := range done.made() {
			rotated.writeLine(w)
		}
	}), outcome.err("rotated"))
}

// rotatedTenant is what tenant rotate prints of each.
type rotatedTenant struct {
	TenantID         string `json:"tenant_id"`
	Role             string `json:"role"`
	SecretGeneration int    `json:"secret_generation"`
}

func (r rotatedTenant) writeLine(w io.Writer) {
	fmt.Fprintf(w, "Tenant '%s' rotated: role %s has its password of generation %d\n", r.TenantID, r.Role, r.SecretGeneration)
}
