package e2e_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// cancelRequest sends a CancelRequest and waits until the proxy has closed the connection.
func (p *proxy) cancelRequest(t testing.TB, pid uint32, key []byte) {
	t.Helper()
	w := p.dialRaw(t)
	w.raw(packet(cancelRequestCode, append(binary.BigEndian.AppendUint32(nil, pid), key...)...))
	w.closedSilently()
}

// sleeping starts a long query and returns its outcome's channel, once Postgres runs it.
func sleeping(t *testing.T, s *site, conn *pgx.Conn, mark string) <-chan string {
	t.Helper()
	outcome := make(chan string, 1)
	go func() {
		_, err := conn.PgConn().Exec(context.Background(), "SELECT pg_sleep(25) /* "+mark+" */").ReadAll()
		outcome <- sqlstate(err)
	}()
	watch := s.direct(t)
	eventually(t, patience, mark+" runs", func() bool {
		return query(t, watch, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* "+mark+" */'") == "1"
	})
	return outcome
}

func TestCancelInterruptsItsOwnSessionsQueryOnly(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	mine, other := s.proxy.connect(t, a), s.proxy.connect(t, a)
	kept := sleeping(t, s, other, "kept")
	hit := sleeping(t, s, mine, "hit")
	s.proxy.cancelRequest(t, mine.PgConn().PID(), mine.PgConn().SecretKey())
	if code := <-hit; code != "57014" {
		t.Errorf("the query ended with %q", code)
	}
	expect(t, mine, "SELECT 'alive'", "alive")
	select {
	case code := <-kept:
		t.Errorf("another session's query ended with %q", code)
	default:
	}
	s.proxy.cancelRequest(t, other.PgConn().PID(), other.PgConn().SecretKey())
	if code := <-kept; code != "57014" {
		t.Errorf("the other query ended with %q", code)
	}
}

func TestAClientOfProtocol32HasALongKey(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	conn := s.proxy.connect(t, a, newestProtocol)
	pid, key := conn.PgConn().PID(), conn.PgConn().SecretKey()
	if len(key) != 32 {
		t.Fatalf("its key has %d bytes", len(key))
	}
	running := sleeping(t, s, conn, "long key")
	wrong := append([]byte(nil), key...)
	wrong[31] ^= 1
	for _, no := range [][]byte{wrong, key[:4], key[:31], append(append([]byte(nil), key...), 0)} {
		s.proxy.cancelRequest(t, pid, no)
	}
	select {
	case code := <-running:
		t.Errorf("a wrong key has ended the query with %q", code)
	case <-time.After(200 * time.Millisecond):
	}
	s.proxy.cancelRequest(t, pid, key)
	if code := <-running; code != "57014" {
		t.Errorf("the query ended with %q", code)
	}
	if key := s.proxy.connect(t, a).PgConn().SecretKey(); len(key) != 4 {
		t.Errorf("the key of a client of protocol 3.0 has %d bytes", len(key))
	}
}

func TestAWrongKeyCancelsNothing(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "cancel_a"))
	running := sleeping(t, s, conn, "wrong key")
	key := append([]byte(nil), conn.PgConn().SecretKey()...)
	key[0] ^= 1
	s.proxy.cancelRequest(t, conn.PgConn().PID(), key)
	s.proxy.cancelRequest(t, conn.PgConn().PID()+1, conn.PgConn().SecretKey())
	select {
	case code := <-running:
		t.Errorf("the query ended with %q", code)
	case <-time.After(300 * time.Millisecond): // nothing can be waited for where nothing is to happen
	}
	s.proxy.cancelRequest(t, conn.PgConn().PID(), conn.PgConn().SecretKey())
	<-running
}

