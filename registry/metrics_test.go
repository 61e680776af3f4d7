package registry_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/registry"
)

// series reads the counters and gauges of a family, by the joined values of their labels in alphabetical order.
func series(tb testing.TB, from prometheus.Gatherer, family string) map[string]float64 {
	tb.Helper()
	families, err := from.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			name := ""
			for _, label := range m.GetLabel() {
				name += label.GetValue() + " "
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

func TestEveryLookupIsCountedByItsOutcome(t *testing.T) {
	counters := prometheus.NewRegistry()
	b := newBench(t, registry.CacheOptions{Metrics: metrics.New(counters, metrics.Options{})}, "acme")
	b.found("acme")  // miss
	b.found("acme")  // hit
	b.absent("nope") // not_found
	b.absent("nope") // negative
	b.source.setDown(true)
	b.clock.pass(time.Minute)
	b.found("acme")       // stale
	b.unavailable("nope") // error
	got := series(t, counters, "docex_proxy_registry_lookups_total")
	for _, outcome := range []string{"hit", "miss", "negative", "not_found", "stale", "error"} {
		if n := got["tenant "+outcome+" "]; n != 1 {
			t.Errorf("%s was counted %v times, want once: %v", outcome, n, got)
		}
	}
}

func TestACacheHitAllocatesNothing(t *testing.T) {
	b := newBench(t, registry.CacheOptions{Metrics: metrics.New(prometheus.NewRegistry(), metrics.Options{})}, "acme")
	b.found("acme")
	b.absent("globex")
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		_, _ = b.cache.Tenant(ctx, "acme")
		_, _ = b.cache.Tenant(ctx, "globex")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestListenShowsWhetherItListens(t *testing.T) {
	dsn, _ := migrated(t)
	gauges := prometheus.NewRegistry()
	wire := newWire(t, dsn)
	l := listen(t, registry.ListenOptions{DSN: wire.dsn, Metrics: metrics.New(gauges, metrics.Options{}), PingAfter: 100 * time.Millisecond})
	listening := func() float64 { return series(t, gauges, "docex_proxy_registry_listening")[""] }
	receive(t, l.connects, "connect")
	if listening() != 1 {
		t.Error("not shown while it listens")
	}
	wire.refuse.Store(true)
	wire.goDark()
	// The first may be the driver's CancelRequest for the ping that it gave up.
	receive(t, wire.refused, "attempt")
	receive(t, wire.refused, "attempt")
	if listening() != 0 {
		t.Error("still shown while it does not")
	}
}
