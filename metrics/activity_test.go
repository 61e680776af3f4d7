package metrics_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
)

// activity is what a Watch says of one tenant.
func activity(t *testing.T, w *metrics.Watch, now time.Time, name string) metrics.TenantActivity {
	t.Helper()
	for _, a := range w.Tenants(now) {
		if a.Name == name {
			return a
		}
	}
	t.Fatalf("nothing of %q", name)
	return metrics.TenantActivity{}
}

func transactions(m *metrics.Metrics, tenant string, n int, took time.Duration) {
	for range n {
		m.Tenant(tenant).TransactionDone(took)
	}
}

func TestAWatchKnowsNoRateAtItsFirstLook(t *testing.T) {
	m, _ := newMetrics(5)
	transactions(m, "acme", 1000, time.Second)
	if a := activity(t, m.NewWatch(), time.Now(), "acme"); a.Rated || a.PerSecond != 0 || a.Slowest != 0 {
		t.Errorf("%+v", a)
	}
}

func TestRatesAreOfTheLastSeconds(t *testing.T) {
	m, _ := newMetrics(5)
	w, now := m.NewWatch(), time.Now()
	transactions(m, "acme", 1000, time.Millisecond)
	w.Tenants(now)
	for range 8 {
		now = now.Add(time.Second)
		transactions(m, "acme", 50, time.Millisecond)
		if a := activity(t, w, now, "acme"); !a.Rated || a.PerSecond != 50 {
			t.Errorf("%+v", a)
		}
	}
	for range 6 {
		now = now.Add(time.Second)
		w.Tenants(now)
	}
	if a := activity(t, w, now.Add(time.Second), "acme"); a.PerSecond != 0 {
		t.Errorf("%v a second, long after the last", a.PerSecond)
	}
}

func TestTheSlowestOfAHundredIsForgottenAfterAMinute(t *testing.T) {
	m, _ := newMetrics(5)
	w, now := m.NewWatch(), time.Now()
	w.Tenants(now)
	transactions(m, "acme", 980, time.Millisecond)
	transactions(m, "acme", 20, 300*time.Millisecond)
	now = now.Add(time.Second)
	if a := activity(t, w, now, "acme"); a.Slowest < 250*time.Millisecond || a.Slowest > 350*time.Millisecond {
		t.Errorf("p99 is %s", a.Slowest)
	}
	for range 61 {
		now = now.Add(time.Second)
		transactions(m, "acme", 10, time.Millisecond)
		w.Tenants(now)
	}
	if a := activity(t, w, now, "acme"); a.Slowest < 900*time.Microsecond || a.Slowest > 1300*time.Microsecond {
		t.Errorf("p99 is %s a minute later", a.Slowest)
	}
}

func TestAWatchThatWasLeftAloneBeginsAnew(t *testing.T) {
	m, _ := newMetrics(5)
	w, now := m.NewWatch(), time.Now()
	w.Tenants(now)
	transactions(m, "acme", 1000, time.Millisecond)
	if a := activity(t, w, now.Add(time.Hour), "acme"); a.Rated {
		t.Errorf("%+v", a)
	}
}

func TestTenantsWithoutSeriesAreWatchedTogether(t *testing.T) {
	m, _ := newMetrics(2)
	for i := range 10 {
		name := fmt.Sprintf("t%d", i)
		m.SessionOpened(name)
		m.Tenant(name).Pinned()
	}
	all := m.NewWatch().Tenants(time.Now())
	if len(all) != 3 {
		t.Errorf("%d entries", len(all))
	}
	if a := activity(t, m.NewWatch(), time.Now(), ""); a.Tenants != 8 || a.Sessions != 8 || a.Pins != 8 {
		t.Errorf("%+v", a)
	}
}

func TestAQuantileIsRightToLessThanAQuarter(t *testing.T) {
	for took := 20 * time.Microsecond; took < 2*time.Minute; took = took * 11 / 10 {
		m, _ := newMetrics(1)
		w, now := m.NewWatch(), time.Now()
		w.Tenants(now)
		transactions(m, "acme", 100, took)
		got := activity(t, w, now.Add(time.Second), "acme").Slowest
		if off := float64(got-took) / float64(took); off < -.25 || off > .25 {
			t.Errorf("%s is taken for %s", took, got)
		}
	}
}

func TestDurationsBeyondAllBucketsAreCountedInTheLast(t *testing.T) {
	for _, took := range []time.Duration{-time.Second, 0, 1, time.Hour} {
		m, _ := newMetrics(1)
		w, now := m.NewWatch(), time.Now()
		w.Tenants(now)
		transactions(m, "acme", 10, took)
		if a := activity(t, w, now.Add(time.Second), "acme"); a.Slowest <= 0 || a.Slowest > 140*time.Second {
			t.Errorf("%s is taken for %s", took, a.Slowest)
		}
	}
}

func BenchmarkTransactionDone(b *testing.B) {
	m, _ := newMetrics(500)
	m.SessionOpened("acme")
	acme := m.Tenant("acme")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			acme.TransactionDone(time.Millisecond)
		}
	})
}

func BenchmarkWatchOf500Tenants(b *testing.B) {
	m, _ := newMetrics(500)
	for i := range 500 {
		m.SessionOpened(fmt.Sprintf("t%d", i))
	}
	w, now := m.NewWatch(), time.Now()
	for b.Loop() {
		now = now.Add(time.Second)
		w.Tenants(now)
	}
}

func TestTotalsCanBeReadBack(t *testing.T) {
	m, _ := newMetrics(1)
	m.SessionRefused(metrics.ReasonBadPassword)
	m.SessionRefused(metrics.ReasonBadPassword)
	m.ServerConnected("main", time.Second, errors.New("refused"))
	m.ServerConnected("other", time.Second, nil)
	if got := m.Refusals(); got[metrics.ReasonBadPassword] != 2 || got[metrics.ReasonThrottled] != 0 || len(got) != 24 {
		t.Errorf("%v", got)
	}
	if got := m.ServerConnectFailures(); got["main"] != 1 || got["other"] != 0 || len(got) != 2 {
		t.Errorf("%v", got)
	}
}
