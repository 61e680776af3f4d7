//go:build linux

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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/e2e/program"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

const (
	database    = "docex_faults"
	appLogin    = "faults_app"
	herdLogin   = "faults_herd" // needs no password from loopback: ten thousand of them would cost the clients minutes
	connections = 12            // of the proxy to its server
)

// site is Postgres, a proxy, and the relays between the clients, the proxy, the server and the registry.
type site struct {
	dir, password string
	options       localpg.Options
	cluster       *localpg.Cluster
	second        *localpg.Cluster // where tenants move to, nil for nowhere
	standby       *localpg.Cluster // of the server, nil before there is one
	tenants       []tenant
	program       string // that runs the proxy
	proxy         *program.Proxy
	proxies       int      // that have been started
	registryDSN   string   // the proxy's
	environment   []string // of proxies that are started from now on

	clients, server, registry *relay
	fleet                     *fleet // nil: there is one proxy
}

func newSite(ctx context.Context, dir string, o options) (*site, error) {
	s := &site{dir: dir, tenants: tenantsOf(o)}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) open(ctx context.Context, o options) (err error) {
	if err := os.Chmod(s.dir, 0o755); err != nil { // for root, Postgres runs as somebody else
		return err
	}
	flags, err := s.settableClock()
	if err != nil {
		return err
	}
	if err := program.Build(ctx, s.dir, flags...); err != nil {
		return err
	}
	s.options = localpg.Options{
		BinDir: o.binDir, DataDir: s.path("pg"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"fsync": "off", "max_connections": strconv.Itoa(60 + o.fleet*(connections+8)), "restart_after_crash": "on"},
	}
	if o.moves > 0 {
		s.options.Settings["wal_level"] = "logical"
		if err := s.startSecond(ctx); err != nil {
			return err
		}
	}
	if err := s.startCluster(ctx); err != nil {
		return err
	}
	address := net.JoinHostPort(s.cluster.Host(), strconv.Itoa(s.cluster.Port()))
	for _, r := range []**relay{&s.server, &s.registry, &s.clients} {
		var err error
		if *r, err = newRelay(address); err != nil { // that of the clients gets another
			return err
		}
	}
	if err := s.provision(ctx, o); err != nil {
		return err
	}
	if o.fleet > 0 {
		if s.fleet, err = newFleet(ctx, s, o.fleet); err == nil {
			s.clients.upstream.Store(&s.fleet.front)
		}
		return err
	}
	return s.startProxy(ctx)
}

// startCluster starts Postgres, on the port of the time before.
func (s *site) startCluster(ctx context.Context) (err error) {
	if s.cluster != nil {
		s.options.Port = s.cluster.Port()
	}
	s.cluster, err = localpg.Start(ctx, s.options)
	return err
}

func (s *site) provision(ctx context.Context, o options) error {
	if err := s.sql(ctx, "postgres", "CREATE DATABASE "+database+" TEMPLATE template0"); err != nil {
		return err
	}
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := s.docexctl(ctx, &initialised, "init", "--slots", strconv.Itoa(40+o.fleet*connections)); err != nil {
		return err
	}
	for _, t := range tenantsOf(o) {
		var made place
		if err := s.docexctl(ctx, &made, "tenant", "create", t.name, "--isolation", t.level); err != nil {
			return err
		}
		ledger := fmt.Sprintf(`SET ROLE tenant_%[1]s; SET search_path = tenant_%[1]s; CREATE TABLE owner AS SELECT '%[1]s'::text AS name;
CREATE TABLE ledger (client int, n int, PRIMARY KEY (client, n))`, t.name)
		if err := s.sql(ctx, made.Route.Database, ledger); err != nil {
			return err
		}
	}
	for login, password := range map[string]*string{appLogin: &s.password, herdLogin: new(string)} {
		var made struct{ Password string }
		if err := s.docexctl(ctx, &made, "login", "create", login, "--all-tenants"); err != nil {
			return err
		}
		*password = made.Password
	}
	dsn, err := url.Parse(initialised.RegistryDSN)
	if err != nil {
		return err
	}
	dsn.Host = s.registry.address
	s.registryDSN = dsn.String()
	host, port, err := net.SplitHostPort(s.server.address)
	if err != nil {
		return err
	}
	if host, err = s.nameServer(host); err != nil {
		return err
	}
	return os.WriteFile(s.path("proxy.yaml"), fmt.Appendf(nil, `
registry: {dsn: %q, ttl: 2s}
master_key_file: %q
servers: {main: {host: %q, port: %s, max_connections: %d}%s}
auth: {allow_trusted: true, trust: [%s]}
limits: {clients: 15000, startups: 12000, login_failures: 0}
timeouts: {queue_wait: 8s, connect: 5s, query: 12s, idle_transaction: 3s, client_write: 3s, drain: 2s}
`, s.registryDSN, s.path("master.key"), host, port, connections, s.secondEntry(), herdLogin), 0o600)
}

