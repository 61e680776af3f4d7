package pool_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/pool"
)

// at are the hosts of a server that listens on these ports of this machine.
func at(ports ...int) []pool.Host {
	hosts := make([]pool.Host, len(ports))
	for i, port := range ports {
		hosts[i] = pool.Host{Name: "127.0.0.1", Port: uint16(port)}
	}
	return hosts
}

// hosts has the bench's server be so many hosts.
func (b *bench) hosts(attributes string, hosts ...pool.Host) {
	server := b.options.Servers["main"]
	server.Hosts, server.SessionAttributes = hosts, attributes
	b.options.Servers = map[string]pool.Server{"main": server}
}

// portOf is where a connection leads.
func portOf(t *testing.T, c *pool.Conn) int {
	t.Helper()
	port, err := strconv.Atoi(mustAsk(t, c, "SELECT inet_server_port()"))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// listener is a host where connections are made, and nobody answers unless somebody accepts them.
type listener struct {
	net.Listener
	port int
}

func listen(t *testing.T) listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return listener{l, l.Addr().(*net.TCPAddr).Port}
}

// close has nobody listen there.
func (l listener) close() (port int) {
	l.Close()
	return l.port
}

func caughtUp(t *testing.T, b *bench, standby *localpg.Cluster) {
	t.Helper()
	var target string
	if err := b.admin.QueryRow(context.Background(), "SELECT pg_current_wal_lsn()").Scan(&target); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(context.Background(), standby.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	eventually(t, "the standby has replayed everything", func() bool {
		var there bool
		err := conn.QueryRow(context.Background(), "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", target).Scan(&there)
		return err == nil && there
	})
}

// TestTheHostThatIsWantedIsFound goes on to a promotion: one standby has to do for both.
func TestTheHostThatIsWantedIsFound(t *testing.T) {
	b := newBench(t, 4)
	target := b.tenant("hosts")
	primary := pgtest.Cluster(t).Port()
	replica := pgtest.Standby(t, pgtest.Cluster(t))
	standby, silent, dead := replica.Port(), listen(t).port, listen(t).close()
	caughtUp(t, b, replica)
	for _, c := range []struct {
		attributes string
		hosts      []pool.Host
		want       int // 0: none
	}{
		{"", at(standby, primary), primary},
		{"read-write", at(standby, primary), primary},
		{"primary", at(silent, standby, primary), primary},
		{"any", at(standby, primary), standby},
		{"standby", at(primary, standby), standby},
		{"read-only", at(primary, standby), standby},
		{"prefer-standby", at(primary, standby), standby},
		{"prefer-standby", at(primary, dead), primary},
		{"primary", at(standby), 0},
		{"standby", at(primary, primary), 0},
	} {
		b.hosts(c.attributes, c.hosts...)
		b.options.ConnectTimeout = patience
		if c.hosts[0] == at(silent)[0] {
			b.options.ConnectTimeout = 6 * time.Second // a third of it is the silent one's
		}
		set := b.set()
		conn, err := set.Acquire(t.Context(), target, 0)
		var connect *pool.ConnectError
		switch {
		case c.want == 0 && errors.As(err, &connect):
			if !strings.Contains(err.Error(), "target_session_attrs is "+c.attributes) {
				t.Errorf("%s of %v: %v", c.attributes, c.hosts, err)
			}
		case c.want == 0 || err != nil:
			t.Errorf("%s of %v: %v", c.attributes, c.hosts, err)
		default:
			if got := portOf(t, conn); got != c.want || set.Host("main") != at(c.want)[0] {
				t.Errorf("%s of %v leads to %d, and is said to lead to %v", c.attributes, c.hosts, got, set.Host("main"))
			}
		}
		if conn != nil {
			conn.Release()
		}
	}

	b.options.ConnectTimeout = patience
	b.hosts("standby", at(standby)...)
	set := b.set()
	idle, leased := acquire(t, set, target, 0), acquire(t, set, target, 0)
	idle.Report(true, false)
	idle.Release()
	if s := stat(set, target); s.Idle != 1 {
		t.Fatalf("a standby that has stayed one: %+v", s)
	}
	admin, err := pgx.Connect(t.Context(), replica.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	if _, err := admin.Exec(t.Context(), "SELECT pg_promote()"); err != nil {
		t.Fatal(err)
	}
	if got := mustAsk(t, leased, "SELECT pg_is_in_recovery()"); got != "f" {
		t.Fatalf("promoted, it is in recovery: %s", got)
	}
	leased.Report(false, false)
	leased.Release()
	eventually(t, "both connections are closed", func() bool {
		s := stat(set, target)
		return s.Idle+s.Active+s.Connecting == 0
	})
	if _, err := set.Acquire(t.Context(), target, 0); err == nil {
		t.Error("a primary was taken for a standby")
	}
}

// TestConnectionsFollowTheirServerToAnotherHost has two relays stand for two hosts.
func TestConnectionsFollowTheirServerToAnotherHost(t *testing.T) {
	b := newBench(t, 4)
	target := b.tenant("follower")
	first, second := startRelay(t, pgtest.Cluster(t).Port()), startRelay(t, pgtest.Cluster(t).Port())
	b.hosts("", at(first.port, second.port)...)
	set := b.set()
	leased, idle := acquire(t, set, target, 0), acquire(t, set, target, 0)
	idle.Release()
	first.Close() // and nothing is heard of it: its connections stay
	fresh := []*pool.Conn{acquire(t, set, target, 0), acquire(t, set, target, 0)}
	if fresh[0] != idle || set.Host("main") != at(second.port)[0] {
		t.Errorf("it is on %v", set.Host("main"))
	}
	for _, c := range append(fresh, leased) {
		mustAsk(t, c, "SELECT 1")
		c.Release()
	}
	eventually(t, "what leads to the first host is closed", func() bool {
		first.mutex.Lock()
		defer first.mutex.Unlock()
		return first.open == 0
	})
	if s := stat(set, target); s.Idle != 1 {
		t.Errorf("one connection leads to the second host: %+v", s)
	}
	again := acquire(t, set, target, 0)
	if again.PID() != fresh[1].PID() {
		t.Error("the connection to the second host was not kept")
	}
	again.Release()

	b.hosts("read-write", at(second.port)...)
	set = b.set()
	idle, leased = acquire(t, set, target, 0), acquire(t, set, target, 0)
	idle.Release()
	leased.Report(false, true) // by its configuration, or by a tenant's function
	leased.Release()
	if s := stat(set, target); s.Idle != 1 || s.Active != 0 {
		t.Errorf("one connection has become read-only, and the other is left: %+v", s)
	}
	leased = acquire(t, set, target, 0)
	other := acquire(t, set, target, 0)
	other.Release()
	leased.Report(true, true)
	leased.Release()
	eventually(t, "what leads to a standby is closed", func() bool {
		s := stat(set, target)
		return s.Idle+s.Active+s.Connecting == 0
	})
}

// relay passes connections on to a port of this machine.
type relay struct {
	listener
	mutex sync.Mutex
	open  int // connections
}

func startRelay(t *testing.T, to int) *relay {
	t.Helper()
	r := &relay{listener: listen(t)}
	var work sync.WaitGroup
	t.Cleanup(func() { r.Close(); work.Wait() })
	work.Go(func() {
		for {
			client, err := r.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(to)))
			if err != nil {
				client.Close()
				continue
			}
			r.count(1)
			work.Go(func() {
				defer r.count(-1)
				done := make(chan struct{})
				go func() { io.Copy(server, client); server.Close(); close(done) }()
				io.Copy(client, server)
				client.Close()
				<-done
			})
		}
	})
	return r
}

func (r *relay) count(change int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.open += change
}
