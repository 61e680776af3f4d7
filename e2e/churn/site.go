package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/docex-proxy/docex-proxy/e2e/program"
	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

const (
	database = "docex_churn"
	appLogin = "churn_app"
	rows     = 20 // of each tenant's table

	// The numbers of a tenant's rows, and of its sequence, divided by these are the tenant's.
	rowUnit    = 1000
	ticketUnit = 1_000_000
)

// site is Postgres, the tenants and a proxy.
type site struct {
	dir, version string
	cluster      *localpg.Cluster
	proxy        *program.Proxy
	tenants      []*tenant
	taken        string            // what tenants lose
	randoms      map[string]string // what random() says first after each tenant's seed, and whose it is

	sessions atomic.Uint64 // that have begun, with knocks

	mu   sync.Mutex
	keys []cancelKey // of sessions that are over, the last ones
}

// tenant is one, with what has become of it.
type tenant struct {
	name string // t007
	// losing is set before the tenant loses its role or schema, gone after.
	losing, gone atomic.Bool
}

// newSite builds both programs and starts everything. Whoever gets it calls close.
func newSite(ctx context.Context, dir string, o options) (*site, error) {
	s := &site{dir: dir}
	if err := os.Chmod(dir, 0o711); err != nil { // for root, Postgres runs as somebody else
		return nil, err
	}
	if err := program.Build(ctx, dir); err != nil {
		return nil, err
	}
	cluster, err := localpg.Start(ctx, localpg.Options{
		BinDir: o.binDir, DataDir: filepath.Join(dir, "pg"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "60"},
	})
	if err != nil {
		return nil, err
	}
	s.cluster = cluster
	registryDSN, err := s.provision(ctx, o)
	if err == nil {
		err = s.serve(ctx, registryDSN, o)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// provision makes the tenants and their rows, and returns where the registry is.
func (s *site) provision(ctx context.Context, o options) (registryDSN string, err error) {
	maintenance, err := pgconn.Connect(ctx, s.cluster.DSN("postgres"))
	if err != nil {
		return "", err
	}
	defer maintenance.Close(ctx)
	s.version = maintenance.ParameterStatus("server_version")
	if _, err := maintenance.Exec(ctx, "CREATE DATABASE "+database+" TEMPLATE template0").ReadAll(); err != nil {
		return "", err
	}
	output, err := s.docexctl(ctx, "init", "-o", "json")
	if err != nil {
		return "", err
	}
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := json.Unmarshal([]byte(output), &initialised); err != nil {
		return "", err
	}
	var group errgroup.Group
	group.SetLimit(3)
	for i := range o.tenants {
		name := nameOf(i + 1)
		s.tenants = append(s.tenants, &tenant{name: name})
		if i == 0 { // the first may make what all of them need
			if err := s.create(ctx, name, o.level); err != nil {
				return "", err
			}
			continue
		}
		group.Go(func() error { return s.create(ctx, name, o.level) })
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	if _, err = s.docexctl(ctx, "login", "create", appLogin, "--all-tenants", "-o", "json"); err != nil {
		return "", err
	}
	return initialised.RegistryDSN, s.learnRandoms(ctx, maintenance)
}

// seedOf is the tenant's argument of setseed.
func seedOf(number int) string { return fmt.Sprintf("%.3f", float64(number)/1000) }

// learnRandoms notes what random() says after each tenant's seed.
func (s *site) learnRandoms(ctx context.Context, conn *pgconn.PgConn) error {
	s.randoms = make(map[string]string)
	for _, t := range s.tenants {
		sql := "SELECT setseed(" + seedOf(numberOf(t.name)) + "); SELECT random(); SELECT random(); SELECT random()"
		results, err := conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			return err
		}
		for _, result := range results[1:] {
			s.randoms[string(result.Rows[0][0])] = t.name
		}
	}
	return nil
}

func (s *site) create(ctx context.Context, name, level string) error {
	if _, err := s.docexctl(ctx, "tenant", "create", name, "--isolation", level, "-o", "json"); err != nil {
		return err
	}
	return s.admin(ctx, fmt.Sprintf(`SET ROLE tenant_%[1]s; SET search_path = tenant_%[1]s;
CREATE TABLE mine AS SELECT 'own-%[1]s'::text AS tenant, %[3]d + n AS n, 'pad of own-%[1]s'::text AS pad FROM generate_series(1, %[2]d) AS n;
CREATE TABLE sink (tenant text); CREATE SEQUENCE ticket START %[4]d`,
		name, rows, numberOf(name)*rowUnit, numberOf(name)*ticketUnit))
}

// sabotage puts a row of the second tenant into the first one's table.
func (s *site) sabotage(ctx context.Context) error {
	return s.admin(ctx, fmt.Sprintf("INSERT INTO tenant_%s.mine SELECT * FROM tenant_%s.mine LIMIT 1", s.tenants[0].name, s.tenants[1].name))
}

// other is a tenant but this one, or the same where there is no other.
func (s *site) other(name string, r *rand.Rand) string {
	at := numberOf(name) - 1
	return s.tenants[(at+1+r.IntN(max(1, len(s.tenants)-1)))%len(s.tenants)].name
}

// over notes the key of a session that has ended.
func (s *site) over(key cancelKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys[max(0, len(s.keys)-100):], key)
}

// staleKey is one of a session that has ended some time ago.
func (s *site) staleKey() (cancelKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) == 0 {
		return cancelKey{}, false
	}
	return s.keys[0], true
}

// admin runs SQL as the superuser, past the proxy.
func (s *site) admin(ctx context.Context, sql string) error {
	conn, err := pgconn.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql).ReadAll()
	return err
}

func (s *site) docexctl(ctx context.Context, arguments ...string) (string, error) {
	environment := []string{"DOCEX_DSN=" + s.cluster.DSN(database), "DOCEX_MASTER_KEY_FILE=" + s.key()}
	return program.Run(ctx, environment, filepath.Join(s.dir, "docexctl"), arguments...)
}

// key is the path of the master key.
func (s *site) key() string { return filepath.Join(s.dir, "master.key") }

// audit looks into the tables for rows that another tenant has written, and for such as were never committed.
func (s *site) audit(ctx context.Context) error {
	conn, err := pgconn.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, of := range s.tenants {
		if of.losing.Load() {
			continue
		}
		results, err := conn.Exec(ctx, fmt.Sprintf("SELECT tenant FROM tenant_%[1]s.sink WHERE tenant <> 'own-%[1]s' LIMIT 1", of.name)).ReadAll()
		if err != nil {
			return err
		}
		for _, row := range results[0].Rows {
			return fmt.Errorf("the table of tenant %s has a row %q, which it has not written and committed", of.name, row[0])
		}
	}
	return nil
}

// hasLosers reports whether a tenant has begun to lose what -drop takes.
func (s *site) hasLosers() bool {
	return slices.ContainsFunc(s.tenants, func(t *tenant) bool { return t.losing.Load() })
}

// lost counts the tenants that have lost what -drop takes.
func (s *site) lost() (n int) {
	for _, t := range s.tenants {
		if t.gone.Load() {
			n++
		}
	}
	return n
}
