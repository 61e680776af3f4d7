package pool_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/pool"
)

func BenchmarkSharedConnectionsHopBetweenTenants(b *testing.B) {
	const slots = 20
	for _, tenants := range []int{1000, 10_000} {
		bench := newBench(b, slots)
		bench.options.Metrics = metrics.New(prometheus.NewRegistry(), metrics.Options{MaxTenants: 2 * tenants})
		set, targets := bench.set(), bench.sharing(tenants)
		b.Run(fmt.Sprintf("%d tenants, idle", tenants), func(b *testing.B) { // a lease takes what another left idle
			b.ReportAllocs()
			next := 0
			for b.Loop() {
				cycle(b, set, targets[next%tenants])
				next++
			}
		})
		b.Run(fmt.Sprintf("%d tenants, queueing", tenants), func(b *testing.B) { // a release hands over
			b.ReportAllocs()
			leases := make(chan *pool.Conn, slots)
			rounds := b.N/tenants + 1
			for _, target := range targets {
				go lend(b, set, target, leases, rounds)
			}
			for range rounds * tenants {
				(<-leases).Release()
			}
		})
	}
}

// lend acquires connections for whoever releases them.
func lend(b *testing.B, set *pool.Set, target pool.Target, leases chan<- *pool.Conn, times int) {
	for range times {
		c, err := set.Acquire(context.Background(), target, 0)
		if err != nil {
			b.Error(err)
			return
		}
		leases <- c
	}
}

// sharing is targets that share connections, under one new role.
func (b *bench) sharing(n int) []pool.Target {
	login := b.tenant("login")
	targets := make([]pool.Target, n)
	for i := range targets {
		name := fmt.Sprintf("s%d", i)
		targets[i] = login
		targets[i].Shared, targets[i].Tenant, targets[i].SearchPath = true, name, `"tenant_`+name+`"`
	}
	return targets
}
