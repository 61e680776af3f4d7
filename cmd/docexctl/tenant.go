package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

func (c *cli) tenantCommand() *cobra.Command {
	command := group(&cobra.Command{Use: "tenant", Short: "Create, list, show, change, delete, adopt, verify, upgrade, rotate and move tenants"})
	command.AddCommand(c.tenantCreateCommand(), c.tenantListCommand(), c.tenantShowCommand(), c.tenantUpdateCommand(),
		c.tenantSuspendCommand(), c.tenantResumeCommand(), c.tenantDeleteCommand(), c.tenantRestoreCommand(), c.tenantRotateCommand(),
		c.tenantApplyCommand(), c.tenantImportCommand(), c.tenantAdoptCommand(), c.tenantVerifyCommand(), c.tenantUpgradeCommand(), c.tenantMoveCommand())
	return command
}

// tenantFlags are the flags of the verb tenant create.
type tenantFlags struct {
	id, displayName, createdBy, isolation, strategy, server, database, login string
	schemaSQL, from, place                                                   string
	exclude                                                                  []string
	parallel                                                                 int
	ifNotExists, dryRun                                                      bool
}

func (c *cli) tenantCreateCommand() *cobra.Command {
	var f tenantFlags
	command := &cobra.Command{
		Use:   "create ID",
		Short: "Create a tenant: schema, tables, role, route",
		Long: `create makes a tenant that can be used when it returns, or nothing. Its isolation is one of

  role      a login role of its own, with rights on its schema only; the wall is Postgres's
  slot      as role, and the proxy may use connections that tenants share: each logs in as a slot, which has no right,
            and is lent the tenant's role for one SET ROLE; the wall is Postgres's, from version 15
  database  as role, in a database of its own, so that catalogs are apart too; with --server NAME and --server-dsn NAME=DSN
            on another server than the registry's, or with --place POLICY on the one that has the least
  trusted   as role, and the proxy may use connections that tenants share and SET ROLE on them; this does not stop
            a client that sends RESET ROLE or SET ROLE itself from becoming any other trusted tenant`,
		Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(command *cobra.Command, args []string) error { return c.tenantCreate(command.Context(), f, args) },
	}
	flags := command.Flags()
	flags.StringVar(&f.id, "tenant-id", "", "the `ID`, as DocEX spells it")
	flags.StringVar(&f.displayName, "display-name", "", "`NAME` for people (default: the id)")
	flags.StringVar(&f.createdBy, "created-by", "cli_user", "`NAME` of who does it, for the registry")
	flags.StringVar(&f.isolation, "isolation", "", "`LEVEL` of isolation: role, slot, database or trusted (default role)")
	flags.StringVar(&f.strategy, "isolation-strategy", "", "as DocEX spells it: schema, or database")
	flags.StringVar(&f.database, "database", "", "`NAME` of the tenant's database, at isolation database (default: the schema's name)")
	flags.StringVar(&f.server, "server", "", "the proxy's `NAME` of the server (default main); without a --server-dsn for it, the registry's own")
	addPlace(flags, &f.place, &f.exclude)
	flags.StringVar(&f.login, "login", "", "create a login of this `NAME` for the tenant as well and print its password")
	flags.StringVar(&f.schemaSQL, "schema-sql", "", "make its tables with the files in `DIR`, like 0001_tables.sql, instead of DocEX's")
	flags.StringVar(&f.from, "from", "", "create those in `FILE` that are not there yet, in YAML as for tenant apply, or one ID a line; - is standard input")
	flags.IntVar(&f.parallel, "parallel", defaultParallel, "with --from, `N` tenants at a time")
	flags.BoolVar(&f.ifNotExists, "if-not-exists", false, "succeed when the tenant exists")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	return command
}

