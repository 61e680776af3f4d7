package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// adoptFlags are the flags of the verb tenant adopt.
type adoptFlags struct {
	actor, isolation        string
	all, keepAccess, dryRun bool
}

func (c *cli) tenantAdoptCommand() *cobra.Command {
	var f adoptFlags
	command := &cobra.Command{
		Use:   "adopt ID|--all",
		Short: "Give tenants that DocEX made a role and a route",
		Long: `adopt gives a tenant that DocEX has made itself what the proxy needs: a login role that owns what is in its schema, and a
route. The data is not touched. Whoever owned the tables has no rights on them any more afterwards, superusers aside; with
--keep-access it becomes a member of the tenant's role. With --all it adopts each tenant without a route by itself, goes
on when one fails, and ends with exit code 5 then.`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error { return c.tenantAdopt(command.Context(), f, args) },
	}
	flags := command.Flags()
	flags.BoolVar(&f.all, "all", false, "adopt all tenants that have no route")
	flags.StringVar(&f.isolation, "isolation", "", "`LEVEL` of isolation: role, slot or trusted (default role)")
	flags.BoolVar(&f.keepAccess, "keep-access", false, "leave those who own the tables now their access, as members of the tenant's role")
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	return command
}

func (c *cli) tenantAdopt(ctx context.Context, f adoptFlags, args []string) error {
	if f.all == (len(args) > 0) {
		return usagef("name one tenant, `docexctl tenant adopt ID`, or all of them with --all")
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	adopt := func(ctx context.Context, id string) (*registry.Tenant, error) {
		tenant, err := provisioner.AdoptTenant(ctx, provision.AdoptRequest{
			ID: registry.TenantID(id), Actor: f.actor, Isolation: registry.Isolation(f.isolation), KeepAccess: f.keepAccess,
		})
		return tenant, c.explainKey(err)
	}
	if f.all {
		return c.adoptAll(ctx, f.dryRun, adopt)
	}
	tenant, err := adopt(ctx, args[0])
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	view := viewTenant(tenant)
	return c.print(view, func(w io.Writer) { view.writeLines(w, fmt.Sprintf("Tenant '%s' adopted", view.TenantID)) })
}

func (c *cli) adoptAll(ctx context.Context, dryRun bool, adopt func(context.Context, string) (*registry.Tenant, error)) error {
	names, err := c.tenantNames(ctx, func(t *registry.Tenant) bool { return t.Route == nil && !t.IsSystem })
	if err != nil {
		return err
	}
	var adopted gathered[*registry.Tenant]
	outcome := c.bulk(ctx, bulk{what: "adopted", parallel: 1, fatal: is[*provision.KeyMismatchError]}, names, adopted.from(adopt))
	views := []tenantView{}
	for _, tenant := range adopted.made() {
		views = append(views, viewTenant(tenant))
	}
	if dryRun {
		return joinErrors(c.nothingChanged(), outcome.err("adopted"))
	}
	return joinErrors(c.print(views, func(w io.Writer) {
		for _, view := range views {
			fmt.Fprintf(w, "Tenant '%s' adopted: schema %s, role %s\n", view.TenantID, *view.SchemaName, view.Route.Role)
		}
	}), outcome.err("adopted"))
}

// tenantNames lists the ids of the tenants that are wanted, the oldest first.
func (c *cli) tenantNames(ctx context.Context, wanted func(*registry.Tenant) bool) (names []string, err error) {
	tenants, err := c.tenants(ctx)
	for _, t := range tenants {
		if wanted(t) {
			names = append(names, string(t.ID))
		}
	}
	return names, err
}

// explainKey says where a key that does not match comes from.
func (c *cli) explainKey(err error) error {
	if !is[*provision.KeyMismatchError](err) {
		return err
	}
	path, _ := c.keyPath() // loadKey has found it
	return keyMismatch(path, false, err)
}
