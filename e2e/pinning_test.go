package e2e_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// pins are the kinds of state that belong to one server connection, each with what shows that it is still there and
// what another session of the tenant has to see in its stead.
var pins = []struct {
	reason    string
	statement string
	show      string
	want      string
	others    string // SQLSTATE of show in another session, "" where it answers otherwise
	end       string // takes the state away
}{
	{"temporary", "CREATE TEMP TABLE scratch AS SELECT 7 AS x", "SELECT x FROM scratch", "7", "42P01", "DROP TABLE scratch"},
	{"hold", "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 7 FROM generate_series(1, 100); COMMIT", "FETCH 1 FROM c", "7", "34000", "CLOSE c"},
	{"advisory", "SELECT pg_advisory_lock(4711)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1", "", "SELECT pg_advisory_unlock(4711)"},
	{"prepare", "PREPARE p AS SELECT 7", "EXECUTE p", "7", "26000", "DEALLOCATE p"},
	{"listen", "LISTEN channel", "SELECT * FROM pg_listening_channels()", "channel", "", "UNLISTEN channel"},
}

func TestStateOfAConnectionStaysWithItsSession(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "pinning")
	for _, pin := range pins {
		t.Run(pin.reason, func(t *testing.T) {
			series := `docex_proxy_session_pins_total{reason="` + pin.reason + `"}`
			before := s.proxy.metric(t, series)
			conn, other := s.proxy.connect(t, a), s.proxy.connect(t, a)
			execute(t, conn, pin.statement)
			pid := backend(t, conn)
			for range 3 {
				if backend(t, other) == pid {
					t.Fatal("another session was given the connection")
				}
				expect(t, conn, pin.show, pin.want)
			}
			if pin.others != "" {
				if code := failure(t, other, pin.show); code != pin.others {
					t.Errorf("in another session %s: SQLSTATE %q, want %s", pin.show, code, pin.others)
				}
			}
			if got := s.proxy.metric(t, series); got != before+1 {
				t.Errorf("%s is %v, was %v", series, got, before)
			}
			hangUp(conn)
			gone(t, s.proxy, a, pin.show, pin.others, pin.want)
		})
	}
}

// gone checks that the state is not there for whoever comes next, on whatever connection.
func gone(t *testing.T, p *proxy, a account, show, code, want string) {
	t.Helper()
	for range 3 {
		next := p.connect(t, a)
		if code != "" {
			if got := failure(t, next, show); got != code {
				t.Errorf("after the session %s: SQLSTATE %q, want %s", show, got, code)
			}
		} else if got := answer(t, next, show); got == want {
			t.Errorf("after the session %s: still %q", show, got)
		}
		occupy(t, next)
	}
}

// answer is query for statements that may return no row.
func answer(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	return query(t, conn, "SELECT coalesce(max(x::text), 'none') FROM ("+sql+") AS answer (x)")
}

func TestASessionIsUnpinnedWhenTheStateIsGone(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "unpinning")
	for _, pin := range pins {
		t.Run(pin.reason, func(t *testing.T) {
			conn, other := s.proxy.connect(t, a), s.proxy.connect(t, a)
			execute(t, conn, pin.statement, pin.end)
			eventually(t, patience, "both sessions are served by one connection", func() bool { return backend(t, conn) == backend(t, other) })
		})
	}
}

func TestAnAdvisoryLockHoldsAgainstOtherSessionsAndEndsWithItsOwn(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "pinning")
	conn, other := s.proxy.connect(t, a), s.proxy.connect(t, a)
	execute(t, conn, "SELECT pg_advisory_lock(815)")
	expect(t, other, "SELECT pg_try_advisory_lock(815)", "f")
	takeOver(t, conn).Close()
	eventually(t, patience, "the lock is free", func() bool { return query(t, other, "SELECT pg_try_advisory_lock(815)") == "t" })
	execute(t, other, "SELECT pg_advisory_unlock(815)")
}

func TestNotificationsReachTheirListener(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "pinning")
	listener, notifier := s.proxy.connect(t, a), s.proxy.connect(t, a)
	execute(t, listener, "LISTEN news")
	execute(t, notifier, "NOTIFY news, 'first'", "SELECT pg_notify('news', 'second')")
	for _, want := range []string{"first", "second"} {
		notification, err := listener.WaitForNotification(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		if notification.Payload != want {
			t.Errorf("got %q, want %q", notification.Payload, want)
		}
	}
}

// TestStateIsNoticedHoweverFastItComesAndGoes sends each statement as soon as the one before it is answered: the proxy
// may still be asking Postgres what that one has left behind.
func TestStateIsNoticedHoweverFastItComesAndGoes(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "hasty")
	for range 20 {
		conn, other := s.proxy.connect(t, a), s.proxy.connect(t, a)
		execute(t, conn, "SET work_mem = '7MB'", "SELECT pg_advisory_lock(99)")
		expect(t, other, "SELECT pg_try_advisory_lock(99)", "f")
		execute(t, conn, "SET work_mem = '8MB'", "SELECT pg_advisory_unlock(99)")
		expect(t, other, "SELECT pg_try_advisory_lock(99)", "t")
		hangUp(conn)
		hangUp(other)
	}
}
