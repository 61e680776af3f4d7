package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// files runs a function where --docex-config is that of an installation on SQLite, and reports whether it is, or cannot be
// told. Its files are where DocEX, run in the working directory, would find them.
func (c *cli) files(run func(sqlite.Installation) error) (done bool, err error) {
	if c.docexConfig == "" || c.dsn != "" {
		return false, nil
	}
	config, err := loadDocexConfig(c.docexConfig)
	if err != nil {
		return true, err
	}
	if config.Database.Type != "sqlite" {
		return false, nil
	}
	return true, run(sqlite.Installation{
		PathTemplate: config.Database.SQLite.PathTemplate,
		SystemPath:   config.MultiTenancy.BootstrapTenant.DatabasePath,
		Tables:       provision.Tables(),
	})
}

// withFiles runs a function on the registry of an installation on SQLite.
func (c *cli) withFiles(ctx context.Context, i sqlite.Installation, run func(*sqlite.Registry) error) error {
	r, err := i.Open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(run(r), r.Close())
}

func (c *cli) filesInit(ctx context.Context, i sqlite.Installation, f initFlags) error {
	if f.rekey || f.slots > 0 || f.dryRun || f.harden != string(provision.HardenNone) {
		return usagef("an installation on SQLite has no keys, slots or catalogs: --rekey, --slots, --harden and --dry-run are for Postgres")
	}
	if err := i.Init(ctx, f.actor); err != nil {
		return err
	}
	return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
		system, err := r.Tenant(ctx, registry.SystemTenantID)
		if err != nil {
			return err
		}
		view := viewTenant(system)
		return c.print(view, func(w io.Writer) { view.writeLines(w, "Registry initialised") })
	})
}

func (c *cli) filesCreate(ctx context.Context, i sqlite.Installation, f tenantFlags, args []string) error {
	if f.isolation != "" && f.isolation != "database" || f.server != "" || f.place != "" || len(f.exclude) > 0 || f.database != "" || f.login != "" || f.schemaSQL != "" || f.from != "" || f.dryRun ||
		f.strategy != "" && f.strategy != "database" {
		return usagef("a tenant on SQLite has a file of its own and DocEX's tables: only --display-name, --created-by and --if-not-exists say more of it")
	}
	request, err := f.request(args)
	if err != nil {
		return err
	}
	name := request.DisplayName
	if name == "" {
		name = string(request.ID)
	}
	return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
		tenant, err := r.Create(ctx, request.ID, name, request.CreatedBy)
		if errors.Is(err, sqlite.ErrExists) && f.ifNotExists {
			tenant, err = r.Tenant(ctx, request.ID)
		}
		if err != nil {
			return err
		}
		return c.printCreated(createdTenant{tenantView: viewTenant(tenant)})
	})
}

// filesChange is change for SQLite, where there are no limits.
func (c *cli) filesChange(ctx context.Context, i sqlite.Installation, request provision.ChangeRequest, done string) error {
	if request.Limits != nil {
		return usagef("limits are the proxy's, which does not serve SQLite")
	}
	return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
		var err error
		switch {
		case request.Transition != "":
			err = r.Transition(ctx, request.ID, string(request.Transition), request.Actor)
		case request.DisplayName != nil:
			err = r.Rename(ctx, request.ID, *request.DisplayName, request.Actor)
		}
		if err != nil {
			return err
		}
		if request.Transition == provision.Suspend || request.Transition == provision.Delete {
			c.warn("DocEX itself does not look at the status: stop what uses the file")
		}
		tenant, err := r.Tenant(ctx, request.ID)
		if err != nil {
			return err
		}
		view := viewTenant(tenant)
		return c.print(view, func(w io.Writer) { view.writeLines(w, fmt.Sprintf("Tenant '%s' %s", view.TenantID, done)) })
	})
}

func (c *cli) filesDelete(ctx context.Context, i sqlite.Installation, f deleteFlags, id registry.TenantID) error {
	if f.archive != "" || f.dryRun {
		return usagef("--archive and --dry-run are for Postgres: a tenant on SQLite is a file, which can be copied")
	}
	return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
		tenant, err := r.Tenant(ctx, id)
		if err != nil {
			return err
		}
		if err := c.confirm(string(id), f); err != nil {
			return err
		}
		before := tenant.Route != nil && tenant.Route.Status == registry.StatusDeleted
		if err := r.Transition(ctx, id, string(provision.Delete), f.actor); err != nil {
			return err
		}
		if tenant, err = r.Tenant(ctx, id); err != nil {
			return err
		}
		view := deletedTenant{TenantID: string(id), Status: string(registry.StatusDeleted)}
		kept := tenant.Route.UpdatedAt.Add(f.grace).UTC().Truncate(time.Second)
		switch {
		case f.purge || before && !time.Now().Before(kept):
			if err := r.Purge(ctx, id, f.actor); err != nil {
				return partlyDeleted(before, string(id), err)
			}
			view.Status = "purged"
		case before:
			return &sqlite.StateError{Reason: fmt.Sprintf("tenant '%s' is deleted and kept until %s: --purge ends it now, `docexctl tenant restore` brings it back", id, stamp(kept))}
		default:
			view.KeptUntil = &kept
		}
		return c.print(view, view.write)
	})
}

// filesExamine verifies the tenants that are named, or all.
func (c *cli) filesExamine(ctx context.Context, i sqlite.Installation, ids []string) error {
	return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
		tenants, err := r.Tenants(ctx)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			tenant, err := r.Tenant(ctx, registry.TenantID(ids[0]))
			if err != nil {
				return err
			}
			tenants = []*registry.Tenant{tenant}
		}
		var findings []provision.Finding
		for _, t := range tenants {
			found, err := r.Verify(ctx, t)
			if err != nil {
				return err
			}
			for _, f := range found {
				findings = append(findings, provision.Finding{Tenant: f.Tenant, Check: "tables", Problem: f.Problem, Remedy: f.Remedy})
			}
		}
		return c.printFindings(findings)
	})
}

func (c *cli) filesMigrate(ctx context.Context, i sqlite.Installation, f migrateFlags) error {
	if f.isolation != "" || f.rename || f.keepAccess {
		return usagef("--isolation, --rename and --keep-access are for Postgres")
	}
	actor := f.actor
	if actor == "" {
		actor = "migration"
	}
	return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
		steps, err := r.PlanMigration(ctx)
		if err != nil {
			return err
		}
		views := make([]migratedTenant, len(steps))
		var outcome bulkOutcome
		for n, s := range steps {
			views[n] = migratedTenant{Schema: s.Path, TenantID: optional(string(s.ID)), Action: s.Action, Detail: s.Detail, Done: s.Action == "nothing"}
			switch {
			case s.Action == "refuse":
				outcome.failed = append(outcome.failed, &sqlite.StateError{Reason: fmt.Sprintf("file %q is not migrated: %s", s.Path, s.Detail)})
			case f.dryRun || s.Action == "skip":
			default:
				if err := r.Migrate(ctx, s, actor); err != nil {
					outcome.failed = append(outcome.failed, fmt.Errorf("file %q: %w", s.Path, err))
					continue
				}
				views[n].Done = true
				outcome.done++
			}
		}
		if f.dryRun {
			return joinErrors(c.printMigration(views), c.nothingChanged())
		}
		err = joinErrors(c.printMigration(views), outcome.err("tenants of DocEX 3 now"))
		if f.writeConfig {
			err = joinErrors(err, c.convertConfig("database"))
		}
		return err
	})
}
