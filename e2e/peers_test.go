package e2e_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// peerCancelCode is what a proxy opens a connection with on which it passes a cancel request on.
const peerCancelCode = 1234<<16 | 5690

// pair starts two proxies that know of each other.
func pair(t *testing.T, s *site, changed settings) (one, two *proxy) {
	t.Helper()
	all := settings{"peers.address": "{address}"}
	for key, value := range changed {
		all[key] = value
	}
	one, two = s.startProxy(t, all), s.startProxy(t, all)
	return one, two
}

func TestACancelRequestFindsItsSessionThroughAnotherProxy(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "cancel_a")
	one, two := pair(t, s, nil)
	watch := s.direct(t)
	eventually(t, patience, "both are in the registry", func() bool {
		return query(t, watch, "SELECT count(*) FROM docex_system.proxy_instance WHERE address IN ('"+one.address()+"', '"+two.address()+"')") == "2"
	})
	mine, other := one.connect(t, a), two.connect(t, a)
	kept, hit := sleeping(t, s, other, "other proxy"), sleeping(t, s, mine, "through a peer")
	for end := time.Now().Add(patience); ; { // the second learns of the first with its next beat
		two.cancelRequest(t, mine.PgConn().PID(), mine.PgConn().SecretKey())
		select {
		case code := <-hit:
			if code != "57014" {
				t.Errorf("the query ended with %q", code)
			}
		case <-time.After(200 * time.Millisecond):
			if time.Now().Before(end) {
				continue
			}
			t.Error("the request did not come through")
		}
		break
	}
	expect(t, mine, "SELECT 'alive'", "alive")
	wrong := append([]byte(nil), mine.PgConn().SecretKey()...)
	wrong[0] ^= 1
	running := sleeping(t, s, mine, "wrong key")
	two.cancelRequest(t, mine.PgConn().PID(), wrong)
	// A peer's own request is not passed on: two proxies that have each other's numbers wrong would send it to and fro.
	w := two.dialRaw(t)
	w.raw(packet(peerCancelCode, append(binary.BigEndian.AppendUint32(nil, mine.PgConn().PID()), mine.PgConn().SecretKey()...)...))
	w.closedSilently()
	select {
	case code := <-running:
		t.Errorf("it was ended with %q", code)
	case code := <-kept:
		t.Errorf("another proxy's session was hit: %q", code)
	case <-time.After(300 * time.Millisecond):
	}
	for p, conn := range map[*proxy]*pgx.Conn{one: mine, two: other} {
		p.cancelRequest(t, conn.PgConn().PID(), conn.PgConn().SecretKey())
	}
	for name, outcome := range map[string]<-chan string{"mine": running, "other": kept} {
		if code := <-outcome; code != "57014" {
			t.Errorf("%s ended with %q", name, code)
		}
	}
}

func TestProxiesShareTheLimitsOfATenant(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "shared_limit")
	if output, code := s.docexctl("tenant", "update", "shared_limit", "--max-clients", "4"); code != 0 {
		t.Fatal(output)
	}
	one, two := pair(t, s, settings{"peers.share_limits": "true"})
	for _, p := range []*proxy{one, two} {
		eventually(t, patience, "each takes two of four", func() bool {
			var open []*pgx.Conn
			refused := ""
			for range 4 {
				conn, err := pgx.Connect(bounded(t), p.dsn(a))
				if err != nil {
					refused = sqlstate(err)
					break
				}
				open = append(open, conn)
			}
			for _, conn := range open {
				conn.Close(bounded(t))
			}
			eventually(t, patience, "they have left", func() bool { return p.metric(t, "docex_proxy_client_connections") == 0 })
			return refused == "53300" && len(open) == 2
		})
	}
}
