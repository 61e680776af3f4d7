package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// migrateFlags are the flags of the verb migrate v2-to-v3.
type migrateFlags struct {
	actor, isolation                        string
	rename, keepAccess, writeConfig, dryRun bool
}

func (c *cli) migrateCommand() *cobra.Command {
	command := group(&cobra.Command{Use: "migrate", Short: "Bring the tenants of older installations here"})
	command.AddCommand(c.migrateTenantsCommand("v2-to-v3"))
	return command
}

// migrateTenantsCommand is spelled in two ways.
func (c *cli) migrateTenantsCommand(use string) *cobra.Command {
	var f migrateFlags
	command := &cobra.Command{
		Use:   use,
		Short: "Register the tenants of a DocEX 2 in this database, and give them roles and routes",
		Long: `v2-to-v3 finds tenants by their schemas: the name that the template makes, and the five tables by which a tenant is known.
It prints what is to be done, and does it: each is registered, its role gets its tables, old enum types become text, the
column coordination_id and what else is missing is added, and it is served. The data stays where it is. What cannot be
migrated is said, with exit code 5; what was ended in between is finished by the next run.

An id that DocEX 3 does not allow, as one with a hyphen, is refused, or changed with --rename: the schema is renamed then.
The registry that an early DocEX 3 left in schema public is moved. --write-config converts --docex-config, too.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error { return c.migrateTenants(command.Context(), f) },
	}
	flags := command.Flags()
	flags.StringVar(&f.isolation, "isolation", "", "`LEVEL` of isolation: role, slot or trusted (default role)")
	flags.BoolVar(&f.rename, "rename", false, "change ids that DocEX 3 does not allow, and rename their schemas")
	flags.BoolVar(&f.keepAccess, "keep-access", false, "leave those who own the tables now their access, as members of the tenants' roles")
	flags.BoolVar(&f.writeConfig, "write-config", false, "make the file that --docex-config names one of DocEX 3, and keep the old one beside it")
	flags.StringVar(&f.actor, "by", "", "`NAME` of who does it, for the registry (default migration)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what is to be done and change nothing")
	return command
}

// migratedTenant is what migrate prints of each schema.
type migratedTenant struct {
	Schema   string  `json:"schema"`
	TenantID *string `json:"tenant_id"` // null where it becomes none
	From     *string `json:"from"`      // the id that it had, where that was another
	Action   string  `json:"action"`    // migrate, finish, nothing, skip or refuse
	Detail   string  `json:"detail"`
	Done     bool    `json:"done"` // it is a tenant of DocEX 3 now
}

func (c *cli) migrateTenants(ctx context.Context, f migrateFlags) error {
	if f.writeConfig && c.docexConfig == "" {
		return usagef("--write-config needs --docex-config FILE")
	}
	if done, err := c.files(func(i sqlite.Installation) error { return c.filesMigrate(ctx, i, f) }); done {
		return err
	}
	request := provision.MigrateRequest{Actor: f.actor, Isolation: registry.Isolation(f.isolation), KeepAccess: f.keepAccess, Rename: f.rename}
	var err error
	if request.SchemaTemplate, err = c.schemaTemplate(); err != nil {
		return err
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisionerFor(key, false, 1)
	if err != nil {
		return err
	}
	defer provisioner.Close(ctx)
	steps, err := provisioner.PlanMigration(ctx, request)
	if err != nil {
		return err
	}
	views := make([]migratedTenant, len(steps))
	for i, s := range steps {
		views[i] = migratedTenant{Schema: s.Schema, TenantID: optional(string(s.ID)), From: optional(s.From), Action: s.Action, Detail: s.Detail, Done: s.Action == "nothing"}
	}
	if f.dryRun {
		return joinErrors(c.printMigration(views), c.nothingChanged())
	}
	outcome := c.migrateEach(ctx, provisioner, request, steps, views)
	err = joinErrors(c.printMigration(views), outcome.err("tenants of DocEX 3 now"))
	if f.writeConfig {
		err = joinErrors(err, c.convertConfig("schema"))
	}
	return err
}

func (c *cli) migrateEach(ctx context.Context, provisioner *provision.Provisioner, request provision.MigrateRequest, steps []provision.MigrationStep, views []migratedTenant) bulkOutcome {
	var names []string
	of := make(map[string]int)
	for i, s := range steps {
		if s.Action != "nothing" && s.Action != "skip" {
			names, of[s.Schema] = append(names, s.Schema), i
		}
	}
	outcome := c.bulk(ctx, bulk{what: "migrated", noun: "schema", parallel: 1, fatal: hopeless}, names, func(ctx context.Context, name string) error {
		i := of[name]
		if steps[i].Action == "refuse" {
			return &provision.ConflictError{Object: "schema", Name: name, Reason: "is not migrated: " + steps[i].Detail}
		}
		err := c.explainKey(provisioner.MigrateTenant(ctx, request, steps[i]))
		views[i].Done = err == nil
		return err
	})
	for _, v := range views {
		if v.Action == "nothing" {
			outcome.done++
		}
	}
	return outcome
}

func (c *cli) printMigration(views []migratedTenant) error {
	return c.print(views, func(w io.Writer) {
		if !slices.ContainsFunc(views, func(v migratedTenant) bool { return v.Action != "nothing" }) {
			fmt.Fprintf(w, "Nothing is to be done: %d tenants are those of DocEX 3\n", len(views))
			return
		}
		fmt.Fprintln(w, "SCHEMA\tTENANT\tACTION\tDETAIL")
		for _, v := range views {
			id := "-"
			if v.TenantID != nil {
				id = *v.TenantID
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Schema, id, v.Action, v.Detail)
		}
	})
}
