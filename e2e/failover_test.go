//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// scribe writes one row after the other through the proxy, and connects again where its connection ends.
type scribe struct {
	acknowledged, unknown atomic.Int64
	failures              chan string // what was answered in the place of a row, by its SQLSTATE, "" for a broken connection
	stop                  context.CancelFunc
	done                  chan struct{}
}

func startScribe(t *testing.T, p *proxy, a account) *scribe {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &scribe{failures: make(chan string, 1<<16), stop: stop, done: make(chan struct{})}
	execute(t, p.connect(t, a), "CREATE TABLE written (n int)")
	config := configure(t, p.dsn(a))
	go func() {
		defer close(s.done)
		for ctx.Err() == nil {
			if err := s.write(ctx, config); err != nil && ctx.Err() == nil {
				s.failures <- sqlstate(err)
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	t.Cleanup(s.end)
	return s
}

// write writes on one connection until it ends.
func (s *scribe) write(ctx context.Context, config *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for ctx.Err() == nil {
		_, err := conn.PgConn().Exec(ctx, "INSERT INTO written VALUES (1)").ReadAll()
		switch {
		case err == nil:
			s.acknowledged.Add(1)
		case conn.IsClosed() || ctx.Err() != nil:
			s.unknown.Add(1)
			return err
		default: // the session stays: nothing was written, or the connection broke on the way
			s.unknown.Add(1)
			s.failures <- sqlstate(err)
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func (s *scribe) end() {
	s.stop()
	<-s.done
}

// TestAPromotedStandbyIsFollowedWithoutARestart begins with what a replica is for.
func TestAPromotedStandbyIsFollowedWithoutARestart(t *testing.T) {
	s := newOutpost(t)
	if output, code := s.docexctl("init", "--slots", "5"); code != 0 {
		t.Fatalf("docexctl init: exit code %d: %s", code, output)
	}
	standby := runCluster(t, localpg.Options{DataDir: filepath.Join(openDir(t), "data"), StandbyOf: s.cluster})
	hosts, ports := "127.0.0.1,127.0.0.1", fmt.Sprintf("%d,%d", s.cluster.Port(), standby.Port())
	s.configureProxies(t, fmt.Sprintf(`
registry: {dsn: "postgres://docex_registry@/%s?host=%s&port=%s&sslmode=disable"}
master_key_file: %s
auth: {allow_trusted: true}
servers:
  main: {host: "%[2]s", port: "%s", sslmode: disable, max_connections: 10, replica: read}
  read: {host: 127.0.0.1, port: %[5]d, sslmode: disable, max_connections: 4}
`, database, hosts, ports, s.key, standby.Port()))
	p := s.startProxy(t, nil)

	accounts := make(map[string]account)
	sessions := make(map[string]*pgx.Conn)
	for _, level := range []string{"role", "slot", "trusted"} {
		a := s.tenant(t, "over_"+level, "--isolation", level)
		accounts[level], sessions[level] = a, p.connect(t, a)
		execute(t, sessions[level], "CREATE TABLE kept AS SELECT '"+level+"' AS level")
	}
	if refusal := p.refused(t, accounts["slot"], with("docex.route", "replica")); refusal.Code != "0A000" || !strings.Contains(refusal.Message, "slot") {
		t.Errorf("level slot on a replica: %v", refusal)
	}
	replayed(t, s, standby)
	for level, asked := range map[string]change{"role": with("docex.route", "replica"), "trusted": with("options", "-c docex.route=replica")} {
		reader := p.connect(t, accounts[level], asked)
		expect(t, reader, "SELECT pg_is_in_recovery() || ' ' || current_schema() || ' ' || level FROM kept", "true "+accounts[level].schema+" "+level)
		if code := failure(t, reader, "INSERT INTO kept VALUES ('more')"); code != "25006" {
			t.Errorf("%s: a row written on the replica: %q", level, code)
		}
		if code := failure(t, reader, "SELECT * FROM "+accounts["slot"].schema+".kept"); code != "42501" {
			t.Errorf("%s: another tenant's table on the replica: %q", level, code)
		}
		sessions[level+" reader"] = reader
	}
	if n := p.metric(t, `docex_proxy_server_connections{server="read",state="idle",tenant="over_role"}`); n != 1 {
		t.Errorf("%v connections to the replica", n)
	}

	written := startScribe(t, p, accounts["role"])
	eventually(t, patience, "rows are written", func() bool { return written.acknowledged.Load() > 20 })
	if err := s.cluster.Stop(); err != nil { // it gives the standby all it has
		t.Fatal(err)
	}
	eventually(t, patience, "an error is seen", func() bool { return len(written.failures) > 0 })
	promoted := dial(t, configure(t, standby.DSN(database)))
	execute(t, promoted, "SELECT pg_promote()")
	before := written.acknowledged.Load()
	eventually(t, patience, "rows are written again", func() bool { return written.acknowledged.Load() > before+20 })
	written.end()
	close(written.failures)
	for code := range written.failures {
		if code != "08006" && code != "57P01" {
			t.Errorf("while there was no primary: %q", code)
		}
	}
	var rows int64
	if err := promoted.QueryRow(bounded(t), "SELECT count(*) FROM "+accounts["role"].schema+".written").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if least := written.acknowledged.Load(); rows < least || rows > least+written.unknown.Load() {
		t.Errorf("%d rows, of which %d were acknowledged and %d may be there", rows, least, written.unknown.Load())
	}

	for _, level := range []string{"role", "slot", "trusted"} { // these sessions were open all the time
		execute(t, sessions[level], "UPDATE kept SET level = level || '!'")
		expect(t, sessions[level], "SELECT inet_server_port() || ' ' || level FROM kept", fmt.Sprintf("%d %s!", standby.Port(), level))
	}
	eventually(t, patience, "what was a replica is none", func() bool { return failure(t, sessions["role reader"], "SELECT 1") == "08006" })

	s.dsn = standby.DSN(database)
	if output, code := s.docexctl("tenant", "suspend", "over_role"); code != 0 {
		t.Fatalf("docexctl tenant suspend: exit code %d: %s", code, output)
	}
	eventually(t, patience, "the registry's new server is listened to", func() bool {
		_, err := sessions["role"].PgConn().Exec(bounded(t), "SELECT 1").ReadAll()
		return sqlstate(err) == "57P01"
	})
	if line := logLine(p, "a server is on another host now"); !strings.Contains(line, fmt.Sprintf("host=127.0.0.1:%d", standby.Port())) {
		t.Errorf("logged %q", line)
	}
}

// replayed waits until a standby has everything that the site's server has.
func replayed(t *testing.T, s *site, standby *localpg.Cluster) {
	t.Helper()
	end, there := query(t, s.direct(t), "SELECT pg_current_wal_lsn()"), dial(t, configure(t, standby.DSN("postgres")))
	eventually(t, patience, "the standby has replayed all", func() bool {
		return query(t, there, "SELECT pg_last_wal_replay_lsn() >= '"+end+"'") == "t"
	})
}
