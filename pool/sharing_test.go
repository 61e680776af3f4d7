package pool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestTargetsThatShareUseOneConnectionWithItsStateOneAfterTheOther(t *testing.T) {
	b := newBench(t, 4)
	b.options.NewState = func() any { return new(string) }
	set, targets := b.set(), b.sharing(3)
	first := acquire(t, set, targets[0], 0)
	pid := first.PID()
	*first.State.(*string) = "kept"
	if path := mustAsk(t, first, "SHOW search_path"); path == targets[0].SearchPath {
		t.Error("the search path of one tenant was sent at start-up")
	}
	first.Release()
	for _, target := range targets {
		c := acquire(t, set, target, 0)
		if c.PID() != pid || *c.State.(*string) != "kept" || c.Target() != target {
			t.Errorf("%v leased backend %d with state %q, as %v", target, c.PID(), *c.State.(*string), c.Target())
		}
		if answer := mustAsk(t, c, "SELECT pg_backend_pid()"); answer != fmt.Sprint(pid) {
			t.Errorf("backend %s answered", answer)
		}
		c.Release()
	}
	if got, want := stat(set, targets[2]), (pool.Stat{Target: targets[2], Idle: 1}); got != want || len(set.Stats()) != 1 {
		t.Errorf("the last has %+v", got)
	}
}

func TestASharedConnectionThatHasServedSoManyTenantsIsClosed(t *testing.T) {
	b := newBench(t, 1)
	b.options.TenantsSeen = 3
	set, targets := b.set(), b.sharing(4)
	serve := func(which int) uint32 {
		c := acquire(t, set, targets[which], 0)
		defer c.Release()
		return c.PID()
	}
	first := serve(0)
	for _, which := range []int{0, 1, 0, 1} { // two tenants, however often
		if pid := serve(which); pid != first {
			t.Fatalf("tenant %d leased backend %d, not %d", which, pid, first)
		}
	}
	if pid := serve(2); pid != first { // the third is its last
		t.Errorf("the third tenant leased backend %d, not %d", pid, first)
	}
	second := serve(2)
	if second == first {
		t.Error("the connection serves on after its third tenant")
	}
	if pid := serve(3); pid != second {
		t.Errorf("a new connection has already been closed after 2 tenants")
	}
	eventually(t, "one connection is left", func() bool { return b.backends() == 1 })
}

func TestOnlyTargetsThatAreSharedAndOfOneLoginShare(t *testing.T) {
	b := newBench(t, 8)
	set, shared := b.set(), b.sharing(1)[0]
	c := acquire(t, set, shared, 0)
	pid := c.PID()
	c.Release()
	alone, generation, login := shared, shared, b.sharing(1)[0]
	alone.Shared = false
	generation.Generation++
	for name, target := range map[string]pool.Target{"not shared": alone, "other generation": generation, "other role": login} {
		if _, ok := set.TryAcquire(target, 0); ok {
			t.Errorf("%s: there was an idle connection", name)
		}
		c := acquire(t, set, target, 0)
		if c.PID() == pid {
			t.Errorf("%s: the connection is the same", name)
		}
		c.Release()
	}
}

func TestATargetsOwnIdleConnectionComesBeforeThoseThatItShares(t *testing.T) {
	b := newBench(t, 4)
	set, targets := b.set(), b.sharing(3)
	first, second := acquire(t, set, targets[0], 0), acquire(t, set, targets[1], 0)
	pids := []uint32{first.PID(), second.PID()}
	first.Release()
	second.Release()
	own := acquire(t, set, targets[1], 0)
	if own.PID() != pids[1] {
		t.Errorf("the target leased backend %d, its own is %d", own.PID(), pids[1])
	}
	own.Release()
	oldest := acquire(t, set, targets[2], 0)
	if oldest.PID() != pids[0] {
		t.Errorf("another target leased backend %d, least recently used is %d", oldest.PID(), pids[0])
	}
	oldest.Release()
}

// countDials counts them from now on.
func (b *bench) countDials() *atomic.Int64 {
	dials := new(atomic.Int64)
	b.options.Password = func(string, int) string {
		dials.Add(1)
		return "right"
	}
	return dials
}

