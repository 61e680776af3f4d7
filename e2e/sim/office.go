//go:build unix

package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	readConnections = 4               // of a proxy to the registry: registry.OpenStore
	readPatience    = 5 * time.Second // registry.CacheOptions.LoadTimeout
	deafness        = 15 * time.Second
	appLogin        = "app" // of all sessions: an application's, for all tenants
)

// office is the registry's database: the tenants' rows, who reads them, and who listens to changes.
type office struct {
	world   *world
	cores   processors
	version []int32  // of each tenant's row
	changed []moment // when it was last changed
	beats   map[string]*beat
}

func newOffice(w *world) *office {
	return &office{world: w, cores: make(processors, w.o.registryCores), version: make([]int32, w.o.tenants),
		changed: make([]moment, w.o.tenants), beats: make(map[string]*beat)}
}

func tenantName(t int32) string { return "t" + strconv.Itoa(int(t)) }

// tenantOf is the number of a tenant that exists.
func (o *office) tenantOf(name string) (int32, bool) {
	digits, ok := strings.CutPrefix(name, "t")
	t, err := strconv.Atoi(digits)
	return int32(t), ok && err == nil && t < len(o.version)
}

// row is a tenant as the registry has it now.
func (o *office) row(name string) (*registry.Tenant, error) {
	t, ok := o.tenantOf(name)
	if !ok {
		return nil, registry.ErrNotFound
	}
	return &registry.Tenant{
		ID: registry.TenantID(name), DisplayName: name, IsolationStrategy: "schema", SchemaName: "tenant_" + name,
		Route: &registry.Route{
			Status: registry.StatusActive, Isolation: o.world.o.level(), Server: o.world.servers[o.world.home[t]].name, Database: "docex",
			Role: roleOf(name), SecretGeneration: 1, Version: int64(o.version[t]),
			Limits: registry.Limits{MaxServerConnections: o.world.limits[t]},
		},
	}, nil
}

func roleOf(name string) string { return "tenant_" + name }

// change is an update of a tenant's row: those proxies that listen hear of it.
func (o *office) change(t int32) {
	w := o.world
	o.version[t]++
	o.changed[t] = w.now
	w.tally.changes++
	name := tenantName(t)
	for _, p := range w.proxies {
		if p.alive && p.hearing {
			w.do(roundTrip, func() { p.hear(t, name) })
		}
	}
}

// heard is when a change had to have reached a proxy that listens.
const heard = moment(roundTrip / tick)

// reader is the registry.Source of a proxy.
type reader struct{ proxy *proxy }

// Tenant implements registry.Source.
func (r reader) Tenant(_ context.Context, id registry.TenantID) (*registry.Tenant, error) {
	q := r.proxy.ask(string(id))
	return q.tenant, q.err
}

// TenantBySchema implements registry.Source. No session names its tenant so.
func (r reader) TenantBySchema(context.Context, string) (*registry.Tenant, error) {
	return nil, registry.ErrNotFound
}

// Login implements registry.Source.
func (r reader) Login(_ context.Context, name string) (*registry.Login, error) {
	q := r.proxy.ask("login/" + name)
	return &registry.Login{Name: name, AllTenants: true}, q.err
}

// query is one read of the registry.
type query struct {
	entry
	proxy    *proxy
	name     string
	tenant   *registry.Tenant
	err      error
	begun    bool
	answered bool
	done     chan struct{}
}

// ask reads a row. It is called by the cache, in a goroutine of its own.
func (p *proxy) ask(name string) *query {
	q := &query{proxy: p, name: name, done: make(chan struct{})}
	q.what = q
	p.world.desk.hand(news{kind: ofQuery, proxy: p.serial, name: name, tell: q.arrive})
	<-q.done
	return q
}

// arrive queues for one of the proxy's connections to the registry.
func (q *query) arrive() {
	w := q.proxy.world
	w.tally.queries++
	if q.proxy.reading < readConnections {
		q.begin()
		return
	}
	q.proxy.toRead = append(q.proxy.toRead, q)
	w.do(readPatience-tick, func() { // a tick before the cache would give up
		if !q.begun {
			q.begun, q.err = true, context.DeadlineExceeded
			w.tally.late++
			w.wake(q.done)
		}
	})
}

func (q *query) begin() {
	w := q.proxy.world
	q.begun = true
	q.proxy.reading++
	if !strings.HasPrefix(q.name, "login/") {
		q.tenant, q.err = w.office.row(q.name) // what changes from now on, until the answer is there, is not in it
	}
	w.at(momentAfter(w.office.cores.work(w.elapsed(), queryTime)+roundTrip), &q.entry)
}

func (q *query) happen() {
	p := q.proxy
	p.world.wake(q.done)
	p.reading--
	for len(p.toRead) > 0 && p.reading < readConnections {
		next := p.toRead[0]
		p.toRead = p.toRead[1:]
		if !next.begun {
			next.begin()
		}
	}
}

// beat is a proxy's entry among its peers, and their book for it.
type beat struct {
	proxy *proxy
	seen  time.Time
}

// Beat does what docex_system.proxy_beat does.
func (p *proxy) Beat(_ context.Context, token, address string) ([]*registry.Peer, error) {
	o := p.world.office
	p.world.desk.mu.Lock() // any: proxies beat at different times
	defer p.world.desk.mu.Unlock()
	now := time.Now()
	o.beats[token] = &beat{proxy: p, seen: now}
	var live []*registry.Peer
	for _, b := range o.beats {
		if now.Sub(b.seen) < deafness {
			live = append(live, &registry.Peer{Number: b.proxy.number + 1, Address: b.proxy.address(), Own: b.proxy == p})
		}
	}
	return live, nil
}

// Leave does what docex_system.proxy_leave does. A proxy that was killed does not.
func (p *proxy) Leave(_ context.Context, token string) error {
	p.world.desk.mu.Lock()
	defer p.world.desk.mu.Unlock()
	if !p.killed {
		delete(p.world.office.beats, token)
	}
	return nil
}
