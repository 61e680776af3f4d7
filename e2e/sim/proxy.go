//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/peers"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

const (
	connectTimeout = 5 * time.Second
	poolRole       = "docex_pool"
	mostKnown      = 20000 // welcomes that a proxy remembers: proxy/known.go
)

// proxy is one proxy: the cache, the router, the pools and the fleet are the product's own, connected as
// cmd/docex-proxy does; the sessions are this program's.
type proxy struct {
	world  *world
	number int
	serial int // no other has, of those before it either
	alive  bool
	killed bool

	cache  *registry.Cache
	router *router.Router
	pools  *pool.Set
	fleet  *peers.Fleet
	life   context.Context // of the fleet
	end    context.CancelFunc

	sockets []atomic.Int32 // to each server

	tenants  map[int32]*tenancy
	present  []*tenancy               // the same, in an order that is the same in every run
	known    map[pool.Target]struct{} // of whom a session has been welcomed
	touched  map[int32]struct{}       // tenants for whom connections were asked
	hearing  bool                     // notifications arrive
	since    moment
	rechecks [][]string // of tenants, to be done one after the other
	checking bool

	reading int // queries of the registry under way
	toRead  []*query
}

// tenancy is a tenant's sessions on a proxy. Like the product's they share one route.
type tenancy struct {
	tenant   int32
	place    int // in proxy.present
	sessions []*session
	route    *router.Route
	leased   int // server connections
	bound    int // the most that they may be; 0 is no bound
}

// newProxy starts a proxy that knows nothing. Clients are sent to it from then on.
func newProxy(w *world, number int) (*proxy, error) {
	w.born++
	p := &proxy{world: w, number: number, serial: w.born, alive: true, hearing: true, since: w.now, sockets: make([]atomic.Int32, len(w.servers)),
		tenants: make(map[int32]*tenancy), known: make(map[pool.Target]struct{}), touched: make(map[int32]struct{})}
	silent := slog.New(slog.DiscardHandler)
	p.cache = registry.NewCache(reader{p}, registry.CacheOptions{Size: w.o.cacheSize, TTL: w.o.ttl})
	p.router = router.New(router.Options{Registry: p.cache, UserSuffix: true, AllowTrusted: true, PoolRole: poolRole})
	p.fleet = peers.New(peers.Options{Book: p, Address: p.address(), Logger: silent})
	var err error
	p.pools, err = pool.New(pool.Options{
		Servers: w.poolServers, ConnectTimeout: connectTimeout, Quantum: w.o.quantum, TenantsSeen: w.o.tenantsSeen,
		Connect: p.connect, NewState: func() any { return new(memory) },
	})
	if err != nil {
		return nil, err
	}
	p.life, p.end = context.WithCancel(context.Background())
	w.atWork.Go(func() { p.fleet.Run(p.life) })
	// The proxies look again at different times, as those do that were not started together.
	w.do(w.o.ttl*time.Duration(number+1)/time.Duration(w.o.proxies), p.recheckRegularly)
	return p, nil
}

func (p *proxy) address() string { return fmt.Sprintf("p%03d:6432", p.number) }

// stop ends a proxy: connections break, clients go elsewhere. A killed one takes no leave of its peers.
func (p *proxy) stop(killed bool) (orphans []*session) {
	p.alive, p.killed = false, killed
	p.end()
	for _, t := range p.present {
		orphans = append(orphans, t.sessions...)
	}
	for _, s := range orphans {
		s.perish()
	}
	p.tenants, p.present = nil, nil
	p.world.atWork.Go(p.pools.Close)
	synctest.Wait()
	return orphans
}

// portion is the session's Server.portion.
func (p *proxy) portion(limit int) int {
	if !p.world.o.share {
		return limit
	}
	return peers.Portion(limit, p.fleet.Live())
}

// hear is what a notification does: graph.registryChanged.
func (p *proxy) hear(t int32, name string) {
	if !p.alive || !p.hearing {
		return
	}
	p.cache.Forget(name)
	if p.tenants[t] != nil {
		p.recheck([]string{name})
	}
	p.drain(t, name)
}

// drain has the connections of a tenant closed that were opened for what it was. Where none was ever asked for, the
// product looks, and finds nothing.
func (p *proxy) drain(t int32, name string) {
	if _, ok := p.touched[t]; ok {
		began := p.world.stopwatch()
		p.pools.Drain(name)
		p.world.drains.add(p.world.stopwatch() - began)
	}
}

