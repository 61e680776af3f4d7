package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/e2e/program"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// registryDatabase holds the registry, and the tenants that share a database.
const registryDatabase = "docex_isolation"

// site is a Postgres with a registry, on which all levels are tried.
type site struct {
	dir         string
	cluster     *localpg.Cluster
	key         string // path of the master key
	registryDSN string // for the proxies
	version     string // of Postgres
}

// account is a login with which one tenant can be reached.
type account struct{ tenant, login, password string }

// newSite builds the programs, starts Postgres with the server programs in binDir ("": those it finds) and runs
// docexctl init. Whoever gets it calls close.
func newSite(ctx context.Context, dir, binDir string) (*site, error) {
	s := &site{dir: dir, key: filepath.Join(dir, "master.key")}
	if err := os.Chmod(dir, 0o711); err != nil { // for root, Postgres runs as somebody else
		return nil, err
	}
	if err := program.Build(ctx, dir); err != nil {
		return nil, err
	}
	cluster, err := localpg.Start(ctx, localpg.Options{
		BinDir: binDir, DataDir: filepath.Join(dir, "pg"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "100"},
	})
	if err != nil {
		return nil, err
	}
	s.cluster = cluster
	if err := s.initialise(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) initialise(ctx context.Context) error {
	// Without one the proxy would not speak TLS, and there would be nothing to slip in behind an SSLRequest.
	if err := program.WriteCertificate(filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key")); err != nil {
		return err
	}
	conn, err := pgconn.Connect(ctx, s.cluster.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	s.version = conn.ParameterStatus("server_version")
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+registryDatabase+" TEMPLATE template0").ReadAll(); err != nil {
		return err
	}
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := s.docexctlJSON(ctx, &initialised, "init"); err != nil {
		return err
	}
	s.registryDSN = initialised.RegistryDSN
	return nil
}

func (s *site) close() error { return s.cluster.Stop() }

func (s *site) program(name string) string { return filepath.Join(s.dir, name) }

func (s *site) docexctl(ctx context.Context, arguments ...string) (string, error) {
	environment := []string{"DOCEX_DSN=" + s.cluster.DSN(registryDatabase), "DOCEX_MASTER_KEY_FILE=" + s.key}
	return program.Run(ctx, environment, s.program("docexctl"), arguments...)
}

func (s *site) docexctlJSON(ctx context.Context, answer any, arguments ...string) error {
	output, err := s.docexctl(ctx, append(arguments, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(output), answer)
}

// createTenant creates a tenant with a login that may use it and no other.
func (s *site) createTenant(ctx context.Context, id string, l level) (account, error) {
	var created struct {
		Login struct{ Login, Password string }
	}
	err := s.docexctlJSON(ctx, &created, "tenant", "create", id, "--display-name", "Tenant "+id, "--created-by", "isolation",
		"--isolation", string(l), "--login", id+"_app")
	return account{tenant: id, login: created.Login.Login, password: created.Login.Password}, err
}

// createLogin creates a further login for a tenant.
func (s *site) createLogin(ctx context.Context, name, tenant string) (account, error) {
	var created struct{ Password string }
	err := s.docexctlJSON(ctx, &created, "login", "create", name, "--tenant", tenant)
	return account{tenant: tenant, login: name, password: created.Password}, err
}

// Bounds of the proxies, which attacks run into on purpose.
const (
	budget          = 2 // server connections: so few that they are reused
	idleTransaction = "4s"
	queryTimeout    = "5s"
)

// serve starts a proxy for one level, with so many server connections. Without trusted it does without the key that
// allows that level, which a build may not know.
func (s *site) serve(ctx context.Context, l level, connections int) (*program.Proxy, error) {
	config := fmt.Sprintf(`
registry: {dsn: %q}
master_key_file: %q
servers:
  main: {host: %s, port: %d, sslmode: disable, max_connections: %d}
tls: {cert_file: %q, key_file: %q}
timeouts: {drain: 3s, idle_transaction: %s, query: %s, queue_wait: 15s}
limits: {login_failures: 0}
`, s.registryDSN, s.key, s.cluster.Host(), s.cluster.Port(), connections, s.program("tls.crt"), s.program("tls.key"),
		idleTransaction, queryTimeout)
	if l == levelTrusted {
		config += "auth: {allow_trusted: true}\n"
	}
	name := fmt.Sprintf("%s-%d", l, connections)
	path := s.program(name + ".yaml")
	if err := os.WriteFile(path, []byte(strings.TrimLeft(config, "\n")), 0o600); err != nil {
		return nil, err
	}
	return program.Serve(ctx, s.program("docex-proxy"), path, s.program(name+".log"))
}