// startProxy starts one, at the address that the clients' relay leads to from then on.
func (s *site) startProxy(ctx context.Context) (err error) {
	s.proxies++
	s.proxy, err = program.Serve(ctx, s.program, s.path("proxy.yaml"), s.path(fmt.Sprintf("proxy%d.log", s.proxies)), s.environment...)
	if err == nil {
		s.clients.upstream.Store(&s.proxy.Address)
	}
	return err
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) docexctl(ctx context.Context, result any, arguments ...string) error {
	environment := []string{"DOCEX_DSN=" + s.cluster.DSN(database), "DOCEX_MASTER_KEY_FILE=" + s.path("master.key")}
	text, err := program.Run(ctx, environment, s.path("docexctl"), append(arguments, "-o", "json")...)
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal([]byte(text), result)
}

// sql runs statements as the superuser, past the proxy.
func (s *site) sql(ctx context.Context, database, text string) error {
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, text).ReadAll()
	return err
}

// number is what a query of one number says, as the superuser.
func (s *site) number(ctx context.Context, query string) (n int, err error) {
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, query).Scan(&n)
	return n, err
}

func (s *site) dsn(address, login, tenant string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword(login+"."+tenant, s.password), Host: address, Path: "/" + tenant, RawQuery: "sslmode=disable",
	}).String()
}

type ledgerKey struct {
	tenant string
	client int
}

// ledgers reads all rows of all tenants, with how often each is there.
func (s *site) ledgers(ctx context.Context) (map[ledgerKey]map[int]int, error) {
	if s.second != nil {
		return s.ledgersOfMoved(ctx, s.tenants)
	}
	conn, err := pgx.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	schemas, err := ledgerSchemas(ctx, conn)
	if err != nil {
		return nil, err
	}
	all := make(map[ledgerKey]map[int]int)
	for _, schema := range schemas {
		if err := readLedgerOf(ctx, conn, schema, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readLedgerOf(ctx context.Context, conn *pgx.Conn, schema string, all map[ledgerKey]map[int]int) error {
	rows, err := conn.Query(ctx, "SELECT client, n FROM "+schema+".ledger")
	if err != nil {
		return err
	}
	var client, n int
	_, err = pgx.ForEachRow(rows, []any{&client, &n}, func() error {
		key := ledgerKey{strings.TrimPrefix(schema, "tenant_"), client}
		if all[key] == nil {
			all[key] = make(map[int]int)
		}
		all[key][n]++
		return nil
	})
	return err
}

// ledgerSchemas are where there is a ledger.
func ledgerSchemas(ctx context.Context, conn *pgx.Conn) (schemas []string, err error) {
	err = conn.QueryRow(ctx, "SELECT array_agg(schemaname) FROM pg_tables WHERE tablename = 'ledger'").Scan(&schemas)
	return schemas, err
}

// serverPIDs are the processes of Postgres, the postmaster first.
func (s *site) serverPIDs() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(s.options.DataDir, "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return nil, err
	}
	pids := []int{postmaster}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", postmaster, postmaster))
	for _, word := range strings.Fields(string(children)) {
		pid, convErr := strconv.Atoi(word)
		err = errors.Join(err, convErr)
		pids = append(pids, pid)
	}
	return pids, err
}

func (s *site) signalServer(signal syscall.Signal) error {
	pids, err := s.serverPIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		syscall.Kill(pid, signal) //nolint:errcheck // a backend may just have ended
	}
	return nil
}

// explain adds what the proxy said last.
func (s *site) explain(err error) error {
	if s.proxy == nil {
		return err
	}
	return fmt.Errorf("%w\n%s", err, s.proxy.Said())
}

func (s *site) close() error {
	var errs []error
	if s.proxy != nil {
		errs = append(errs, s.proxy.Stop())
	}
	if s.fleet != nil {
		errs = append(errs, s.fleet.close())
	}
	for _, r := range []*relay{s.clients, s.server, s.registry} {
		if r != nil {
			r.close()
		}
	}
	for _, other := range []*localpg.Cluster{s.second, s.standby} {
		if other != nil {
			errs = append(errs, other.Stop())
		}
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop())
	}
	return errors.Join(errs...)
}

// settle waits for a moment in which Postgres takes connections.
func (s *site) settle(ctx context.Context) error {
	for end := time.Now().Add(30 * time.Second); ; pause(ctx, 20*time.Millisecond) {
		err := s.sql(ctx, database, "SELECT 1")
		if err == nil || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
	}
}
