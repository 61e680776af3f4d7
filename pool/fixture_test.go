package pool_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/pool"
)

const patience = 30 * time.Second

// names makes roles, which belong to the cluster, differ between tests.
var names atomic.Int64

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// bench is a database with tenants and a superuser's connection to look on.
type bench struct {
	tb       testing.TB
	database string
	options  pool.Options
	admin    *pgx.Conn
}

func newBench(tb testing.TB, slots int) *bench {
	tb.Helper()
	dsn := pgtest.Database(tb)
	parsed, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	port, err := strconv.ParseUint(parsed.Port(), 10, 16)
	if err != nil {
		tb.Fatal(err)
	}
	admin, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { admin.Close(context.Background()) })
	return &bench{tb: tb, database: strings.TrimPrefix(parsed.Path, "/"), admin: admin, options: pool.Options{
		Servers: map[string]pool.Server{"main": {
			Hosts: []pool.Host{{Name: parsed.Hostname(), Port: uint16(port)}}, SSLMode: "disable", MaxConnections: slots,
		}},
		Password:       func(string, int) string { return "right" },
		ConnectTimeout: patience,
		Metrics:        newMetrics(),
	}}
}

// set opens the Set; it is closed, and its books are checked, when the test ends.
func (b *bench) set() *pool.Set {
	b.tb.Helper()
	set, err := pool.New(b.options)
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(func() {
		if err := set.Audit(); err != nil {
			b.tb.Error(err)
		}
		set.Close()
		if n := set.Targets(); n != 0 {
			b.tb.Errorf("%d targets are left after Close", n)
		}
	})
	return set
}

// tenant creates a tenant's role and schema, with a table "whoami" that holds the tenant's name.
func (b *bench) tenant(name string) pool.Target {
	b.tb.Helper()
	role := fmt.Sprintf("tenant_%s_%d", name, names.Add(1))
	b.exec(fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD 'right'; CREATE SCHEMA %[1]s AUTHORIZATION %[1]s; SET ROLE %[1]s;"+
		"CREATE TABLE %[1]s.whoami AS SELECT '%[2]s' AS name; RESET ROLE", role, name))
	b.tb.Cleanup(func() { b.exec("DROP OWNED BY " + role + "; DROP ROLE " + role) })
	return pool.Target{Server: "main", Database: b.database, Role: role, SearchPath: `"` + role + `"`, Tenant: name}
}

func (b *bench) tenants(n int) []pool.Target {
	targets := make([]pool.Target, n)
	for i := range targets {
		targets[i] = b.tenant(fmt.Sprintf("t%d", i))
	}
	return targets
}

func (b *bench) exec(sql string) {
	b.tb.Helper()
	if _, err := b.admin.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		b.tb.Fatalf("%s: %v", sql, err)
	}
}

// backends counts the proxy's backends in the bench's database.
func (b *bench) backends() int {
	b.tb.Helper()
	var n int
	err := b.admin.QueryRow(context.Background(),
		"SELECT count(*) FROM pg_stat_activity WHERE usename <> session_user AND datname = current_database()").Scan(&n)
	if err != nil {
		b.tb.Fatal(err)
	}
	return n
}

func acquire(tb testing.TB, set *pool.Set, t pool.Target, limit int) *pool.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := set.Acquire(ctx, t, limit)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// ask runs one simple query on a leased connection and returns its first column, rows joined by commas.
func ask(c *pool.Conn, sql string) (string, error) {
	frontend := pgproto3.NewFrontend(c.NetConn(), c.NetConn())
	frontend.Send(&pgproto3.Query{String: sql})
	if err := frontend.Flush(); err != nil {
		return "", err
	}
	var rows []string
	var failure error
	for {
		message, err := frontend.Receive()
		if err != nil {
			return "", err
		}
		switch message := message.(type) {
		case *pgproto3.DataRow:
			rows = append(rows, string(message.Values[0]))
		case *pgproto3.ErrorResponse:
			failure = fmt.Errorf("%s: %s", message.Code, message.Message)
		case *pgproto3.ReadyForQuery:
			return strings.Join(rows, ","), failure
		}
	}
}

func mustAsk(tb testing.TB, c *pool.Conn, sql string) string {
	tb.Helper()
	answer, err := ask(c, sql)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// eventually waits for a condition that other goroutines or the server bring about.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("it never came about that %s", what)
		}
	}
}

// stat returns the counts of one target, zero when the Set has forgotten it.
func stat(set *pool.Set, t pool.Target) pool.Stat {
	for _, s := range set.Stats() {
		if s.Target == t {
			return s
		}
	}
	return pool.Stat{Target: t}
}
