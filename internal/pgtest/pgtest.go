package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

const (
	startPatience = time.Minute
	queryPatience = 30 * time.Second
)

// server and second are the clusters of this test binary: testing.M and testing.TB have nothing in common that could carry
// them.
var server, second cluster

type cluster struct {
	of        *localpg.Cluster // its primary, nil unless it is a standby
	mutex     sync.Mutex
	running   *localpg.Cluster // nil before the first test asks
	dir       string
	databases atomic.Int64
}

// Main runs the tests of a package that uses Cluster or Database:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// The cluster starts when the first test asks for it. At the end it is stopped and its files are removed, and a
// goroutine that a test left behind makes the binary fail.
func Main(m *testing.M) int {
	code := m.Run()
	if err := errors.Join(server.stop(), second.stop()); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = 1
	}
	return code
}

// Cluster returns the cluster of this test binary, running.
func Cluster(tb testing.TB) *localpg.Cluster {
	tb.Helper()
	return running(tb, &server)
}

// SecondCluster returns another cluster, running, for what concerns two servers.
func SecondCluster(tb testing.TB) *localpg.Cluster {
	tb.Helper()
	return running(tb, &second)
}

// Standby returns a streaming standby of a cluster, running, which ends with the test.
func Standby(tb testing.TB, of *localpg.Cluster) *localpg.Cluster {
	tb.Helper()
	c := &cluster{of: of}
	tb.Cleanup(func() {
		if err := c.stop(); err != nil {
			tb.Error(err)
		}
	})
	return running(tb, c)
}

func running(tb testing.TB, c *cluster) *localpg.Cluster {
	tb.Helper()
	running, err := c.start()
	if err != nil {
		tb.Fatal(err)
	}
	return running
}

// Database creates an empty database for this test and returns the superuser's DSN of it. It is dropped, with
// whoever is still connected, when the test ends.
func Database(tb testing.TB) string {
	tb.Helper()
	running := Cluster(tb)
	name := fmt.Sprintf("test_%d", server.databases.Add(1))
	execute(tb, running, "CREATE DATABASE "+name+" TEMPLATE template0")
	tb.Cleanup(func() { execute(tb, running, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return running.DSN(name)
}

// execute runs one statement in the maintenance database. It has its own context: at cleanup the test's has ended.
func execute(tb testing.TB, running *localpg.Cluster, sql string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, running.DSN("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// start runs the cluster if it does not run yet. It is called by each test that needs it: the tests that need none
// do not wait for one.
func (c *cluster) start() (*localpg.Cluster, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.running != nil {
		return c.running, nil
	}
	dir, err := os.MkdirTemp("", "docex-pgtest-")
	if err != nil {
		return nil, err
	}
	running, err := run(dir, c.of)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c.running, c.dir = running, dir
	return running, nil
}

func run(dir string, primary *localpg.Cluster) (*localpg.Cluster, error) {
	if err := os.Chmod(dir, 0o755); err != nil { // whoever runs the server has to pass through
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	return localpg.Start(ctx, localpg.Options{
		DataDir:   filepath.Join(dir, "data"),
		StandbyOf: primary,
		Settings: map[string]string{ // nothing of a test's data has to survive a crash
			"fsync":              "off",
			"synchronous_commit": "off",
			"full_page_writes":   "off",
			"max_connections":    "200",
			// A tenant moves between servers by logical replication, which by itself starts one worker in five seconds.
			"wal_level":                         "logical",
			"wal_retrieve_retry_interval":       "50ms",
			"max_logical_replication_workers":   "8",
			"max_sync_workers_per_subscription": "4",
		},
	})
}

func (c *cluster) stop() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.running == nil {
		return nil
	}
	return errors.Join(c.running.Stop(), os.RemoveAll(c.dir))
}
