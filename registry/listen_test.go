package registry_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// listening runs Listen for a test and gives what it reports.
type listening struct {
	changes  chan string
	connects chan struct{}
}

func listen(tb testing.TB, o registry.ListenOptions) *listening {
	tb.Helper()
	l := &listening{changes: make(chan string, 100), connects: make(chan struct{}, 100)}
	o.OnChange = func(payload string) { l.changes <- payload }
	o.OnConnect = func() { l.connects <- struct{}{} }
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error)
	go func() { done <- registry.Listen(ctx, o) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Listen returned %v", err)
		}
	})
	return l
}

func receive[T any](tb testing.TB, from <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		tb.Fatalf("no %s arrives", what)
		panic("unreachable")
	}
}

func notify(tb testing.TB, conn *pgx.Conn, payload string) {
	tb.Helper()
	exec(tb, conn, `SELECT pg_notify('docex_registry', $1)`, payload)
}

func TestListenReportsChangesInOrder(t *testing.T) {
	dsn, conn := migrated(t)
	l := listen(t, registry.ListenOptions{DSN: dsn})
	receive(t, l.connects, "connect")
	insertTenant(t, conn, tenantNamed("acme"))
	notify(t, conn, "login/app")
	for _, want := range []string{"acme", "login/app"} {
		if got := receive(t, l.changes, "change"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestListenSurvivesItsConnectionsEndAndReportsTheReconnect(t *testing.T) {
	dsn, conn := migrated(t)
	l := listen(t, registry.ListenOptions{DSN: dsn})
	for range 3 {
		receive(t, l.connects, "connect")
		notify(t, conn, "acme")
		receive(t, l.changes, "change")
		exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'docex-proxy'`)
	}
	receive(t, l.connects, "connect")
}

func TestListenHearsANotificationThatArrivesBetweenPings(t *testing.T) {
	dsn, conn := migrated(t)
	l := listen(t, registry.ListenOptions{DSN: dsn, PingAfter: 20 * time.Millisecond})
	receive(t, l.connects, "connect")
	for range 200 {
		notify(t, conn, "acme")
		receive(t, l.changes, "change")
	}
	if len(l.connects) != 0 {
		t.Error("a healthy connection was replaced")
	}
}

func TestListenNoticesAConnectionThatDiedSilently(t *testing.T) {
	dsn, conn := migrated(t)
	wire := newWire(t, dsn)
	l := listen(t, registry.ListenOptions{DSN: wire.dsn, PingAfter: 200 * time.Millisecond})
	receive(t, l.connects, "connect")
	wire.goDark()
	receive(t, l.connects, "reconnect")
	notify(t, conn, "acme")
	if got := receive(t, l.changes, "change"); got != "acme" {
		t.Errorf("got %q", got)
	}
}

func TestListenKeepsTryingWhileTheServerIsDown(t *testing.T) {
	dsn, _ := migrated(t)
	wire := newWire(t, dsn)
	wire.refuse.Store(true)
	l := listen(t, registry.ListenOptions{DSN: wire.dsn})
	for range 3 {
		receive(t, wire.refused, "attempt")
	}
	if len(l.connects) != 0 {
		t.Error("a connect is reported that never was")
	}
	wire.refuse.Store(false)
	receive(t, l.connects, "connect")
}

func TestListenRefusesAMalformedDSN(t *testing.T) {
	if err := registry.Listen(t.Context(), registry.ListenOptions{DSN: "postgres://h:port/"}); err == nil {
		t.Error("no error")
	}
}

// wire is a TCP connection to the cluster that can be cut in the ways that networks cut.
type wire struct {
	dsn     string
	refuse  atomic.Bool // close what connects
	refused chan struct{}
	backend string

	mu    sync.Mutex
	dark  []*atomic.Bool // of each connection so far: lose every byte, in both directions
	conns []net.Conn
	wg    sync.WaitGroup
}

func newWire(tb testing.TB, dsn string) *wire {
	tb.Helper()
	address, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w := &wire{backend: address.Host, refused: make(chan struct{}, 100)}
	address.Host = listener.Addr().String()
	w.dsn = address.String()
	w.wg.Go(func() { w.serve(listener) })
	tb.Cleanup(func() {
		_ = listener.Close()
		w.mu.Lock()
		for _, conn := range w.conns {
			_ = conn.Close()
		}
		w.mu.Unlock()
		w.wg.Wait()
	})
	return w
}

func (w *wire) goDark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dark := range w.dark {
		dark.Store(true)
	}
}

func (w *wire) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		if w.refuse.Load() {
			_ = client.Close()
			w.refused <- struct{}{}
			continue
		}
		server, err := net.Dial("tcp", w.backend)
		if err != nil {
			_ = client.Close()
			continue
		}
		dark := new(atomic.Bool)
		w.mu.Lock()
		w.dark = append(w.dark, dark)
		w.conns = append(w.conns, client, server)
		w.mu.Unlock()
		w.wg.Go(func() { carry(server, client, dark) })
		w.wg.Go(func() { carry(client, server, dark) })
	}
}

func carry(to, from net.Conn, dark *atomic.Bool) {
	_, _ = io.Copy(lossy{to, dark}, from)
	if !dark.Load() {
		_ = to.Close()
	}
}

type lossy struct {
	to   net.Conn
	dark *atomic.Bool
}

func (l lossy) Write(p []byte) (int, error) {
	if l.dark.Load() {
		return len(p), nil
	}
	return l.to.Write(p)
}
