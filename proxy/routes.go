package proxy

import (
	"sync"

	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// routes has the sessions of a tenant share one route as long as theirs say the same: what an idle session keeps counts.
// The zero value is ready.
type routes struct {
	mu     sync.Mutex
	latest map[routeKey]*router.Route
}

type routeKey struct {
	tenant  registry.TenantID
	replica bool
}

// share returns a route like the given one, without the settings, which each session's machine has.
func (r *routes) share(route router.Route) *router.Route {
	route.Settings = nil
	key := routeKey{route.Tenant.ID, route.Replica}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.latest[key]; known != nil && alike(known, &route) {
		return known
	}
	if r.latest == nil {
		r.latest = make(map[routeKey]*router.Route)
	}
	kept := route // so that nothing is allocated where nothing is kept
	r.latest[key] = &kept
	return &kept
}

// forget is called when a tenant has no session any more.
func (r *routes) forget(id registry.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.latest, routeKey{tenant: id})
	delete(r.latest, routeKey{tenant: id, replica: true})
}

// alike reports whether two routes without settings say the same.
func alike(a, b *router.Route) bool {
	return a.Tenant == b.Tenant && a.Login == b.Login && a.User == b.User && a.Named == b.Named && a.Source == b.Source &&
		a.Target == b.Target && a.Role == b.Role && a.MaxConnections == b.MaxConnections && a.Held == b.Held && a.Denied == b.Denied
}
