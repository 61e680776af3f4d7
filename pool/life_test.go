package pool_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestASecondReleasePanics(t *testing.T) {
	b := newBench(t, 1)
	c := acquire(t, b.set(), b.tenant("twice"), 0)
	c.Release()
	for name, end := range map[string]func(){"Release": c.Release, "Destroy": c.Destroy} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s after Release did not panic", name)
				}
			}()
			end()
		}()
	}
}

func TestConnectionsThatTheServerEndedAreNotLeasedAgain(t *testing.T) {
	b := newBench(t, 8)
	set, targets := b.set(), b.tenants(2)
	var leases []*pool.Conn
	for i := range 8 {
		leases = append(leases, acquire(t, set, targets[i%2], 0))
	}
	for _, c := range leases {
		c.Release()
	}
	b.exec("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename <> session_user AND datname = current_database()")
	if n := b.backends(); n != 0 {
		t.Fatalf("%d backends are left", n)
	}
	time.Sleep(110 * time.Millisecond) // younger ones are leased without a look
	for i := range 8 {
		c := acquire(t, set, targets[i%2], 0)
		if got := mustAsk(t, c, "SELECT name FROM whoami"); got != targets[i%2].Tenant {
			t.Errorf("tenant %s read the table of %s", targets[i%2].Tenant, got)
		}
		defer c.Release()
	}
}

func TestOneBrokenConnectionCastsDoubtOnTheOthers(t *testing.T) {
	b := newBench(t, 8)
	set, target := b.set(), b.tenant("doubt")
	var leases []*pool.Conn
	for range 8 {
		leases = append(leases, acquire(t, set, target, 0))
	}
	b.exec("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename <> session_user AND datname = current_database()")
	for _, c := range leases[1:] {
		c.Release()
	}
	leases[0].Destroy() // its holder noticed
	for range 8 {
		c := acquire(t, set, target, 0)
		mustAsk(t, c, "SELECT 1")
		defer c.Release()
	}
}

func TestDrainClosesIdleConnectionsAtOnceAndLeasedOnesAtRelease(t *testing.T) {
	b := newBench(t, 4)
	set, drained, kept := b.set(), b.tenant("drained"), b.tenant("kept")
	leased, idle, other := acquire(t, set, drained, 0), acquire(t, set, drained, 0), acquire(t, set, kept, 0)
	idle.Release()
	other.Release()
	set.Drain("drained")
	eventually(t, "the idle one is gone", func() bool { return b.backends() == 2 })
	if got := mustAsk(t, leased, "SELECT name FROM whoami"); got != "drained" {
		t.Errorf("the leased connection answers %q", got)
	}
	leased.Release()
	eventually(t, "the leased one is gone", func() bool { return b.backends() == 1 })
	if s := stat(set, kept); s.Idle != 1 {
		t.Errorf("the other tenant has %+v, want its idle connection", s)
	}
	fresh := acquire(t, set, drained, 0)
	if fresh.PID() == leased.PID() {
		t.Error("a drained connection was leased")
	}
	fresh.Release()
}

func TestADrainReachesConnectionsThatAreBeingOpened(t *testing.T) {
	b := newBench(t, 1)
	entered, proceed := make(chan struct{}, 2), make(chan struct{})
	b.options.Password = func(string, int) string { // it is asked at the beginning of every dial
		entered <- struct{}{}
		<-proceed
		return "right"
	}
	set, target := b.set(), b.tenant("racing")
	leased := make(chan *pool.Conn)
	go func() {
		c, err := set.Acquire(context.Background(), target, 0)
		if err != nil {
			t.Error(err)
		}
		leased <- c
	}()
	<-entered
	set.Drain("")
	close(proceed)
	(<-leased).Release()
	if dials := len(entered) + 1; dials != 2 {
		t.Errorf("%d dials, want a second one after the drained first", dials)
	}
}

func TestCloseTurnsWaitersAwayAndWaitsForTheLeases(t *testing.T) {
	b := newBench(t, 1)
	set, err := pool.New(b.options)
	if err != nil {
		t.Fatal(err)
	}
	target := b.tenant("closing")
	leased := acquire(t, set, target, 0)
	waited := make(chan error)
	go func() {
		_, err := set.Acquire(context.Background(), target, 0)
		waited <- err
	}()
	eventually(t, "one waits", func() bool { return stat(set, target).Waiting == 1 })
	closed := make(chan struct{})
	go func() {
		set.Close()
		close(closed)
	}()
	if err := <-waited; !errors.Is(err, pool.ErrClosed) {
		t.Errorf("the waiter got %v", err)
	}
	mustAsk(t, leased, "SELECT 1")
	select {
	case <-closed:
		t.Error("Close returned before the lease ended")
	default:
	}
	leased.Release()
	<-closed
	if _, err := set.Acquire(t.Context(), target, 0); !errors.Is(err, pool.ErrClosed) {
		t.Errorf("Acquire after Close: %v", err)
	}
	set.Close()
	if n := b.backends(); n != 0 {
		t.Errorf("%d backends are left", n)
	}
}

