package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/docex-proxy/docex-proxy/internal/buildinfo"
	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/metrics/status"
)

// endpoint is for those who watch the graph, at an address. serving ends when sessions shall.
func (g *graph) endpoint(serving context.Context, at net.Addr) http.Handler {
	ready := func() error { return g.ready(serving) }
	tcp, ok := at.(*net.TCPAddr)
	board := g.board(serving, ready)
	return metrics.Handler(metrics.Endpoint{
		Gatherer: g.instruments, Ready: ready, Page: board.Page(), JSON: board.JSON(),
		Hosts: metrics.Hosts{Loopback: ok && tcp.IP.IsLoopback(), Names: g.config.Load().HTTPHosts},
	})
}

func (g *graph) board(serving context.Context, ready func() error) *status.Board {
	activity := g.metrics.NewWatch()
	return status.New(status.Options{
		Version: buildinfo.Version(), Began: g.began, Ready: ready,
		Draining: func() bool { return serving.Err() != nil },
		Servers:  g.serverFigures,
		Tenants: func(now time.Time) ([]status.Tenant, status.Tenant, int) {
			return g.tenantFigures(activity.Tenants(now))
		},
		Refusals: g.metrics.Refusals,
		States:   g.tenantStates,
	})
}

func (g *graph) serverFigures() []status.Server {
	use := make(map[string]metrics.PoolStat)
	for _, s := range g.poolStats() {
		sum := use[s.Server]
		sum.Idle += s.Idle
		sum.Active += s.Active
		sum.Connecting += s.Connecting
		sum.Waiting += s.Waiting
		use[s.Server] = sum
	}
	failures := g.metrics.ServerConnectFailures()
	all := []status.Server{}
	for name, s := range g.console.known {
		u := use[name]
		all = append(all, status.Server{
			Name: name, Used: u.Idle + u.Active + u.Connecting, Max: s.MaxConnections, Idle: u.Idle, Waiting: u.Waiting, Failures: failures[name],
		})
	}
	return all
}

// tenantFigures puts together what the metrics and the pools know of tenants. Those that the metrics do not tell apart are
// the others.
func (g *graph) tenantFigures(activity []metrics.TenantActivity) (named []status.Tenant, others status.Tenant, otherTenants int) {
	pools := make(map[string]metrics.PoolStat)
	for _, s := range g.poolStats() {
		sum := pools[s.Tenant]
		sum.Active += s.Active
		sum.Waiting += s.Waiting
		pools[s.Tenant] = sum
	}
	paused := g.pools.Paused()
	named = make([]status.Tenant, 0, len(activity))
	for _, a := range activity {
		t := status.Tenant{Name: a.Name, Clients: a.Sessions, Pins: a.Pins}
		if a.Rated {
			t.Rate = &a.PerSecond
		}
		if a.Slowest > 0 {
			milliseconds := float64(a.Slowest) / float64(time.Millisecond)
			t.P99 = &milliseconds
		}
		if a.Name == "" {
			others, otherTenants = t, a.Tenants
			continue
		}
		if slices.Contains(paused, a.Name) || slices.Contains(paused, "") {
			t.State = "paused"
		}
		t.Active, t.Waiting = pools[a.Name].Active, pools[a.Name].Waiting
		delete(pools, a.Name)
		named = append(named, t)
	}
	for _, rest := range pools {
		others.Active += rest.Active
		others.Waiting += rest.Waiting
	}
	return named, others, otherTenants
}

// tenantStates asks the store itself: of a tenant that has just been suspended the cache knows nothing any more.
func (g *graph) tenantStates(ctx context.Context, tenants []string) (map[string]string, error) {
	statuses, err := g.store.Statuses(ctx, tenants)
	if err != nil {
		return nil, err
	}
	states := make(map[string]string, len(statuses))
	for id, s := range statuses {
		if s == "" {
			s = "not adopted"
		}
		states[id] = string(s)
	}
	return states, nil
}