// deafen has notifications not arrive for a while. When they do again everything counts as changed:
// graph.registryConnected.
func (p *proxy) deafen(lasting time.Duration) {
	p.hearing = false
	p.world.do(lasting, func() {
		if p.alive {
			p.hearing, p.since = true, p.world.now
			p.cache.ForgetAll()
			p.recheck(p.all())
		}
	})
}

func (p *proxy) recheckRegularly() {
	if p.alive {
		p.recheck(p.all())
		p.world.do(p.world.o.ttl, p.recheckRegularly)
	}
}

// all is the tenants that have sessions.
func (p *proxy) all() []string {
	names := make([]string, len(p.present))
	for i, t := range p.present {
		names[i] = tenantName(t.tenant)
	}
	return names
}

// recheck judges sessions again, as proxy.Server does: one run at a time, a tenant after the other.
func (p *proxy) recheck(names []string) {
	p.rechecks = append(p.rechecks, names)
	if !p.checking {
		p.checkNext()
	}
}

func (p *proxy) checkNext() {
	if p.checking = len(p.rechecks) > 0; !p.checking {
		return
	}
	names := p.rechecks[0]
	p.rechecks = p.rechecks[1:]
	w := p.world
	w.atWork.Go(func() {
		for _, name := range names {
			if p.life.Err() != nil {
				break
			}
			began := w.elapsed()
			route, err := p.router.Route(p.life, startup(name))
			w.desk.hand(news{kind: ofRecheck, proxy: p.serial, name: name, tell: func() { p.reroute(name, route, err, momentAfter(began)) }})
		}
		w.desk.hand(news{kind: ofRecheckEnd, proxy: p.serial, tell: func() {
			if t, ok := w.office.tenantOf(names[0]); ok && len(names) == 1 && p.alive {
				p.drain(t, names[0]) // once more: a session that did not know yet may have opened another
			}
			p.checkNext()
		}})
	})
	synctest.Wait()
}

// reroute takes what the router says of a tenant's sessions now.
func (p *proxy) reroute(name string, route router.Route, err error, began moment) {
	t, _ := p.world.office.tenantOf(name)
	home := p.tenants[t]
	p.world.tally.rechecks++
	switch {
	case home == nil, errors.Is(err, router.ErrRegistryOffline):
	case err != nil, route.Denied != nil:
		p.world.violated("proxy %d refuses a session of %s: %v, %v", p.number, name, err, route.Denied)
	default:
		p.verify(t, &route, began)
		home.route = &route
	}
}

// verify checks a route against what the registry says: it has to be the tenant's own, and no older than the last change
// that the proxy has heard of.
func (p *proxy) verify(t int32, route *router.Route, began moment) {
	w, name := p.world, tenantName(t)
	newest := route.Tenant.Route.Version == int64(w.office.version[t])
	if route.Tenant.ID != registry.TenantID(name) || newest && route.Target.Server != w.servers[w.home[t]].name {
		w.violated("proxy %d routes %s to %s on %s", p.number, name, route.Tenant.ID, route.Target.Server)
	}
	if !newest && p.alive && p.hearing && p.since <= began && began > w.office.changed[t]+heard {
		w.violated("proxy %d has version %d of %s, and has heard of %d", p.number, route.Tenant.Route.Version, name, w.office.version[t])
	}
}

// enter counts a session among its tenant's.
func (p *proxy) enter(s *session, route *router.Route) {
	home := p.tenants[s.tenant]
	if home == nil {
		home = &tenancy{tenant: s.tenant, place: len(p.present)}
		p.tenants[s.tenant] = home
		p.present = append(p.present, home)
	}
	home.route = route
	s.home, s.place = home, len(home.sessions)
	home.sessions = append(home.sessions, s)
}

// leave is the opposite of enter.
func (p *proxy) leave(s *session) {
	home, last := s.home, len(s.home.sessions)-1
	home.sessions[last].place = s.place
	home.sessions[s.place] = home.sessions[last]
	home.sessions = slices.Delete(home.sessions, last, last+1)
	if last > 0 {
		return
	}
	end := len(p.present) - 1
	p.present[end].place = home.place
	p.present[home.place] = p.present[end]
	p.present = slices.Delete(p.present, end, end+1)
	delete(p.tenants, s.tenant)
}

// memory is pool.Conn.State: whose the connection was last.
type memory struct{ tenant string }
