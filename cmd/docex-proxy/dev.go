package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	devDatabase = "postgres" // the one that initdb makes
	devActor    = "docex-proxy dev"
	devDrain    = 2 * time.Second // nobody wants to wait for his own shell
)

// devFlags are the flags of dev.
type devFlags struct {
	dataDir, binDir, listen, http string
	tenants                       []string
}

func devCommand() *cobra.Command {
	standard := configs.Default()
	var f devFlags
	command := &cobra.Command{
		Use:   "dev",
		Short: "Serve a private Postgres with a few tenants, to try things out",
		Long: `dev starts a Postgres cluster of its own, provisions tenants and logins in it, prints a psql line for each tenant
and serves, until it gets SIGINT or SIGTERM. The server programs are those of this machine; where there are none they
are downloaded.

The data directory holds the cluster, the master key and credentials.json. A second dev on the same directory finds
everything as it was. When dev serves it prints a line that starts with "ready".`,
		Args: noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			return dev(command.Context(), f, command.OutOrStdout(), command.ErrOrStderr())
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.dataDir, "data-dir", "", "`DIR` for everything that is kept (default: a temporary one, removed at the end)")
	flags.StringVar(&f.binDir, "bin-dir", "", "`DIR` of the Postgres server programs (default: searched)")
	flags.StringVar(&f.listen, "listen", standard.Listen, "`ADDRESS` for clients")
	flags.StringVar(&f.http, "http", standard.HTTP, "`ADDRESS` for metrics and status; empty turns it off")
	flags.StringSliceVar(&f.tenants, "tenants", []string{"acme", "globex"}, "`IDS` of the tenants that shall exist")
	return command
}

// dev runs a private cluster and a proxy before it, until ctx ends.
func dev(ctx context.Context, f devFlags, stdout, stderr io.Writer) (err error) {
	tenants, err := parseTenants(f.tenants)
	if err != nil {
		return err
	}
	dir, remove, err := devDir(f.dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	config := configs.Default()
	config.Listen, config.HTTP = f.listen, f.http
	clients, status, err := listen(config, listenTCP) // first: a taken port is found out before anything is started
	if err != nil {
		return err
	}
	defer closeListeners(clients, status)

	cluster, err := localpg.Start(ctx, localpg.Options{
		BinDir: f.binDir, DataDir: filepath.Join(dir, "postgres"), DownloadOK: true,
		Logger: slog.New(slog.NewTextHandler(stderr, nil)),
	})
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()

	keyFile := filepath.Join(dir, "master.key")
	made, err := provisionDev(ctx, cluster.DSN(devDatabase), keyFile, tenants)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	config.Registry.DSN, config.MasterKeyFile = configs.Secret(made.registryDSN), keyFile
	config.Auth.ExposeTenantErrors, config.Timeouts.Drain = true, devDrain
	config.Auth.Admins = []string{devAdmin}

	credentials := newCredentials(made, clients.Addr(), addressOf(status), cluster)
	if err := credentials.write(filepath.Join(dir, "credentials.json")); err != nil {
		return err
	}
	return serveOn(ctx, config, nil, nil, clients, status, stderr, func() {
		credentials.print(stdout)
		printReady(stdout, clients, status)
	})
}

// unlessInterrupted leaves out what went wrong because the user wanted an end.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func parseTenants(names []string) ([]registry.TenantID, error) {
	var ids []registry.TenantID
	for _, name := range names {
		id, err := registry.ParseTenantID(strings.TrimSpace(name))
		if err != nil {
			return nil, usagef("--tenants: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// devDir makes the data directory. The account that runs Postgres has to pass through it; what is secret in it has
// modes of its own.
func devDir(named string) (dir string, remove func() error, err error) {
	if named == "" {
		dir, err = os.MkdirTemp("", "docex-proxy-dev-")
		if err != nil {
			return "", nil, err
		}
		return dir, func() error { return os.RemoveAll(dir) }, os.Chmod(dir, 0o755)
	}
	dir, err = filepath.Abs(named)
	if err != nil {
		return "", nil, err
	}
	return dir, func() error { return nil }, os.MkdirAll(dir, 0o755)
}

func addressOf(listener net.Listener) net.Addr {
	if listener == nil {
		return nil
	}
	return listener.Addr()
}

// devAdmin is the login that may use the console.
const devAdmin = "admin"

// devLogin is a login that dev has made, with the one tenant it is for; the registry's name of none is all of them.
type devLogin struct {
	tenant         registry.TenantID
	database       string // of the tenant
	name, password string
}

// devMade is what provisionDev has made, or found.
type devMade struct {
	registryDSN string
	tenants     []devLogin
	app, admin  devLogin
}

// provisionDev does what `docexctl init`, `docexctl tenant create` and `docexctl login create` would do. Everything
// may be there already.
func provisionDev(ctx context.Context, dsn, keyFile string, tenants []registry.TenantID) (devMade, error) {
	key, created, err := secret.LoadOrCreate(keyFile)
	if err != nil {
		return devMade{}, err
	}
	p := provision.New(provision.Options{DSN: dsn, Key: key})
	initialised, err := p.Init(ctx, provision.InitRequest{NewKey: created})
	if err != nil {
		return devMade{}, err
	}
	made := devMade{registryDSN: initialised.RegistryDSN}
	for _, id := range tenants {
		tenant, err := p.CreateTenant(ctx, provision.TenantRequest{ID: id, CreatedBy: devActor, IfNotExists: true})
		if err != nil {
			return devMade{}, fmt.Errorf("tenant %s: %w", id, err)
		}
		login, err := createDevLogin(ctx, p, key, provision.LoginRequest{Name: string(id) + "_app", Tenants: []registry.TenantID{id}})
		if err != nil {
			return devMade{}, err
		}
		login.tenant, login.database = id, tenant.Route.Database
		made.tenants = append(made.tenants, login)
	}
	if made.app, err = createDevLogin(ctx, p, key, provision.LoginRequest{Name: "app", AllTenants: true}); err != nil {
		return devMade{}, err
	}
	made.admin, err = createDevLogin(ctx, p, key, provision.LoginRequest{Name: devAdmin, AllTenants: true})
	return made, err
}

// createDevLogin creates a login whose password is derived from the master key, so that a later run knows it again
// although the registry holds only a verifier.
func createDevLogin(ctx context.Context, p *provision.Provisioner, key secret.Key, r provision.LoginRequest) (devLogin, error) {
	r.Password, r.Actor = derivedLoginPassword(key, r.Name), devActor
	_, err := p.CreateLogin(ctx, r)
	if err != nil && !errors.Is(err, provision.ErrExists) {
		return devLogin{}, fmt.Errorf("login %s: %w", r.Name, err)
	}
	return devLogin{name: r.Name, password: r.Password}, nil
}
