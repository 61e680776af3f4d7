package proxy_test

import (
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy"
	"github.com/docex-proxy/docex-proxy/registry"
)

// limit changes the tenant's limits, and returns when all sessions know.
func (b *bed) limit(limits registry.Limits) {
	b.t.Helper()
	b.mu.Lock()
	route := *b.tenant.Route
	route.Limits = limits
	b.tenant.Route = &route
	b.mu.Unlock()
	b.hold(false, b.target.Database)
}

func TestATenantsOwnTimeLimitsHoldForItsOpenSessions(t *testing.T) {
	const moment = registry.Duration(100 * time.Millisecond)
	for name, c := range map[string]struct {
		limits registry.Limits
		do     func(b *bed, w *wire)
		code   string
	}{
		"between transactions": {registry.Limits{ClientIdle: moment}, func(_ *bed, w *wire) { w.send(query("SELECT 1")); w.until('Z') }, "57P05"},
		"in a transaction":     {registry.Limits{IdleTransaction: moment}, func(_ *bed, w *wire) { w.send(query("BEGIN")); w.until('Z') }, "25P03"},
		"a query":              {registry.Limits{Query: moment}, func(_ *bed, w *wire) { w.send(query("SELECT pg_sleep(60)")) }, "57014"},
		"a transaction":        {registry.Limits{Transaction: moment}, func(_ *bed, w *wire) { w.send(query("BEGIN")); w.until('Z') }, "25P04"},
		"the wait for a connection": {registry.Limits{QueueWait: moment}, func(b *bed, w *wire) {
			holder := b.dial()
			holder.send(query("BEGIN"))
			holder.until('Z')
			w.send(query("SELECT 1"))
			w.until('E')
			w.until('Z')
			w.send(message('X', ""))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, 1, nil, func(t *testing.T, b *bed) {
				w := b.dial()
				w.send(query("BEGIN"))
				w.until('Z')
				w.send(query("COMMIT"))
				w.until('Z')
				b.limit(c.limits)
				c.do(b, w)
				if code := w.ended(); code != c.code {
					t.Errorf("SQLSTATE %q, want %q", code, c.code)
				}
			})
		})
	}
}

func TestATenantsLimitMayBeWiderThanTheProxys(t *testing.T) {
	const moment = 50 * time.Millisecond
	onBoth(t, 1, func(o *proxy.Options) { o.Query = moment }, func(t *testing.T, b *bed) {
		conn := b.connect()
		b.limit(registry.Limits{Query: registry.Duration(patience)})
		b.mustExec(conn, "SELECT pg_sleep(0.2)")
	})
}

func TestATenantsRateHoldsBackAllItsSessionsTogether(t *testing.T) {
	onBoth(t, 3, nil, func(t *testing.T, b *bed) {
		one, two := b.connect(), b.connect()
		b.mustExec(one, "SELECT 1")
		b.limit(registry.Limits{Rate: 20})
		began := time.Now()
		for range 20 {
			b.mustExec(one, "SELECT 1")
			b.mustExec(two, "SELECT 1")
		}
		// Twenty may have been saved up, so that at least nineteen had to wait for a twentieth of a second each.
		if took := time.Since(began); took < 19*time.Second/20 {
			t.Errorf("40 transactions took %s at 20 a second", took)
		}
		b.limit(registry.Limits{})
		b.mustExec(one, "SELECT 1")
	})
}

func TestWhoWaitsForTheRateForTooLongIsToldAndMayCancel(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		conn := b.connect()
		b.limit(registry.Limits{Rate: 0.001, QueueWait: registry.Duration(100 * time.Millisecond)})
		b.mustExec(conn, "SELECT 1")
		_, err := exec(t.Context(), conn, "SELECT 1")
		if codeOf(err) != "53300" {
			t.Error(err)
		}
		b.limit(registry.Limits{Rate: 0.001, QueueWait: registry.Duration(patience)})
		b.cancelsWait(conn)
	})
}
