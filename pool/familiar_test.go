package pool_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/docex-proxy/docex-proxy/pool"
)

// introduce has two shared connections serve so many targets each: the first the even ones, the second the odd ones.
func introduce(t *testing.T, set *pool.Set, targets []pool.Target) (pids [2]uint32) {
	t.Helper()
	var leased [2]*pool.Conn
	for i := range targets {
		if c := leased[i%2]; c != nil {
			c.Release()
		}
		leased[i%2] = acquire(t, set, targets[i], 0)
		if i < 2 {
			pids[i] = leased[i].PID()
		}
		if pid := leased[i%2].PID(); pid != pids[i%2] {
			t.Fatalf("target %d has backend %d, not %d", i, pid, pids[i%2])
		}
	}
	leased[0].Release()
	leased[1].Release()
	return pids
}

func TestAnIdleConnectionThatKnowsATenantIsItsFirstChoice(t *testing.T) {
	b := newBench(t, 2)
	set, targets := b.set(), b.sharing(6)
	pids := introduce(t, set, targets[:4])
	for _, i := range []int{1, 0, 3, 1, 2, 0} {
		c := acquire(t, set, targets[i], 0)
		if c.PID() != pids[i%2] {
			t.Errorf("target %d, which backend %d knows, has %d", i, pids[i%2], c.PID())
		}
		c.Release()
	}
	first := acquire(t, set, targets[4], 0) // whom neither knows: the one that was used least recently
	defer first.Release()
	if first.PID() != pids[1] {
		t.Errorf("a stranger has backend %d, not %d", first.PID(), pids[1])
	}
}

func TestAConnectionThatIsReleasedGoesToATenantThatItKnowsOncePerRound(t *testing.T) {
	b := newBench(t, 2)
	set, targets := b.set(), b.sharing(8)
	pids := introduce(t, set, targets[:6])
	even, odd := acquire(t, set, targets[0], 0), acquire(t, set, targets[1], 0)
	if even.PID() != pids[0] || odd.PID() != pids[1] {
		t.Fatalf("backends %d and %d, not %v", even.PID(), odd.PID(), pids)
	}
	var all sync.WaitGroup
	leases := make(chan *pool.Conn)
	queue := func(target pool.Target) {
		waiting := stat(set, target).Waiting
		all.Go(func() { leases <- acquire(t, set, target, 0) })
		eventually(t, "it waits", func() bool { return stat(set, target).Waiting == waiting+1 })
	}
	for _, i := range []int{7, 3, 2, 5, 4, 6} { // 6 and 7 are known to none
		queue(targets[i])
	}
	var order []int
	next := func(c *pool.Conn) *pool.Conn {
		c.Release()
		c = <-leases
		order = append(order, slices.Index(targets, c.Target()))
		return c
	}
	even = next(even) // 2
	queue(targets[2]) // again, after the round began: comes in the next
	even = next(even) // 4
	odd = next(odd)   // 3
	odd = next(odd)   // 5
	even = next(even) // 7: what is left of the round, in its order
	even = next(even) // 6
	even = next(even) // 2
	defer odd.Release()
	defer even.Release()
	all.Wait()
	if want := []int{2, 4, 3, 5, 7, 6, 2}; !slices.Equal(order, want) {
		t.Errorf("served %v, want %v", order, want)
	}
}
