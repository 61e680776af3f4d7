package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
)

// initFlags are the flags of the verb init.
type initFlags struct {
	actor, harden, server string
	slots                 int
	rekey, dryRun         bool
}

func (c *cli) initCommand() *cobra.Command {
	var f initFlags
	command := &cobra.Command{
		Use:   "init",
		Short: "Create the registry, the system tenant and the proxy's roles",
		Long: `init creates schema docex_system with the registry and the system tenant, the roles docex_owner, docex_pool and
docex_registry, the schema ext and, where there is none, the master key. With --slots it also creates docex_switcher and
the logins that tenants at isolation slot share, one for each server connection. It can be run again and completes what is
missing. It takes the rights of PUBLIC on the database and on schema public away: a login that relied on them needs
a GRANT afterwards.

With --server NAME and --slots N it makes slots on another server that holds tenants, and nothing else; the first tenant at
isolation slot there would get 50.`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error { return c.initialise(command.Context(), f) },
	}
	flags := command.Flags()
	flags.StringVar(&f.actor, "created-by", "system", "`NAME` of who does it, for the registry")
	flags.StringVar(&f.harden, "harden", string(provision.HardenNone), "take catalogs away from PUBLIC in this database: `LEVEL` none or light; "+
		"light hides the activity, settings and row counts of others, and breaks, for logins that are no superusers, "+hardeningBreaks)
	flags.IntVar(&f.slots, "slots", 0, "have at least `N` slots for tenants at isolation slot; there never become fewer (default: leave them as they are)")
	flags.StringVar(&f.server, "server", "", "with --slots: make them on another server, by the proxy's `NAME` for it, which a --server-dsn says how to reach")
	flags.BoolVar(&f.rekey, "rekey", false, "derive the passwords of all roles from the key at hand, also on the servers that --server-dsn names; every proxy needs the same key afterwards")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the SQL and change nothing")
	flags.Bool("multi-tenancy-enabled", true, "accepted for DocEX's sake: it is always on")
	return command
}

// hardeningBreaks is what those who harden have to know.
const hardeningBreaks = `psql's \du, \drds, \l+ and \db+, pg_notify() (the statement NOTIFY works), creating large objects, pg_dump with -j or of a ` +
	`whole database (-n SCHEMA works), and monitoring without grants of its own`