func TestIdleConnectionsAndTheirTargetsGoAfterTheIdleTimeout(t *testing.T) {
	b := newBench(t, 4)
	b.options.IdleTimeout = 50 * time.Millisecond
	set := b.set()
	for _, target := range b.tenants(3) {
		acquire(t, set, target, 0).Release()
	}
	eventually(t, "no backend and no target is left", func() bool { return b.backends() == 0 && set.Targets() == 0 })
}

func TestAConnectionPastItsLifetimeIsReplaced(t *testing.T) {
	b := newBench(t, 1)
	b.options.Lifetime = 200 * time.Millisecond
	set, target := b.set(), b.tenant("old")
	leased := acquire(t, set, target, 0)
	mustAsk(t, leased, "SELECT pg_sleep(0.3)")
	leased.Release()
	next := acquire(t, set, target, 0)
	if next.PID() == leased.PID() {
		t.Error("a connection past its lifetime was leased again")
	}
	next.Release()
	eventually(t, "the idle one is past its lifetime, too", func() bool { return b.backends() == 0 })
}

func TestCancelInterruptsTheQueryOfItsConnectionOnly(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			b := newBench(t, 2)
			b.over(network)
			set, target := b.set(), b.tenant("sleeper")
			asleep, spared := acquire(t, set, target, 0), acquire(t, set, target, 0)
			answers := make(chan error, 2)
			go func() { _, err := ask(asleep, "SELECT pg_sleep(60)"); answers <- err }()
			spare := make(chan error, 1)
			go func() { _, err := ask(spared, "SELECT pg_sleep(1)"); spare <- err }()
			eventually(t, "both sleep", func() bool { return b.sleeping() == 2 })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := asleep.Cancel(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-answers; err == nil || err.Error()[:5] != "57014" {
				t.Errorf("the cancelled query ended with %v", err)
			}
			if err := <-spare; err != nil {
				t.Errorf("the other query ended with %v", err)
			}
			asleep.Release()
			spared.Release()
		})
	}
}

func TestACancelThatIsNotAnsweredEndsWithItsContext(t *testing.T) {
	b := newBench(t, 1)
	c := acquire(t, b.set(), b.tenant("expired"), 0)
	defer c.Release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Cancel(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Cancel with an ended context: %v", err)
	}
}

// sleeping counts the proxy's backends that are inside pg_sleep.
func (b *bench) sleeping() (n int) {
	b.tb.Helper()
	err := b.admin.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()").Scan(&n)
	if err != nil {
		b.tb.Fatal(err)
	}
	return n
}

// over has the Set reach the server by TCP or by its unix socket.
func (b *bench) over(network string) {
	if network != "unix" {
		return
	}
	server := b.options.Servers["main"]
	server.Hosts = []pool.Host{{Name: b.show("unix_socket_directories"), Port: server.Hosts[0].Port}}
	b.options.Servers = map[string]pool.Server{"main": server}
}

func (b *bench) show(setting string) (value string) {
	b.tb.Helper()
	if err := b.admin.QueryRow(context.Background(), "SELECT current_setting($1)", setting).Scan(&value); err != nil {
		b.tb.Fatal(err)
	}
	return value
}

// requireAuthentication has the server authenticate one role by another method than the test cluster's.
func (b *bench) requireAuthentication(role, method string) {
	b.tb.Helper()
	file := b.show("hba_file")
	before, err := os.ReadFile(file)
	if err != nil {
		b.tb.Fatal(err)
	}
	rewrite := func(text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			b.tb.Fatal(err)
		}
		b.exec("SELECT pg_reload_conf()")
	}
	rewrite(append([]byte(fmt.Sprintf("host all %s 127.0.0.1/32 %s\n", role, method)), before...))
	b.tb.Cleanup(func() { rewrite(before) })
	eventually(b.tb, "the server has read its new rules", func() bool {
		var n int
		err := b.admin.QueryRow(context.Background(), "SELECT count(*) FROM pg_hba_file_rules WHERE $1 = ANY (user_name)", role).Scan(&n)
		return err == nil && n == 1
	})
}
