package pool_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestALimitHoldsBackATargetFromTheConnectionsThatItShares(t *testing.T) {
	b := newBench(t, 4)
	set, targets := b.set(), b.sharing(2)
	limited, other := targets[0], targets[1]
	spare, held := acquire(t, set, other, 0), acquire(t, set, limited, 1)
	spare.Release()
	if _, ok := set.TryAcquire(limited, 1); ok {
		t.Error("a second lease at once")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var queue *pool.QueueError
	if _, err := set.Acquire(ctx, limited, 1); !errors.As(err, &queue) {
		t.Errorf("past the limit: %v", err)
	}
	leased := make(chan *pool.Conn)
	go func() { leased <- acquire(t, set, limited, 1) }()
	eventually(t, "it waits", func() bool { return stat(set, limited).Waiting == 1 })
	pid := spare.PID()
	held.Destroy() // makes room under the limit, and the other's idle connection is there
	c := <-leased
	if c.PID() != pid {
		t.Errorf("backend %d was leased, %d was idle", c.PID(), pid)
	}
	go func() { leased <- acquire(t, set, limited, 1) }()
	eventually(t, "it waits", func() bool { return stat(set, limited).Waiting == 1 })
	acquire(t, set, other, 0).Release()
	second := acquire(t, set, limited, 3) // a raised limit lets both in
	(<-leased).Release()
	second.Release()
	c.Release()
}

func TestAWaiterTakesASharedConnectionWhileItsOwnIsBeingOpened(t *testing.T) {
	b := newBench(t, 2)
	proceed := make(chan string, 2)
	b.options.Password = func(string, int) string { return <-proceed }
	set, targets := b.set(), b.sharing(2)
	proceed <- "right"
	first := acquire(t, set, targets[0], 0)
	leased := make(chan *pool.Conn)
	go func() { leased <- acquire(t, set, targets[1], 1) }()
	eventually(t, "one is being opened", func() bool { return stat(set, targets[1]).Connecting == 1 })
	second := make(chan *pool.Conn)
	failed := make(chan error)
	go func() {
		c, err := set.Acquire(context.Background(), targets[1], 2)
		second <- c
		failed <- err
	}()
	eventually(t, "two wait", func() bool { return stat(set, targets[1]).Waiting == 2 })
	first.Release()
	c := <-leased
	if c.PID() != first.PID() {
		t.Errorf("backend %d was leased, want %d", c.PID(), first.PID())
	}
	proceed <- "right"
	other := <-second
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	other.Release()
	c.Release()
}

func TestAFailedConnectLetsTheNextWaiterHaveASharedConnection(t *testing.T) {
	b := newBench(t, 2)
	proceed := make(chan string, 2)
	b.options.Password = func(string, int) string { return <-proceed }
	set, targets := b.set(), b.sharing(2)
	proceed <- "right"
	first := acquire(t, set, targets[0], 0)
	results := make(chan error, 2)
	for range cap(results) {
		go func() {
			c, err := set.Acquire(context.Background(), targets[1], 1)
			if err == nil {
				c.Release()
			}
			results <- err
		}()
	}
	eventually(t, "both wait", func() bool { return stat(set, targets[1]).Waiting == 2 })
	first.Release() // the limit of the others is used up by the connection that is being opened
	if got := stat(set, targets[0]).Idle; got != 1 {
		t.Errorf("%d idle connections", got)
	}
	proceed <- "wrong"
	var connect *pool.ConnectError
	if one, two := <-results, <-results; errors.As(one, &connect) == errors.As(two, &connect) {
		t.Errorf("they got %v and %v, want one error", one, two)
	}
}

func TestASharedConnectionPastItsLifetimeIsNotPassedOn(t *testing.T) {
	b := newBench(t, 1)
	b.options.Lifetime = 50 * time.Millisecond
	set, targets := b.set(), b.sharing(2)
	c := acquire(t, set, targets[0], 0)
	pid := c.PID()
	leased := make(chan *pool.Conn)
	go func() { leased <- acquire(t, set, targets[1], 0) }()
	eventually(t, "another waits", func() bool { return stat(set, targets[1]).Waiting == 1 })
	time.Sleep(2 * b.options.Lifetime)
	c.Release()
	next := <-leased
	if next.PID() == pid {
		t.Error("the old connection was passed on")
	}
	next.Release()
}
