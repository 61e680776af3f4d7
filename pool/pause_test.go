package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestAPausedTenantWaitsAndNoOther(t *testing.T) {
	b := newBench(t, 4)
	set, acme, globex := b.set(), b.tenant("acme"), b.tenant("globex")
	held := acquire(t, set, acme, 0)
	if !set.Pause("acme") || set.Pause("acme") || !slices.Equal(set.Paused(), []string{"acme"}) {
		t.Fatal("it is not paused once")
	}
	short, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	if err := set.Quiesce(short, "acme"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at rest while a connection is leased: %v", err)
	}
	if _, err := set.Acquire(short, acme, 0); !isQueueError(err) {
		t.Errorf("a paused tenant's Acquire: %v", err)
	}
	if _, ok := set.TryAcquire(acme, 0); ok {
		t.Error("a paused tenant has got a connection")
	}
	if _, err := set.Ask(pool.NewRequest(func(*pool.Conn, error) {}), acme, 0); !errors.Is(err, pool.ErrBlocks) {
		t.Errorf("a paused tenant's Ask: %v", err)
	}
	acquire(t, set, globex, 0).Release()
	set.Drain(acme.Tenant)
	held.Release()
	if err := set.Quiesce(t.Context(), "acme"); err != nil {
		t.Error(err)
	}

	got := make(chan *pool.Conn, 1)
	go func() {
		c, err := set.Acquire(context.Background(), acme, 0)
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	select {
	case <-got:
		t.Fatal("a paused tenant has got a connection")
	case <-time.After(50 * time.Millisecond):
	}
	if !set.Resume("acme") || set.Resume("acme") {
		t.Error("it was not resumed once")
	}
	select {
	case c := <-got:
		c.Release()
	case <-time.After(10 * time.Second):
		t.Fatal("a resumed tenant waits on")
	}
}

func TestAPauseOfAllHoldsEverybodyBack(t *testing.T) {
	b := newBench(t, 4)
	set, acme := b.set(), b.tenant("acme")
	set.Pause("acme")
	set.Pause("")
	if err := set.Quiesce(t.Context(), ""); err != nil {
		t.Error(err)
	}
	set.Resume("acme")
	short, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	if _, err := set.Acquire(short, acme, 0); !isQueueError(err) {
		t.Errorf("an Acquire while all are paused: %v", err)
	}
	set.Resume("")
	acquire(t, set, acme, 0).Release()
}

func isQueueError(err error) bool {
	var queued *pool.QueueError
	return errors.As(err, &queued)
}

func TestADrainIsWaitedForUntilTheLastOfItsConnectionsIsClosed(t *testing.T) {
	b := newBench(t, 4)
	set, acme, globex := b.set(), b.tenant("acme"), b.tenant("globex")
	leased, idle := acquire(t, set, acme, 0), acquire(t, set, acme, 0)
	idle.Release()
	defer acquire(t, set, globex, 0).Release()
	for range 2 { // the second finds what the first has found
		set.Drain("")
	}
	fresh := acquire(t, set, acme, 0)
	defer fresh.Release()
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := set.AwaitDrain(short, acme.Tenant); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the wait ended while a connection was leased: %v", err)
	}
	leased.Release()
	if err := set.AwaitDrain(t.Context(), acme.Tenant); err != nil {
		t.Error(err)
	}
	if err := set.Audit(); err != nil {
		t.Error(err)
	}
}
