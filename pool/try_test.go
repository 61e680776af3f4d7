package pool_test

import (
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestTryAcquireTakesAnIdleConnectionOrNothing(t *testing.T) {
	b := newBench(t, 4)
	dials := b.countDials()
	set, shared, alone := b.set(), b.sharing(2), b.tenant("alone")
	nothing := func(when string, target pool.Target) {
		t.Helper()
		if _, ok := set.TryAcquire(target, 0); ok {
			t.Errorf("%s: a connection of %s", when, target.Tenant)
		}
	}
	for _, target := range []pool.Target{shared[0], alone, {Server: "unknown"}} {
		nothing("at first", target)
	}
	if n := set.Targets(); n != 0 || dials.Load() != 0 {
		t.Errorf("trying left %d targets, %d dials", n, dials.Load())
	}
	for _, pair := range [][2]pool.Target{{alone, alone}, {shared[0], shared[0]}, {shared[0], shared[1]}} {
		held := acquire(t, set, pair[0], 0)
		pid := held.PID()
		nothing("while it is leased", pair[1])
		held.Release()
		c, ok := set.TryAcquire(pair[1], 0)
		if !ok || c.PID() != pid || c.Target() != pair[1] {
			t.Fatalf("%s did not get what %s released", pair[1].Tenant, pair[0].Tenant)
		}
		nothing("while it is leased again", pair[1])
		c.Release()
	}
	b.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> session_user AND datname = current_database()")
	eventually(t, "they are gone", func() bool { return b.backends() == 0 })
	time.Sleep(150 * time.Millisecond) // a connection is trusted for a moment after its last use
	nothing("when the server has ended it", alone)
	nothing("when the server has ended it", shared[0])
}

func TestTryAcquireAfterCloseGetsNothing(t *testing.T) {
	b := newBench(t, 1)
	set, err := pool.New(b.options)
	if err != nil {
		t.Fatal(err)
	}
	target := b.sharing(1)[0]
	acquire(t, set, target, 0).Release()
	set.Close()
	if _, ok := set.TryAcquire(target, 0); ok {
		t.Error("a connection of a closed set")
	}
}
