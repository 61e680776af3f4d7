package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// upgradeFlags are the flags of the verb tenant upgrade.
type upgradeFlags struct {
	actor, schemaSQL, canary string
	parallel, budget         int
	all, repair, dryRun      bool
}

// defaultParallel is how many tenants are worked on at a time: a server is as busy with each as one of its processors can
// be, and more of them than processors only wait for each other.
var defaultParallel = max(2, runtime.NumCPU())

func (c *cli) tenantUpgradeCommand() *cobra.Command {
	var f upgradeFlags
	command := &cobra.Command{
		Use:   "upgrade ID|--all",
		Short: "Bring tenants' schemas to the last version of the template",
		Long: `upgrade runs those files of the template that are later than a tenant's version, each in a transaction of its own as the
tenant's role. With --all the canary goes first, and nothing follows when it fails; of the others, those that fail stay as
they were and the rest goes on, with exit code 5. What was done is noted down: run it again to go on.

A template is a directory of files like 0001_tables.sql, 0002_more.sql. Each must be able to run again.`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error { return c.tenantUpgrade(command.Context(), f, args) },
	}
	flags := command.Flags()
	flags.BoolVar(&f.all, "all", false, "upgrade all tenants that are active or suspended")
	flags.IntVar(&f.parallel, "parallel", defaultParallel, "`N` tenants at a time")
	flags.IntVar(&f.budget, "max-failures", 0, "with --all, begin nothing more after more than `N` failures (default: no bound)")
	flags.StringVar(&f.canary, "canary", "", "the tenant `ID` that goes first (default: the oldest that is not up to date)")
	flags.StringVar(&f.schemaSQL, "schema-sql", "", "the template is the files in `DIR`, not DocEX's tables")
	flags.BoolVar(&f.repair, "repair", false, "run all files again, for what has gone missing")
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	return command
}

// upgradedTenant is what tenant upgrade prints of each that it has worked on.
type upgradedTenant struct {
	TenantID string `json:"tenant_id"`
	From     int    `json:"from"`
	To       int    `json:"to"`
	Files    int    `json:"files"`
}

func (v upgradedTenant) writeLine(w io.Writer) {
	if v.Files == 0 {
		fmt.Fprintf(w, "Tenant '%s' is up to date: version %d\n", v.TenantID, v.To)
		return
	}
	fmt.Fprintf(w, "Tenant '%s' upgraded: version %d to %d, %d files\n", v.TenantID, v.From, v.To, v.Files)
}

func (c *cli) tenantUpgrade(ctx context.Context, f upgradeFlags, args []string) error {
	switch {
	case f.all == (len(args) > 0):
		return usagef("name one tenant, `docexctl tenant upgrade ID`, or all of them with --all")
	case f.canary != "" && !f.all:
		return usagef("--canary says who goes first of --all")
	case f.parallel < 1:
		return usagef("--parallel is 1 at least")
	}
	template, err := provision.LoadTemplate(f.schemaSQL)
	if err != nil {
		return err
	}
	key, err := c.loadKey() // it logs in as the tenant
	if err != nil {
		return err
	}
	provisioner, err := c.provisionerFor(key, f.dryRun, f.parallel)
	if err != nil {
		return err
	}
	defer provisioner.Close(ctx)
	upgrade := func(ctx context.Context, id string) (upgradedTenant, error) {
		result, err := provisioner.UpgradeTenant(ctx, provision.UpgradeRequest{ID: registry.TenantID(id), Actor: f.actor, Template: template, Repair: f.repair})
		return upgradedTenant{TenantID: id, From: result.From, To: result.To, Files: result.Files}, err
	}
	if f.all {
		return c.upgradeAll(ctx, f, template.Version(), upgrade)
	}
	upgraded, err := upgrade(ctx, args[0])
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	return c.print(upgraded, upgraded.writeLine)
}

func (c *cli) upgradeAll(ctx context.Context, f upgradeFlags, latest int, upgrade func(context.Context, string) (upgradedTenant, error)) error {
	names, err := c.tenantNames(ctx, func(t *registry.Tenant) bool {
		return t.Route != nil && (t.Route.SchemaVersion < latest || f.repair) &&
			(t.Route.Status == registry.StatusActive || t.Route.Status == registry.StatusSuspended)
	})
	if err != nil {
		return err
	}
	if at := slices.Index(names, f.canary); at > 0 {
		names = slices.Insert(slices.Delete(names, at, at+1), 0, f.canary)
	} else if at < 0 && f.canary != "" && len(names) > 0 {
		return usagef("--canary: tenant '%s' is not one that is to be upgraded", f.canary)
	}
	var upgraded gathered[upgradedTenant]
	do := upgraded.from(upgrade)
	first := names[:min(1, len(names))]
	outcome := c.bulk(ctx, bulk{what: "upgraded", parallel: 1}, first, do)
	if len(outcome.failed) > 0 {
		return fmt.Errorf("the canary failed, and nothing else was begun: %w", outcome.failed[0])
	}
	rest := c.bulk(ctx, bulk{what: "upgraded", parallel: f.parallel, budget: f.budget}, names[len(first):], do)
	rest.done += outcome.done
	rest.skipped += outcome.skipped
	if f.dryRun {
		return joinErrors(c.nothingChanged(), rest.err("upgraded"))
	}
	views := upgraded.made()
	return joinErrors(c.print(views, func(w io.Writer) {
		for _, view := range views {
			view.writeLine(w)
		}
		if len(views) == 0 {
			fmt.Fprintf(w, "All tenants are up to date: version %d\n", latest)
		}
	}), rest.err("upgraded"))
}