func TestAStormOfTenantsThatShareOpensNoConnectionTwice(t *testing.T) {
	const slots, clients, rounds = 8, 300, 20
	b := newBench(t, slots)
	dials := b.countDials()
	set, targets := b.set(), b.sharing(12)
	var leases atomic.Int64
	b.watch(set, slots, func() {
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				for round := range rounds {
					wait := patience
					if (i+round)%5 == 0 {
						wait = time.Duration(round) * time.Millisecond
					}
					tenant := i % len(targets)
					leases.Add(once(t, set, targets[tenant], tenant%4, wait))
				}
			})
		}
		all.Wait()
	})
	t.Logf("%d leases, %d dials", leases.Load(), dials.Load())
	if leases.Load() < clients*rounds/2 || dials.Load() > slots {
		t.Errorf("%d leases on %d connections", leases.Load(), dials.Load())
	}
}

// once leases a connection, checks whose it is and releases it, unless it has to wait for too long. It returns how
// many leases there were.
func once(t *testing.T, set *pool.Set, target pool.Target, limit int, wait time.Duration) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := set.Acquire(ctx, target, limit)
	var queue *pool.QueueError
	switch {
	case errors.As(err, &queue) && wait < patience:
		return 0
	case err != nil:
		t.Error(err)
		return 0
	}
	if answer, err := ask(c, "SELECT session_user"); err != nil || answer != target.Role || c.Target() != target {
		t.Errorf("%v got a connection of %v, session user %s, %v", target, c.Target(), answer, err)
	}
	c.Release()
	return 1
}

// watch checks the budget and the books while the work goes on.
func (b *bench) watch(set *pool.Set, slots int, work func()) {
	b.tb.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for watching := true; watching; {
		select {
		case <-done:
			watching = false
		case <-pace.C:
		}
		total := 0
		for _, s := range set.Stats() {
			total += s.Idle + s.Active + s.Connecting
		}
		if backends := b.backends(); backends > slots || total > slots {
			b.tb.Errorf("%d backends and %d connections in the books, %d are allowed", backends, total, slots)
		}
		if err := set.Audit(); err != nil {
			b.tb.Error(err)
		}
	}
}

func TestTargetsThatShareAndTargetsThatDoNotLiveOnOneBudget(t *testing.T) {
	const slots = 6
	b := newBench(t, slots)
	b.options.Quantum = 20 * time.Millisecond
	b.options.Lifetime = 500 * time.Millisecond
	set := b.set()
	targets := append(append(b.sharing(8), b.sharing(3)...), b.tenants(5)...)
	b.watch(set, slots, func() {
		var all sync.WaitGroup
		for i := range 96 {
			all.Go(func() {
				for round := range 4 {
					wait := patience
					if i%7 == 0 {
						wait = time.Duration(i+round) * 100 * time.Microsecond
					}
					tenant := i % len(targets)
					once(t, set, targets[tenant], tenant%3, wait)
				}
			})
		}
		all.Wait()
	})
	for _, target := range targets {
		acquire(t, set, target, 0).Release()
	}
}

func TestATargetThatDoesNotShareGetsOnBesideACrowdOfThoseThatDo(t *testing.T) {
	b := newBench(t, 2)
	b.options.Quantum = 5 * time.Millisecond
	set, alone, shared := b.set(), b.tenant("alone"), b.sharing(5)
	var leases atomic.Int64
	for _, target := range shared {
		defer crowd(t, set, target, 10, 100*time.Microsecond, func(*pool.Conn) { leases.Add(1) })()
	}
	eventually(t, "the crowd is there", func() bool { return leases.Load() > 100 })
	for range 10 {
		c := acquire(t, set, alone, 0)
		if name := mustAsk(t, c, "SELECT name FROM whoami"); name != "alone" {
			t.Errorf("it read the table of %s", name)
		}
		before := leases.Load()
		c.Release()
		eventually(t, "the crowd gets on", func() bool { return leases.Load() > before+10 })
	}
}

// Levels on one server: what is one group's must not be closed for another, nor for a tenant that shares with none, over
// and over, because one of many targets has nothing at the moment.
func TestGroupsAndLoneTargetsInACrowdKeepTheirConnections(t *testing.T) {
	b := newBench(t, 12)
	b.options.Quantum = 5 * time.Millisecond
	dials := b.countDials()
	set := b.set()
	targets := slices.Concat(b.sharing(30), b.sharing(30), b.tenants(2))
	leases := make([]atomic.Int64, len(targets))
	for i, target := range targets {
		defer crowd(t, set, target, 3, time.Millisecond, func(*pool.Conn) { leases[i].Add(1) })()
	}
	allHave := func(n int64) func() bool {
		return func() bool {
			return !slices.ContainsFunc(targets, func(target pool.Target) bool { return leases[slices.Index(targets, target)].Load() < n })
		}
	}
	eventually(t, "all are served", allHave(10))
	settled := dials.Load()
	eventually(t, "all are served for as long again, ten times", allHave(100))
	if more := dials.Load() - settled; more > 24 {
		t.Errorf("%d connections were opened before all had had ten leases, and %d until they had had a hundred", settled, more)
	}
	if err := set.Audit(); err != nil {
		t.Error(err)
	}
}

