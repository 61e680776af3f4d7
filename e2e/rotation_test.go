//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// rotate gives a tenant's role the secret of the next generation. The statements before it run in its transaction.
func (s *site) rotate(t *testing.T, superuser *pgx.Conn, a account, generation int, before ...string) {
	t.Helper()
	statements := append([]string{"BEGIN"}, before...)
	execute(t, superuser, append(statements,
		fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", a.schema, s.secret(t, a.schema, generation)),
		fmt.Sprintf("UPDATE docex_system.tenant_route SET secret_generation = %d WHERE tenant_id = '%s'", generation, a.tenant),
		"COMMIT")...)
}

// load is sessions of a tenant that run one transaction after the other until the test has seen enough.
type load struct {
	stopping     atomic.Bool
	sessions     sync.WaitGroup
	transactions atomic.Int64
	errors       atomic.Int64
	first        atomic.Pointer[error]
}

func (p *proxy) load(t *testing.T, a account, sessions int) *load {
	t.Helper()
	l := &load{}
	for range sessions {
		conn := p.connect(t, a)
		l.sessions.Go(func() { l.run(conn) })
	}
	t.Cleanup(l.stop) // before the connections are closed
	return l
}

func (l *load) run(conn *pgx.Conn) {
	for !l.stopping.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := transaction(ctx, conn)
		cancel()
		if err != nil {
			l.errors.Add(1)
			l.first.CompareAndSwap(nil, &err)
			if conn.IsClosed() {
				return
			}
			continue
		}
		l.transactions.Add(1)
	}
}

func transaction(ctx context.Context, conn *pgx.Conn) error {
	for _, sql := range []string{"BEGIN", "CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP", "INSERT INTO mine VALUES (1)", "COMMIT"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func (l *load) stop() {
	l.stopping.Store(true)
	l.sessions.Wait()
}

// end stops the sessions; none may have met an error.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	if n := l.errors.Load(); n > 0 {
		t.Errorf("%d errors, the first: %v", n, *l.first.Load())
	}
	if l.transactions.Load() == 0 {
		t.Error("no transaction came to its end")
	}
}

func TestRotatingASecretUnderLoadDisturbsNobody(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "rotated_loud")
	// Connections are closed young, and fewer than sessions: there is always one being opened.
	p := s.startProxy(t, settings{"pool.lifetime": "100ms", "servers.main.max_connections": "4"})
	superuser := s.direct(t)
	l := p.load(t, a, 8)
	const last = 21
	for generation := 2; generation <= last; generation++ {
		before := l.transactions.Load()
		s.rotate(t, superuser, a, generation)
		eventually(t, patience, "the sessions go on", func() bool { return l.transactions.Load() > before+8 || l.errors.Load() > 0 })
	}
	l.end(t)
	t.Logf("%d transactions, %d refusals of the old secret", l.transactions.Load(), strings.Count(p.logged(), "sqlstate=28P01"))
	host, port := s.cluster.Host(), s.cluster.Port()
	if code := loginAs(t, host, port, a.schema, s.secret(t, a.schema, last-1)); code != "28P01" {
		t.Errorf("Postgres refuses the secret before with %q", code)
	}
	if code := loginAs(t, host, port, a.schema, s.secret(t, a.schema, last)); code != "" {
		t.Errorf("Postgres refuses the present secret with %q", code)
	}
}

// TestARotationThatTheProxyWasNotToldOfIsFoundOut rotates without a notification: the refusal is all there is.
func TestARotationThatTheProxyWasNotToldOfIsFoundOut(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "rotated_silent")
	p := s.startProxy(t, nil)
	session := p.connect(t, a)
	first := backend(t, session)
	superuser := s.direct(t)
	s.rotate(t, superuser, a, 2, "SET LOCAL session_replication_role = replica") // no triggers
	execute(t, superuser, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '"+a.schema+"'")
	time.Sleep(150 * time.Millisecond) // past the time in which the pool takes a connection on trust
	if again := backend(t, session); again == first {
		t.Error("no new connection was needed")
	}
	expect(t, p.connect(t, a), "SELECT current_schema()", a.schema)
	if line := logLine(p, "cannot connect to a server"); !strings.Contains(line, "sqlstate=28P01") {
		t.Errorf("the old secret was not tried: %q", line)
	}
}
