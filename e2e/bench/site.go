//go:build linux

package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/e2e/program"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

const (
	database    = "docex_bench"
	appLogin    = "bench_app"
	accounts    = 100 // rows of each tenant's table
	scale       = 10  // of pgbench's tables
	slots       = 100
	firstTenant = "role1" // has pgbench's tables
)

// site is Postgres with tenants at each level, a proxy for each driver, and PgBouncer.
type site struct {
	dir, version, bouncerVersion string
	cluster                      *localpg.Cluster
	masterKey                    []byte
	appPassword                  string
	proxies                      []*program.Proxy
	bouncer                      *bouncer

	direct, pgbouncer *target
	drivers           []*target // the proxy with each driver
}

// nameOf is a tenant's id: role1, slot2, trusted3.
func nameOf(level string, number int) string { return level + strconv.Itoa(number) }

func roleOf(tenant string) string { return "tenant_" + tenant }

func newSite(ctx context.Context, o options, progress io.Writer) (*site, error) {
	dir, err := os.MkdirTemp("", "docex-bench-")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir}
	if err := s.open(ctx, o, progress); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) open(ctx context.Context, o options, progress io.Writer) error {
	if err := os.Chmod(s.dir, 0o755); err != nil { // for root, Postgres and PgBouncer run as somebody else
		return err
	}
	if err := program.Build(ctx, s.dir); err != nil {
		return err
	}
	var err error
	s.cluster, err = localpg.Start(ctx, localpg.Options{
		BinDir: o.binDir, DataDir: filepath.Join(s.dir, "pg"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off", "jit": "off",
			"shared_buffers": "512MB", "max_connections": "500",
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(progress, "provisioning the tenants")
	if err := s.provision(ctx, o); err != nil {
		return err
	}
	return s.serve(ctx, o)
}

// provision makes the tenants: the first of each level by docexctl, which makes what all need, the others in a hurry.
func (s *site) provision(ctx context.Context, o options) error {
	if err := s.sql(ctx, "postgres", "CREATE DATABASE "+database+" TEMPLATE template0"); err != nil {
		return err
	}
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := s.docexctl(ctx, &initialised, "init", "--slots", strconv.Itoa(slots)); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("registry"), []byte(initialised.RegistryDSN), 0o600); err != nil {
		return err
	}
	key, err := os.ReadFile(s.path("master.key"))
	if err != nil {
		return err
	}
	if s.masterKey, err = hex.DecodeString(strings.TrimSpace(string(key))); err != nil {
		return err
	}
	if err := program.WriteCertificate(s.path("tls.crt"), s.path("tls.key")); err != nil {
		return err
	}
	for _, level := range o.needed() {
		if err := s.docexctl(ctx, nil, "tenant", "create", nameOf(level, 1), "--isolation", level); err != nil {
			return err
		}
		if err := s.fill(ctx, nameOf(level, 1)); err != nil {
			return err
		}
		roles := []string{roleOf(nameOf(level, 1))}
		for number := 2; number <= o.most(level); number++ {
			if err := s.hurry(ctx, level, nameOf(level, number)); err != nil {
				return err
			}
			roles = append(roles, roleOf(nameOf(level, number)))
		}
		if level == "trusted" { // in one statement: what one costs grows with those before
			if err := s.sql(ctx, database, "GRANT "+strings.Join(roles, ", ")+" TO docex_pool"); err != nil {
				return err
			}
		}
	}
	var login struct{ Password string }
	if err := s.docexctl(ctx, &login, "login", "create", appLogin, "--all-tenants"); err != nil {
		return err
	}
	s.appPassword = login.Password
	return s.loadPgbench(ctx)
}

// needed are the levels that some cell uses. Those with one tenant use role.
func (o options) needed() []string {
	levels := []string{"role"}
	for _, level := range []string{"slot", "trusted"} {
		if slices.Contains(o.levels, level) || level == growing && len(o.growth) > 0 {
			levels = append(levels, level)
		}
	}
	return levels
}

// most is how many tenants there have to be at a level.
func (o options) most(level string) int {
	most := append([]int{1}, o.tenants...)
	if o.noise > 0 {
		most = append(most, 2)
	}
	if level == growing {
		most = append(most, o.growth...)
	}
	return slices.Max(most)
}

// fill gives a tenant the table that is asked.
func (s *site) fill(ctx context.Context, tenant string) error {
	return s.sql(ctx, database, fillSQL(tenant))
}

func fillSQL(tenant string) string {
	return fmt.Sprintf(`SET ROLE %s; SET search_path = %[1]s;
CREATE TABLE accounts AS SELECT n AS aid, '%[2]s'::text AS tenant, 0 AS abalance, repeat(' ', 84) AS filler FROM generate_series(1, %[3]d) AS n;
ALTER TABLE accounts ADD PRIMARY KEY (aid); RESET ROLE`, roleOf(tenant), tenant, accounts)
}

// hurry makes a tenant with one table, without DocEX's.
func (s *site) hurry(ctx context.Context, level, tenant string) error {
	sql := fmt.Sprintf(`
CREATE ROLE %[1]s NOINHERIT LOGIN PASSWORD '%[2]s'; CREATE SCHEMA %[1]s AUTHORIZATION docex_owner; GRANT USAGE, CREATE ON SCHEMA %[1]s TO %[1]s;
GRANT CONNECT, TEMPORARY ON DATABASE %[3]s TO %[1]s; ALTER ROLE %[1]s IN DATABASE %[3]s SET search_path = %[1]s;
INSERT INTO docex_system.tenant_registry (tenant_id, display_name, is_system, isolation_strategy, schema_name, created_at, created_by, last_updated_at)
VALUES ('%[4]s', '%[4]s', false, 'schema', '%[1]s', now(), 'bench', now());
INSERT INTO docex_system.tenant_route (tenant_id, status, isolation, server, database_name, role_name)
VALUES ('%[4]s', 'active', '%[5]s', 'main', '%[3]s', '%[1]s');`, roleOf(tenant), s.rolePassword(tenant), database, tenant, level)
	return s.sql(ctx, database, sql+fillSQL(tenant))
}

func (s *site) loadPgbench(ctx context.Context) error {
	role := roleOf(firstTenant)
	_, err := program.Run(ctx, []string{"PGPASSWORD=" + s.rolePassword(firstTenant)}, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale),
		"-h", s.cluster.Host(), "-p", strconv.Itoa(s.cluster.Port()), "-U", role, database)
	if err != nil {
		return err
	}
	return s.sql(ctx, database, "VACUUM ANALYZE")
}

// rolePassword is what docexctl and the proxy derive from the master key for a role of the first generation.
func (s *site) rolePassword(tenant string) string {
	mac := hmac.New(sha256.New, s.masterKey)
	fmt.Fprintf(mac, "role\x00%s\x00%d\x00", roleOf(tenant), 1)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *site) serve(ctx context.Context, o options) error {
	registryDSN, err := os.ReadFile(s.path("registry"))
	if err != nil {
		return err
	}
	config := fmt.Appendf(nil, `
registry: {dsn: %q}
master_key_file: %q
servers: {main: {host: %s, port: %d, max_connections: %d}}
auth: {allow_trusted: true}
tls: {cert_file: %q, key_file: %q}
timeouts: {queue_wait: 60s, startup: 60s, drain: 2s}
limits: {login_failures: 0, clients: 20000, startups: 5000}
pool: {tenants_seen: %d}
`, registryDSN, s.path("master.key"), s.cluster.SocketDir(), s.cluster.Port(), o.connections, s.path("tls.crt"), s.path("tls.key"), o.seen)
	if err := os.WriteFile(s.path("proxy.yaml"), config, 0o600); err != nil {
		return err
	}
	port := strconv.Itoa(s.cluster.Port())
	s.direct = &target{name: "direct", host: s.cluster.Host(), port: port, user: roleOf, password: s.rolePassword}
	for _, driver := range o.drivers {
		p, err := program.Serve(ctx, s.path("docex-proxy"), s.path("proxy.yaml"), s.path("proxy-"+driver+".log"), "DOCEX_PROXY_IO="+driver)
		if err != nil {
			return err
		}
		s.proxies = append(s.proxies, p)
		host, port, _ := strings.Cut(p.Address, ":")
		s.drivers = append(s.drivers, &target{
			name: "proxy, " + driver, host: host, port: port, pid: p.PID(),
			user:     func(tenant string) string { return appLogin + "." + tenant },
			password: func(string) string { return s.appPassword },
		})
	}
	if s.bouncer, err = startBouncer(ctx, s, o); err != nil {
		return err
	}
	s.pgbouncer = &target{
		name: "PgBouncer", host: "127.0.0.1", port: strconv.Itoa(s.bouncer.port), pid: s.bouncer.command.Process.Pid,
		user: roleOf, password: s.rolePassword,
	}
	return s.learnVersions(ctx, o)
}

func (s *site) learnVersions(ctx context.Context, o options) error {
	conn, err := pgconn.Connect(ctx, s.cluster.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	s.version = conn.ParameterStatus("server_version")
	text, err := program.Run(ctx, nil, o.bouncer, "--version")
	s.bouncerVersion, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return err
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// docexctl runs it; what it prints, as JSON, is decoded into result unless that is nil.
func (s *site) docexctl(ctx context.Context, result any, arguments ...string) error {
	environment := []string{"DOCEX_DSN=" + s.cluster.DSN(database), "DOCEX_MASTER_KEY_FILE=" + s.path("master.key")}
	text, err := program.Run(ctx, environment, s.path("docexctl"), append(arguments, "-o", "json")...)
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal([]byte(text), result)
}

// sql runs statements as the superuser, past all poolers.
func (s *site) sql(ctx context.Context, database, text string) error {
	conn, err := pgconn.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, text).ReadAll()
	return err
}

// explain adds the end of the proxies' logs to an error.
func (s *site) explain(err error) error {
	for _, p := range s.proxies {
		err = fmt.Errorf("%w\n%s:\n%s", err, filepath.Base(p.Log), p.Said())
	}
	return err
}

func (s *site) close() error {
	var errs []error
	if s.bouncer != nil {
		errs = append(errs, s.bouncer.stop())
	}
	for _, p := range s.proxies {
		errs = append(errs, p.Stop())
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
