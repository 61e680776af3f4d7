package proxy_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/registry"
)

// hold begins or ends a move of the tenant to a database, and returns when all sessions know.
func (b *bed) hold(held bool, database string) {
	b.t.Helper()
	b.mu.Lock()
	b.held, b.target.Database = held, database
	b.mu.Unlock()
	known := make(chan struct{})
	b.server.RegistryChanged("acme", func() { close(known) })
	select {
	case <-known:
	case <-time.After(patience):
		b.t.Fatal("the sessions are not told")
	}
}

// elsewhere is the name of another database.
func elsewhere(t *testing.T) string {
	t.Helper()
	dsn, err := url.Parse(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(dsn.Path, "/")
}

// asked has a session ask where it is.
func asked(t *testing.T, conn *pgconn.PgConn) <-chan string {
	answer := make(chan string, 1)
	go func() {
		where, err := exec(t.Context(), conn, "SELECT current_database()")
		if err != nil {
			where = err.Error()
		}
		answer <- where
	}()
	return answer
}

func TestATenantMovesWithItsClientsHeld(t *testing.T) {
	onBoth(t, 3, nil, func(t *testing.T, b *bed) {
		from, to := b.target.Database, elsewhere(t)
		working, idle := b.connect(), b.connect()
		b.mustExec(idle, "SET application_name = 'kept'")
		b.mustExec(working, "BEGIN")
		b.hold(true, from)
		if where := b.mustExec(working, "SELECT current_database()"); where != from {
			t.Errorf("a transaction went on in %s", where)
		}
		waits := asked(t, idle)
		late := asked(t, b.connect())
		b.mustExec(working, "COMMIT")
		next := asked(t, working)
		select {
		case where := <-waits:
			t.Errorf("a transaction began in %s during the move", where)
		case where := <-late:
			t.Errorf("a transaction of a new session began in %s during the move", where)
		case where := <-next:
			t.Errorf("the next transaction began in %s during the move", where)
		case <-time.After(100 * time.Millisecond):
		}
		b.hold(false, to)
		for _, answer := range []<-chan string{waits, late, next} {
			if where := <-answer; where != to {
				t.Errorf("after the move: %s", where)
			}
		}
		if name := b.mustExec(idle, "SHOW application_name"); name != "kept" {
			t.Errorf("a setting did not move along: %q", name)
		}
	})
}

func TestWhoWaitsInTheQueueDoesNotBeginWhenTheTenantIsMoving(t *testing.T) {
	onBoth(t, 1, nil, func(t *testing.T, b *bed) {
		from, to := b.target.Database, elsewhere(t)
		first, second := b.connect(), b.connect()
		b.mustExec(second, "SELECT 1")
		b.mustExec(first, "BEGIN")
		waits := asked(t, second)
		eventually(t, "the second is in the queue", func() bool { return b.pools.Stats()[0].Waiting == 1 })
		b.hold(true, from)
		b.mustExec(first, "COMMIT")
		select {
		case where := <-waits:
			t.Errorf("a transaction began in %s during the move", where)
		case <-time.After(100 * time.Millisecond):
		}
		b.hold(false, to)
		if where := <-waits; where != to {
			t.Errorf("after the move: %s", where)
		}
	})
}

func TestAMoveThatTakesTooLongIsToldAndTheSessionLives(t *testing.T) {
	onBoth(t, 1, nil, func(t *testing.T, b *bed) {
		conn := b.connect()
		b.limit(registry.Limits{QueueWait: registry.Duration(50 * time.Millisecond)})
		b.mustExec(conn, "SELECT 1")
		b.hold(true, b.target.Database)
		b.fails(conn, "SELECT 1", "57P03")
		b.limit(registry.Limits{})
		b.mustExec(conn, "SELECT 1")
	})
}
