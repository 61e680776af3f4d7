package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestAReconnectIsWaitedFor(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "paused_a"))
	execute(t, conn, "BEGIN")
	console, err := pgx.Connect(bounded(t), consoleDSN(t, s, "docex_admin", s.bossPassword))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close(context.Background())
	execute(t, console, "RECONNECT paused_a")
	closed := make(chan error, 1)
	go func() {
		_, err := console.Exec(context.Background(), "WAIT_CLOSE paused_a")
		closed <- err
	}()
	select {
	case err := <-closed:
		t.Fatalf("it did not wait for a transaction: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	execute(t, conn, "COMMIT")
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits on")
	}
	expect(t, conn, "SELECT 'served on'", "served on")
}

func TestAPausedTenantsClientsWaitAndNobodyElses(t *testing.T) {
	s := theSite(t)
	paused, other := s.proxy.connect(t, s.tenant(t, "paused_a")), s.proxy.connect(t, s.tenant(t, "life_a"))
	expect(t, paused, "SELECT 'before'", "before")
	console, err := pgx.Connect(bounded(t), consoleDSN(t, s, "docex_admin", s.bossPassword))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close(context.Background())
	order := func(command string) {
		t.Helper()
		if _, err := console.Exec(bounded(t), command); err != nil {
			t.Fatal(command, err)
		}
	}
	execute(t, paused, "BEGIN")
	done := make(chan struct{})
	go func() {
		defer close(done)
		order("PAUSE paused_a")
	}()
	time.Sleep(100 * time.Millisecond)
	expect(t, paused, "SELECT 'inside'", "inside") // what runs goes on to its end, and PAUSE waits for it
	select {
	case <-done:
		t.Fatal("PAUSE did not wait for a transaction")
	default:
	}
	execute(t, paused, "COMMIT")
	<-done
	expect(t, other, "SELECT 'other'", "other")

	answered := make(chan error, 1)
	go func() {
		_, err := paused.Exec(context.Background(), "SELECT 1")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a paused tenant was served: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	order("RESUME paused_a")
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a resumed tenant waits on")
	}
}