func (c *cli) tenantCreate(ctx context.Context, f tenantFlags, args []string) error {
	if done, err := c.files(func(i sqlite.Installation) error { return c.filesCreate(ctx, i, f, args) }); done {
		return err
	}
	if f.from != "" {
		if len(args) > 0 || f.id != "" || f.displayName != "" || f.isolation != "" || f.strategy != "" || f.server != "" || f.database != "" || f.login != "" {
			return usagef("--from FILE says it all: name no tenant, and nothing of one, beside it")
		}
		return c.tenantApply(ctx, applyFlags{file: f.from, actor: f.createdBy, schemaSQL: f.schemaSQL, parallel: f.parallel, dryRun: f.dryRun, createOnly: true, place: f.place, exclude: f.exclude})
	}
	request, err := f.request(args)
	if err != nil {
		return err
	}
	if request.SchemaTemplate, err = c.schemaTemplate(); err != nil {
		return err
	}
	if request.Template, err = provision.LoadTemplate(f.schemaSQL); err != nil {
		return err
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	var created createdTenant
	request.Placed = func(placed provision.Placement) {
		created.Placement = &placed
		c.warnOfSilent(placed)
	}
	tenant, err := provisioner.CreateTenant(ctx, request)
	if err != nil {
		return c.explainKey(err)
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	created.tenantView = viewTenant(tenant)
	if f.login == "" {
		return c.printCreated(created)
	}
	login, err := provisioner.CreateLogin(ctx, provision.LoginRequest{Name: f.login, Tenants: []registry.TenantID{tenant.ID}, Actor: f.createdBy})
	if err != nil {
		return &partlyDoneError{done: fmt.Sprintf("tenant '%s' is there", tenant.ID), err: err}
	}
	c.warn(login.Warning)
	created.Login = &loginView{Login: login.Login.Name, Password: login.Password}
	return c.printCreated(created)
}

// request makes sense of both spellings of the id and of the isolation.
func (f tenantFlags) request(args []string) (provision.TenantRequest, error) {
	text := f.id
	if len(args) > 0 {
		text = args[0]
	}
	switch {
	case len(args) == 0 && f.id == "":
		return provision.TenantRequest{}, usagef("name the tenant: `docexctl tenant create ID` or --tenant-id ID")
	case f.id != "" && f.id != text:
		return provision.TenantRequest{}, usagef("the argument names tenant %q and --tenant-id names %q", text, f.id)
	case f.login != "" && f.dryRun:
		return provision.TenantRequest{}, usagef("--dry-run cannot show --login: its tenant does not exist then")
	}
	id, err := registry.ParseTenantID(text)
	if err != nil {
		return provision.TenantRequest{}, err
	}
	isolation, err := f.level()
	if err != nil {
		return provision.TenantRequest{}, err
	}
	return provision.TenantRequest{
		ID:          id,
		DisplayName: f.displayName,
		CreatedBy:   f.createdBy,
		Isolation:   isolation,
		Server:      f.server,
		Database:    f.database,
		IfNotExists: f.ifNotExists,
		Place:       provision.Policy(f.place),
		Exclude:     f.exclude,
	}, nil
}

// addPlace adds the flags by which new tenants are given a server.
func addPlace(flags *pflag.FlagSet, place *string, exclude *[]string) {
	flags.StringVar(place, "place", "", "choose the server where none is named, main or one of --server-dsn, by `POLICY`: least-tenants or least-bytes")
	flags.StringArrayVar(exclude, "exclude", nil, "with --place, put nothing on the server of this `NAME` (may be repeated)")
}

// warnOfSilent names servers that could have been chosen if they had answered.
func (c *cli) warnOfSilent(placed provision.Placement) {
	for _, s := range placed.Servers {
		if !s.Silent {
			continue
		}
		if _, said := c.silent.LoadOrStore(s.Server, true); !said {
			c.warn(fmt.Sprintf("server %q was not considered: %s", s.Server, s.Barred))
		}
	}
}

// level reads --isolation and --isolation-strategy, either of which may use the other's words.
func (f tenantFlags) level() (registry.Isolation, error) {
	var levels []registry.Isolation
	for _, word := range []string{f.isolation, f.strategy} {
		switch level := registry.Isolation(word); level {
		case "":
		case schemaStrategy: // DocEX's word for what a role confines here
			levels = append(levels, registry.IsolationRole)
		case registry.IsolationRole, registry.IsolationSlot, registry.IsolationTrusted, registry.IsolationDatabase:
			levels = append(levels, level)
		default:
			return "", usagef("unknown isolation %q", word)
		}
	}
	switch {
	case len(levels) == 0:
		return "", nil // the default; with --if-not-exists, any
	case len(levels) == 2 && levels[0] != levels[1]:
		return "", usagef("--isolation %s and --isolation-strategy %s contradict each other", f.isolation, f.strategy)
	}
	return levels[0], nil
}

const schemaStrategy = "schema"

func (c *cli) tenantListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all tenants, the oldest first",
		Args:  arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			tenants, err := c.tenants(command.Context())
			if err != nil {
				return err
			}
			return c.printTenants(tenants)
		},
	}
}

func (c *cli) tenantShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one tenant",
		Args:  arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			// Not parsed: the system tenant can be shown, and ids that older versions of DocEX allowed.
			tenant, err := c.tenant(command.Context(), registry.TenantID(args[0]))
			if err != nil {
				return err
			}
			view := viewTenant(tenant)
			if view.Move, err = c.moveOf(command.Context(), tenant.ID); err != nil {
				return err
			}
			return c.print(view, func(w io.Writer) { view.writeLines(w, fmt.Sprintf("Tenant '%s'", view.TenantID)) })
		},
	}
}

// tenants reads all.
func (c *cli) tenants(ctx context.Context) (tenants []*registry.Tenant, err error) {
	done, err := c.files(func(i sqlite.Installation) error {
		return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
			tenants, err = r.Tenants(ctx)
			return err
		})
	})
	if done {
		return tenants, err
	}
	err = c.withStore(ctx, func(store *registry.Store) error {
		tenants, err = store.Tenants(ctx)
		return err
	})
	return tenants, err
}

// tenant reads one, with an error that says how to find the others.
func (c *cli) tenant(ctx context.Context, id registry.TenantID) (tenant *registry.Tenant, err error) {
	done, err := c.files(func(i sqlite.Installation) error {
		return c.withFiles(ctx, i, func(r *sqlite.Registry) error {
			tenant, err = r.Tenant(ctx, id)
			return err
		})
	})
	if done {
		return tenant, err
	}
	err = c.withStore(ctx, func(store *registry.Store) error {
		tenant, err = store.Tenant(ctx, id)
		if errors.Is(err, registry.ErrNotFound) {
			return fmt.Errorf("tenant '%s' %w; see `docexctl tenant list`", id, provision.ErrNotFound)
		}
		return err
	})
	return tenant, err
}