func TestALoneWaiterIsServedWithinAFewLeasesOfATenantWithTwoHundredThatSharesWithIt(t *testing.T) {
	for _, slots := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("%d slots", slots), func(t *testing.T) {
			b := newBench(t, slots)
			set, targets := b.set(), b.sharing(2)
			greedy, lone := targets[0], targets[1]
			var leases atomic.Int64
			defer crowd(t, set, greedy, 200, time.Millisecond, func(*pool.Conn) { leases.Add(1) })()
			eventually(t, "the greedy tenant has all connections", func() bool {
				s := stat(set, greedy)
				return s.Active == slots && s.Waiting > 150
			})
			for range 20 {
				before := leases.Load()
				c := acquire(t, set, lone, 0)
				// The next release is the lone waiter's; the rest is what the others do until this goroutine looks.
				if n := leases.Load() - before; n > int64(10*slots) {
					t.Errorf("%d leases of the others came first", n)
				}
				c.Release()
			}
		})
	}
}

func TestTenantsThatShareTakeTurnsHoweverManyWaitersEachHas(t *testing.T) {
	const tenants, greedy = 10, 0
	b := newBench(t, 1)
	set, targets := b.set(), b.sharing(tenants)
	held := acquire(t, set, targets[greedy], 0)
	order := make(chan pool.Target, 100)
	var all sync.WaitGroup
	queue := func(target pool.Target) {
		waiting := stat(set, target).Waiting
		all.Go(func() {
			c := acquire(t, set, target, 0)
			order <- target
			c.Release()
		})
		eventually(t, "it waits", func() bool { return stat(set, target).Waiting == waiting+1 })
	}
	for range 50 {
		queue(targets[greedy])
	}
	for _, target := range targets[1:] {
		queue(target)
		queue(target)
	}
	held.Release()
	all.Wait()
	close(order)
	got := make([]pool.Target, 0, cap(order))
	for target := range order {
		got = append(got, target)
	}
	for i, target := range got[:2*tenants] { // the greedy one came first, but had the connection
		if want := targets[(i+1)%tenants]; target != want {
			t.Errorf("lease %d is of tenant %s, want %s", i, target.Tenant, want.Tenant)
		}
	}
}

func TestTwoGreedyTenantsThatShareDivideTheConnectionsEvenly(t *testing.T) {
	b := newBench(t, 8)
	dials := b.countDials()
	set, targets := b.set(), b.sharing(2)
	defer crowd(t, set, targets[0], 40, time.Millisecond, func(*pool.Conn) {})()
	eventually(t, "the first has everything while it is alone", func() bool { return stat(set, targets[0]).Active == 8 })
	defer crowd(t, set, targets[1], 40, time.Millisecond, func(*pool.Conn) {})()
	for range 20 {
		eventually(t, "both have half", func() bool {
			return stat(set, targets[0]).Active == 4 && stat(set, targets[1]).Active == 4
		})
	}
	if n := dials.Load(); n > 8 {
		t.Errorf("%d dials", n)
	}
}

func TestADrainOfOneTenantLeavesTheLeasesOfThoseThatShareWithItAlone(t *testing.T) {
	b := newBench(t, 4)
	set, targets := b.set(), b.sharing(3)
	drained, other, idle := acquire(t, set, targets[0], 0), acquire(t, set, targets[1], 0), acquire(t, set, targets[0], 0)
	pid := other.PID()
	idle.Release()
	set.Drain(targets[0].Tenant)
	eventually(t, "the idle one is closed", func() bool { return b.backends() == 2 })
	drained.Release()
	eventually(t, "the leased one is closed", func() bool { return b.backends() == 1 })
	if answer := mustAsk(t, other, "SELECT 'alive'"); answer != "alive" {
		t.Errorf("the other's connection said %q", answer)
	}
	other.Release()
	for _, target := range targets {
		c := acquire(t, set, target, 0)
		if c.PID() != pid {
			t.Errorf("%s leased backend %d, %d was there", target.Tenant, c.PID(), pid)
		}
		c.Release()
	}
}
