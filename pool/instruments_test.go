package pool_test

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/docex-proxy/docex-proxy/metrics"
)

// newMetrics is instruments on a registry of their own.
func newMetrics() *metrics.Metrics { return metrics.New(prometheus.NewRegistry(), metrics.Options{}) }

func TestEveryLeaseAndEveryDialIsMeasured(t *testing.T) {
	b := newBench(t, 1)
	registry := prometheus.NewRegistry()
	b.options.Metrics = metrics.New(registry, metrics.Options{})
	set, target := b.set(), b.tenant("measured")
	acquire(t, set, target, 0).Release()
	acquire(t, set, target, 0).Release()
	for name, want := range map[string]uint64{"docex_proxy_acquire_wait_seconds": 2, "docex_proxy_server_connect_seconds": 1} {
		if got := samples(t, registry, name); got != want {
			t.Errorf("%s has %d samples, want %d", name, got, want)
		}
	}
}

func TestAConnectionWhoseWaiterHasGoneTurnsIdle(t *testing.T) {
	b := newBench(t, 1)
	entered, proceed := make(chan struct{}), make(chan struct{})
	b.options.Password = func(string, int) string { // it is asked at the beginning of every dial
		close(entered) // a second dial would panic
		<-proceed
		return "right"
	}
	set, target := b.set(), b.tenant("gone")
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, err := set.Acquire(ctx, target, 0)
		failed <- err
	}()
	<-entered
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the waiter got %v", err)
	}
	close(proceed)
	eventually(t, "the connection is idle", func() bool { return stat(set, target).Idle == 1 })
	acquire(t, set, target, 0).Release()
}

// samples is the number of observations of a histogram.
func samples(t *testing.T, registry *prometheus.Registry, name string) (n uint64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				n += metric.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}
