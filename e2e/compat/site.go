package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/e2e/program"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// site is a Postgres with one tenant, that can be reached directly and through a proxy, with the same role, database and
// password: what differs is the port. The database has the tenant's name, and the login that of the tenant's role.
type site struct {
	dir     string
	cluster *localpg.Cluster
	proxy   *program.Proxy
	version string // of Postgres

	tenant   string // and the database
	role     string // and the login, and the schema
	password string
}

// endpoint is where a driver connects: Postgres itself, or the proxy.
type endpoint struct {
	name                     string
	host, port               string
	user, password, database string
}

// Names of the endpoints.
const (
	directly = "directly"
	proxied  = "through the proxy"
)

// newSite starts a cluster in dir, which holds the programs already, makes the tenant and serves it with a proxy that
// has the given number of server connections. Whoever gets it calls close.
func newSite(ctx context.Context, programs, dir, tenant string, connections int) (*site, error) {
	s := &site{dir: dir, tenant: tenant}
	socket := filepath.Join(dir, "socket")
	if err := errors.Join(os.MkdirAll(socket, 0o777), os.Chmod(dir, 0o711), os.Chmod(socket, 0o777)); err != nil {
		return nil, err // for root, Postgres runs as somebody else, who has to get there
	}
	cluster, err := localpg.Start(ctx, localpg.Options{
		DataDir: filepath.Join(dir, "pg"), SocketDir: socket, Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300",
			"max_prepared_transactions": "10",
		},
	})
	if err != nil {
		return nil, err
	}
	s.cluster = cluster
	if err := s.settle(ctx, programs, connections); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// settle makes the registry, the tenant and the proxy.
func (s *site) settle(ctx context.Context, programs string, connections int) error {
	if _, err := s.superuser(ctx, "postgres", "CREATE DATABASE "+quoted(s.tenant)+" TEMPLATE template0"); err != nil {
		return err
	}
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := s.docexctl(ctx, programs, &initialised, "init"); err != nil {
		return err
	}
	var created struct {
		Schema string `json:"schema_name"`
		Login  struct{ Password string }
	}
	err := s.docexctl(ctx, programs, &created, "tenant", "create", s.tenant, "--display-name", s.tenant, "--created-by", "compat",
		"--login", "tenant_"+s.tenant)
	if err != nil {
		return err
	}
	s.role, s.password = created.Schema, created.Login.Password
	if err := s.shareThePassword(ctx); err != nil {
		return err
	}
	config := fmt.Sprintf(`registry: {dsn: %q}
master_key_file: %q
servers:
  main: {host: %q, port: %d, sslmode: disable, max_connections: %d}
identity: {database: true, user_suffix: false}
auth: {expose_tenant_errors: true}
limits: {login_failures: 0}
timeouts: {drain: 1s, queue_wait: 20s}
`, initialised.RegistryDSN, s.key(), s.cluster.SocketDir(), s.cluster.Port(), connections)
	path := filepath.Join(s.dir, "docex-proxy.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	s.proxy, err = program.Serve(ctx, filepath.Join(programs, "docex-proxy"), path, filepath.Join(s.dir, "proxy.log"))
	return err
}

// shareThePassword gives the role, for those who connect directly, the password that the login has at the proxy. The
// proxy does not need one: it comes over the unix socket, where it is trusted.
func (s *site) shareThePassword(ctx context.Context) error {
	rows, err := s.superuser(ctx, "postgres", "SHOW hba_file")
	if err != nil {
		return err
	}
	rules := rows[0][0]
	text, err := os.ReadFile(rules)
	if err != nil {
		return err
	}
	if err := os.WriteFile(rules, append([]byte("local all "+s.role+" trust\n"), text...), 0o600); err != nil {
		return err
	}
	_, err = s.superuser(ctx, "postgres", "SELECT pg_reload_conf(); ALTER ROLE "+quoted(s.role)+" PASSWORD '"+s.password+"'")
	return err
}

func (s *site) key() string { return filepath.Join(s.dir, "master.key") }

// superuser runs statements in a database past the proxy and returns all rows as text.
func (s *site) superuser(ctx context.Context, database, sql string) ([][]string, error) {
	conn, err := pgconn.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	s.version = conn.ParameterStatus("server_version")
	return rowsOf(conn.Exec(ctx, sql))
}

// rowsOf reads all rows of all results, as text.
func rowsOf(reader *pgconn.MultiResultReader) ([][]string, error) {
	results, err := reader.ReadAll()
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			values := make([]string, len(row))
			for i, value := range row {
				values[i] = string(value)
			}
			rows = append(rows, values)
		}
	}
	return rows, err
}

// docexctl runs one verb and decodes what it says into answer.
func (s *site) docexctl(ctx context.Context, programs string, answer any, arguments ...string) error {
	environment := []string{"DOCEX_DSN=" + s.cluster.DSN(s.tenant), "DOCEX_MASTER_KEY_FILE=" + s.key()}
	output, err := program.Run(ctx, environment, filepath.Join(programs, "docexctl"), append(arguments, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(output), answer)
}

// endpoints are both ways to the tenant.
func (s *site) endpoints() []endpoint {
	host, port, _ := net.SplitHostPort(s.proxy.Address)
	direct := endpoint{
		name: directly, host: s.cluster.Host(), port: fmt.Sprint(s.cluster.Port()),
		user: s.role, password: s.password, database: s.tenant,
	}
	through := direct
	through.name, through.host, through.port = proxied, host, port
	return []endpoint{direct, through}
}

// dsn is the endpoint as a URL.
func (e endpoint) dsn() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(e.user, e.password), Host: net.JoinHostPort(e.host, e.port), Path: e.database}
	return u.String() + "?sslmode=disable"
}

// libpq is the endpoint as libpq's environment variables.
func (e endpoint) libpq() []string {
	return []string{
		"PGHOST=" + e.host, "PGPORT=" + e.port, "PGUSER=" + e.user, "PGPASSWORD=" + e.password, "PGDATABASE=" + e.database, "PGSSLMODE=disable",
	}
}

func (s *site) close() error {
	var err error
	if s.proxy != nil {
		err = s.proxy.Stop()
	}
	return errors.Join(err, s.cluster.Stop())
}

// quoted is a name as SQL has it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
