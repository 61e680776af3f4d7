package proxy_test

import (
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/proxy"
)

// slowest is how long the slowest transaction takes of those that test runs, of which there are n.
func (b *bed) slowest(n int, test func()) time.Duration {
	b.t.Helper()
	watch, now := b.options.Metrics.NewWatch(), time.Now()
	watch.Tenants(now)
	test()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		now = now.Add(time.Second)
		for _, a := range watch.Tenants(now) {
			if a.Name == "acme" && a.Slowest > 0 && b.transactions() >= n {
				return a.Slowest
			}
		}
	}
	b.t.Fatal("no transaction was measured")
	return 0
}

// transactions counts those of the tenant so far.
func (b *bed) transactions() int {
	for _, f := range b.options.Metrics.Tenants() {
		if f.Name == "acme" {
			return int(f.Transactions)
		}
	}
	return 0
}

const span = 200 * time.Millisecond

func TestATransactionTakesFromTheRequestToTheAnswerThatEndsIt(t *testing.T) {
	onBoth(t, 1, nil, func(t *testing.T, b *bed) {
		conn := b.connect()
		took := b.slowest(1, func() {
			b.mustExec(conn, "BEGIN")
			time.Sleep(span)
			b.mustExec(conn, "COMMIT")
		})
		if took < span*3/4 {
			t.Errorf("%s, of %s", took, span)
		}
		time.Sleep(2 * span) // silence between transactions is nobody's time
		if took := b.slowest(2, func() { b.mustExec(conn, "SELECT 1") }); took > span {
			t.Errorf("%s for a statement that takes no time", took)
		}
	})
}

func TestTheWaitForAServerConnectionIsPartOfATransaction(t *testing.T) {
	onBoth(t, 1, nil, func(t *testing.T, b *bed) {
		holder, waiter := b.connect(), b.connect()
		b.mustExec(holder, "BEGIN")
		took := b.slowest(1, func() {
			done := make(chan error, 1)
			go func() {
				_, err := exec(t.Context(), waiter, "SELECT 1")
				done <- err
			}()
			time.Sleep(span)
			holder.Close(t.Context()) // its own transaction is none that ended
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		if took < span*3/4 {
			t.Errorf("%s, of %s", took, span)
		}
	})
}

func TestAWaitInVainIsMeasuredToo(t *testing.T) {
	onBoth(t, 1, func(o *proxy.Options) { o.QueueWait = span }, func(t *testing.T, b *bed) {
		holder, waiter := b.connect(), b.connect()
		b.mustExec(holder, "BEGIN")
		if took := b.slowest(1, func() { exec(t.Context(), waiter, "SELECT 1") }); took < span*3/4 {
			t.Errorf("%s, of %s", took, span)
		}
	})
}

func TestPinsAreCountedByTenant(t *testing.T) {
	onBoth(t, 1, nil, func(t *testing.T, b *bed) {
		b.mustExec(b.connect(), "LISTEN news")
		var acme metrics.TenantActivity
		for end := time.Now().Add(patience); acme.Pins == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			for _, a := range b.options.Metrics.NewWatch().Tenants(time.Now()) {
				if a.Name == "acme" {
					acme = a
				}
			}
		}
		if acme.Pins != 1 || acme.Sessions != 1 {
			t.Errorf("%+v", acme)
		}
	})
}