func (c *cli) initialise(ctx context.Context, f initFlags) error {
	if done, err := c.files(func(i sqlite.Installation) error { return c.filesInit(ctx, i, f) }); done {
		return err
	}
	if f.server != "" {
		return c.addSlots(ctx, f)
	}
	path, err := c.keyPath()
	if err != nil {
		return err
	}
	if _, err := c.database(); err != nil { // before a key is written
		return err
	}
	key, created, err := initialKey(path, f.dryRun)
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	result, err := provisioner.Init(ctx, provision.InitRequest{
		Actor: f.actor, Rekey: f.rekey, NewKey: created, Harden: provision.Hardening(f.harden), Slots: f.slots,
	})
	if is[*provision.KeyMismatchError](err) {
		return keyMismatch(path, created && !f.dryRun, err)
	}
	if err != nil {
		return err
	}
	c.warnOfSlots(f.slots, result.Slots)
	for _, server := range result.NotRekeyed {
		c.warn(fmt.Sprintf("tenants on server %q keep their old passwords: run it again with the same key and --server-dsn %s=DSN", server, server))
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	return c.printInit(initView{
		Database:     result.Database,
		Created:      result.Created,
		RolesCreated: list(result.RolesCreated),
		RolesRekeyed: list(result.RolesRekeyed),
		RegistryDSN:  result.RegistryDSN,
		KeyFile:      path,
		KeyCreated:   created,
		Hardening:    string(result.Hardening),
		RightsTaken:  result.RightsTaken,
		Slots:        result.Slots,
		SlotsCreated: result.SlotsCreated,
	})
}

// addSlots makes slots on another server.
func (c *cli) addSlots(ctx context.Context, f initFlags) error {
	if f.slots == 0 || f.rekey || f.harden != string(provision.HardenNone) {
		return usagef("--server goes with --slots N, and with neither --rekey nor --harden: nothing but slots is made on another server")
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisioner(key, f.dryRun)
	if err != nil {
		return err
	}
	result, err := provisioner.PrepareSlots(ctx, provision.SlotsRequest{Server: f.server, Slots: f.slots, Actor: f.actor})
	if err != nil {
		return err
	}
	if f.dryRun {
		return c.nothingChanged()
	}
	c.warnOfSlots(f.slots, result.Slots)
	view := struct {
		Server       string `json:"server"`
		Database     string `json:"database"`
		Slots        int    `json:"slots"`
		SlotsCreated int    `json:"slots_created"`
	}{result.Server, result.Database, result.Slots, result.Created}
	return c.print(view, func(w io.Writer) {
		fmt.Fprintf(w, "Database '%s' on server '%s' has %d slots; %d of them created now\n", view.Database, view.Server, view.Slots, view.SlotsCreated)
	})
}

// warnOfSlots says that there are more than were asked for.
func (c *cli) warnOfSlots(asked, there int) {
	if asked > 0 && asked < there {
		c.warn(fmt.Sprintf("there are %d slots; init takes none away", there))
	}
}

// initialKey reads the key or creates it; a dry run draws one and keeps it to itself.
func initialKey(path string, dryRun bool) (key secret.Key, created bool, err error) {
	if !dryRun {
		return secret.LoadOrCreate(path)
	}
	key, err = secret.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.New(), true, nil
	}
	return key, false, err
}

// keyMismatch says what to do about it. A key that was created just now is of no use to anybody, and would stand in
// the way of the right one.
func keyMismatch(path string, created bool, err error) error {
	if created {
		err = errors.Join(err, os.Remove(path))
		return fmt.Errorf("%w; no key was at %s: put the file that the proxy uses there, or run `docexctl init --rekey` to replace it", err, path)
	}
	return fmt.Errorf("%w in %s: use the file that the proxy uses, or run `docexctl init --rekey` to replace it", err, path)
}

// initView is what init prints.
type initView struct {
	Database     string   `json:"database"`
	Created      bool     `json:"created"`
	RolesCreated []string `json:"roles_created"`
	RolesRekeyed []string `json:"roles_rekeyed"`
	RegistryDSN  string   `json:"registry_dsn"`
	KeyFile      string   `json:"key_file"`
	KeyCreated   bool     `json:"key_created"`
	Hardening    string   `json:"hardening"`
	RightsTaken  int      `json:"rights_taken"` // from PUBLIC, by this run
	Slots        int      `json:"slots"`
	SlotsCreated int      `json:"slots_created"`
}

func (c *cli) printInit(v initView) error {
	return c.print(v, func(w io.Writer) {
		state := "initialised"
		if !v.Created {
			state = "was initialised already, and is complete"
		}
		fmt.Fprintf(w, "Registry in database '%s' %s\n", v.Database, state)
		fmt.Fprintln(w, "  System Tenant:\t_docex_system_")
		if len(v.RolesCreated) > 0 {
			fmt.Fprintf(w, "  Roles created:\t%s\n", strings.Join(v.RolesCreated, ", "))
		}
		if v.Slots > 0 {
			fmt.Fprintf(w, "  Slots:\t%d; %d of them created now\n", v.Slots, v.SlotsCreated)
		}
		if len(v.RolesRekeyed) > 0 {
			fmt.Fprintf(w, "  Roles rekeyed:\t%d\n", len(v.RolesRekeyed))
		}
		if v.KeyCreated {
			fmt.Fprintf(w, "  Master key:\tcreated; keep a copy, the roles' passwords are derived from it\n")
		}
		if v.Hardening != string(provision.HardenNone) {
			fmt.Fprintf(w, "  Hardening:\t%s; %d rights taken from PUBLIC now\n", v.Hardening, v.RightsTaken)
		}
		fmt.Fprintln(w, "\nNext: put this into the proxy's configuration, then run `docexctl tenant create`")
		fmt.Fprintf(w, "  registry:\n    dsn: %s\n  master_key_file: %s\n", v.RegistryDSN, v.KeyFile)
		if v.RightsTaken > 0 {
			fmt.Fprintf(w, "\nHardening breaks, for logins that are no superusers, %s.\n", hardeningBreaks)
			fmt.Fprintln(w, "Whoever needs one of these gets it by GRANT, as in: GRANT SELECT ON pg_stat_activity TO monitoring")
		}
	})
}