func TestAKeyDiesWithItsSession(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	gone := s.proxy.connect(t, a)
	pid, key := gone.PgConn().PID(), gone.PgConn().SecretKey()
	hangUp(gone)
	conn := s.proxy.connect(t, a)
	running := sleeping(t, s, conn, "stale key")
	s.proxy.cancelRequest(t, pid, key)
	select {
	case code := <-running:
		t.Errorf("the query ended with %q", code)
	case <-time.After(300 * time.Millisecond):
	}
	s.proxy.cancelRequest(t, conn.PgConn().PID(), conn.PgConn().SecretKey())
	<-running
}

func TestCancelsAroundTheEndOfAQueryNeverHitTheNext(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	p := s.startProxy(t, settings{"servers.main.max_connections": "1"})
	hostile, victim := p.connect(t, a), p.connect(t, a)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				p.cancelRequest(t, hostile.PgConn().PID(), hostile.PgConn().SecretKey())
			}
		}
	}()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if code := failure(t, hostile, "SELECT 1"); code != "" && code != "57014" {
			t.Fatalf("hostile: %s", code)
		}
		if code := failure(t, victim, "SELECT pg_sleep(0.001)"); code != "" {
			t.Fatalf("the next session's query ended with %s", code)
		}
	}
	close(stop)
	<-done
}

func TestManyCancelRequestsAtOnceDoNotKeepLoginsOut(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	victim := s.proxy.connect(t, a)
	running := sleeping(t, s, victim, "storm")
	pid, key := victim.PgConn().PID(), victim.PgConn().SecretKey()
	wrong := append([]byte(nil), key...)
	wrong[0] ^= 1
	var storm sync.WaitGroup
	for i := range 300 {
		storm.Go(func() {
			conn, err := net.Dial("tcp", s.proxy.address())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			with := wrong
			if i%3 == 0 {
				with = key
			}
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
			if _, err := conn.Write(packet(cancelRequestCode, append(binary.BigEndian.AppendUint32(nil, pid), with...)...)); err != nil {
				t.Error(err)
			}
			io.Copy(io.Discard, conn) //nolint:errcheck // until the proxy closes it
		})
	}
	for range 20 {
		conn := s.proxy.connect(t, a)
		expect(t, conn, "SELECT 'in'", "in")
		hangUp(conn)
	}
	storm.Wait()
	if code := <-running; code != "57014" {
		t.Errorf("the query ended with %q", code)
	}
	expect(t, victim, "SELECT 'alive'", "alive")
}

func TestTheQueryOfAClientThatIsGoneIsCanceled(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "cancel_a"))
	running := sleeping(t, s, conn, "gone")
	conn.PgConn().Conn().Close()
	<-running
	watch := s.direct(t)
	eventually(t, 10*time.Second, "the query is canceled", func() bool {
		return query(t, watch, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* gone */'") == "0"
	})
}

func TestCancelEndsTheWaitForAServerConnection(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	p := s.startProxy(t, settings{"servers.main.max_connections": "1"})
	holder, waiter := p.connect(t, a), p.connect(t, a)
	occupy(t, holder)
	outcome := make(chan string, 1)
	go func() {
		_, err := waiter.PgConn().Exec(context.Background(), "SELECT 1").ReadAll()
		outcome <- sqlstate(err)
	}()
	eventually(t, patience, "the session waits", func() bool {
		return p.metric(t, `docex_proxy_waiting_clients{server="main",tenant="cancel_a"}`) == 1
	})
	p.cancelRequest(t, waiter.PgConn().PID(), waiter.PgConn().SecretKey())
	if code := <-outcome; code != "57014" {
		t.Errorf("the wait ended with %q", code)
	}
	execute(t, holder, "COMMIT")
	expect(t, waiter, "SELECT 'alive'", "alive")
}

func TestNoticesArrive(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "cancel_a")))
	w.say(simple("DO $$BEGIN RAISE NOTICE 'hello from %', current_schema(); END$$"))
	seen := w.answers(1)
	if !containsAll(seen, "NoticeResponse", "hello from tenant_cancel_a") {
		t.Errorf("got %q", seen)
	}
}
