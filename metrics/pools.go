package metrics

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// PoolStat is the state of one pool at one moment; pools of the same tenant and server are added up.
type PoolStat struct {
	Tenant, Server                    string
	Idle, Active, Connecting, Waiting int
}

func (s PoolStat) size() int { return s.Idle + s.Active + s.Connecting + s.Waiting }

func (s PoolStat) plus(more PoolStat) PoolStat {
	s.Idle += more.Idle
	s.Active += more.Active
	s.Connecting += more.Connecting
	s.Waiting += more.Waiting
	return s
}

type poolKey struct{ tenant, server string }

// pools asks for the state of the pools at each scrape.
type pools struct {
	max   int
	stats atomic.Pointer[func() []PoolStat]

	connections, waiting *prometheus.Desc
}

func newPools(maxTenants int) *pools {
	return &pools{
		max: maxTenants,
		connections: prometheus.NewDesc(namespace+"_server_connections",
			"Connections to Postgres servers, by tenant, server and state.", []string{"tenant", "server", "state"}, nil),
		waiting: prometheus.NewDesc(namespace+"_waiting_clients",
			"Sessions that wait for a server connection, by tenant and server.", []string{"tenant", "server"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (p *pools) Describe(descs chan<- *prometheus.Desc) {
	descs <- p.connections
	descs <- p.waiting
}

// Collect implements prometheus.Collector.
func (p *pools) Collect(out chan<- prometheus.Metric) {
	stats := p.stats.Load()
	if stats == nil {
		return
	}
	for key, sum := range bound((*stats)(), p.max) {
		for state, connections := range map[string]int{"idle": sum.Idle, "active": sum.Active, "connecting": sum.Connecting} {
			out <- prometheus.MustNewConstMetric(p.connections, prometheus.GaugeValue, float64(connections), key.tenant, key.server, state)
		}
		out <- prometheus.MustNewConstMetric(p.waiting, prometheus.GaugeValue, float64(sum.Waiting), key.tenant, key.server)
	}
}

// bound adds up the pools by tenant and server. The tenants with the largest pools keep their names, maxTenants of
// them; the others' pools are added up under otherTenant.
func bound(stats []PoolStat, maxTenants int) map[poolKey]PoolStat {
	sizes := map[string]int{}
	for _, stat := range stats {
		sizes[stat.Tenant] += stat.size()
	}
	names := make([]string, 0, len(sizes))
	for name := range sizes {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(sizes[b], sizes[a]), cmp.Compare(a, b))
	})
	rest := map[string]bool{}
	for _, name := range names[min(maxTenants, len(names)):] {
		rest[name] = true
	}
	sums := map[poolKey]PoolStat{}
	for _, stat := range stats {
		key := poolKey{tenant: stat.Tenant, server: stat.Server}
		if rest[stat.Tenant] {
			key.tenant = otherTenant
		}
		sums[key] = sums[key].plus(stat)
	}
	return sums
}
