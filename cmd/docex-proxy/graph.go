package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/internal/buildinfo"
	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/metrics/traces"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy"
	"github.com/docex-proxy/docex-proxy/proxy/peers"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// graph is all parts of one proxy, connected. Whoever made it runs it once, which closes it, or closes it.
type graph struct {
	registryDSN string
	logger      *slog.Logger

	instruments *prometheus.Registry
	metrics     *metrics.Metrics
	traces      *traces.Tracer
	store       *registry.Store
	cache       *registry.Cache
	pools       *pool.Set
	fleet       *peers.Fleet
	proxy       *proxy.Server
	console     *console

	takeover  *takeover                       // nil: nobody takes over
	retired   atomic.Bool                     // another process has
	load      func() (*configs.Config, error) // reads the configuration again; nil: there is no file
	reloading sync.Mutex                      // one at a time
	config    atomic.Pointer[configs.Config]  // that holds

	began           time.Time
	registryReached atomic.Bool
	reached         chan struct{} // closed when registryReached turns true
}

// newGraph makes the parts in the order of the data path. It opens no connection.
func newGraph(ctx context.Context, config *configs.Config, p prepared, takeover *takeover, logger *slog.Logger) (*graph, error) {
	g := &graph{registryDSN: p.registryDSN, logger: logger, takeover: takeover, instruments: newInstruments(), began: time.Now(), reached: make(chan struct{})}
	g.config.Store(config)
	g.metrics = metrics.New(g.instruments, metrics.Options{MaxTenants: config.Metrics.MaxTenants})

	// The store's pool is ended by close, not by the signal: sessions that drain may still ask.
	store, err := registry.OpenStore(context.WithoutCancel(ctx), p.registryDSN)
	if err != nil {
		return nil, err
	}
	g.store = store
	g.cache = buildCache(config.Registry, g)
	g.fleet = peers.New(peers.Options{Book: store, Address: config.Peers.Address, Logger: g.logger})
	g.pools, err = buildPools(config, p, g)
	if err != nil {
		store.Close()
		return nil, err
	}
	g.metrics.WatchPools(g.poolStats)
	g.traces, err = buildTraces(ctx, config.Traces, p, logger)
	if err != nil {
		g.pools.Close()
		store.Close()
		return nil, err
	}
	g.proxy = buildProxy(config, p, g)
	return g, nil
}

// checkGraph makes everything that serve would make, and lets it go.
func checkGraph(ctx context.Context, config *configs.Config) error {
	p, err := prepare(config)
	if err != nil {
		return err
	}
	g, err := newGraph(ctx, config, p, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	g.close()
	return nil
}

func newInstruments() *prometheus.Registry {
	instruments := prometheus.NewRegistry()
	instruments.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return instruments
}

func buildCache(config configs.Registry, g *graph) *registry.Cache {
	maxStale := config.MaxStale
	if maxStale == 0 {
		maxStale = -1 // never, in the cache's words
	}
	return registry.NewCache(g.store, registry.CacheOptions{
		Size:        config.CacheSize,
		TTL:         config.TTL,
		NegativeTTL: config.NegativeTTL,
		MaxStale:    maxStale,
		Metrics:     g.metrics,
		Logger:      g.logger,
	})
}

func buildPools(config *configs.Config, p prepared, g *graph) (*pool.Set, error) {
	return pool.New(pool.Options{
		Servers:        p.servers,
		Password:       p.passwords,
		ConnectTimeout: config.Timeouts.Connect,
		IdleTimeout:    config.Pool.IdleTimeout,
		Lifetime:       config.Pool.Lifetime,
		TenantsSeen:    config.Pool.TenantsSeen,
		Quantum:        config.Pool.Quantum,
		Metrics:        g.metrics,
		Logger:         g.logger,
	})
}

// buildTraces makes the tracer, nil when there is nobody to send traces to.
func buildTraces(ctx context.Context, config configs.Traces, p prepared, logger *slog.Logger) (*traces.Tracer, error) {
	if config.Endpoint == "" {
		return nil, nil
	}
	return traces.New(ctx, traces.Options{
		Endpoint: config.Endpoint, Sample: config.Sample, TLS: p.traces, Version: buildinfo.Version(), Logger: logger,
	})
}

func buildProxy(config *configs.Config, p prepared, g *graph) *proxy.Server {
	routes := router.New(router.Options{
		Registry:           g.cache,
		UserSuffix:         config.Identity.UserSuffix,
		SNIDomain:          config.Identity.SNIDomain,
		Database:           config.Identity.Database,
		RequireUserContext: config.Auth.RequireUserContext,
		TenantConnections:  config.Limits.TenantServerConnections,
		AllowTrusted:       config.Auth.AllowTrusted,
		PoolRole:           poolRole,
		Replicas:           p.replicas,
	})
	g.console = &console{graph: g, routes: routes, known: p.servers, replicas: p.replicas}
	return proxy.New(proxy.Options{
		Router:                routes,
		Console:               g.console.build(),
		Logins:                g.cache,
		Policy:                policyOf(config),
		Pool:                  g.pools,
		Changed:               g.changed,
		Metrics:               g.metrics,
		Traces:                g.traces,
		Logger:                g.logger,
		Reactors:              p.reactors,
		Ring:                  p.ring,
		TLS:                   p.tls,
		TLSRequired:           config.TLS.Required,
		StartupTimeout:        config.Timeouts.Startup,
		AuthenticationTimeout: config.Timeouts.Authentication,
		QueueWait:             config.Timeouts.QueueWait,
		FrameTimeout:          config.Timeouts.Frame,
		Query:                 config.Timeouts.Query,
		Transaction:           config.Timeouts.Transaction,
		ClientIdle:            config.Timeouts.ClientIdle,
		IdleTransaction:       config.Timeouts.IdleTransaction,
		ClientWrite:           config.Timeouts.ClientWrite,
		Drain:                 config.Timeouts.Drain,
		Outstay:               config.Timeouts.Upgrade,
		Forward:               g.takeover.forward(),
		Fleet:                 g.fleet,
		ShareLimits:           config.Peers.ShareLimits,
		Recheck:               config.Registry.TTL, // before that the cache would only repeat itself
		LoginFailures:         config.Limits.LoginFailures,
		MaxStatementBytes:     config.Limits.MaxStatementBytes,
		MaxStatements:         config.Limits.ClientStatements,
		ServerStatements:      config.Pool.PreparedStatements,
	})
}

// run serves until ctx ends, or until a part of it cannot go on, and closes the graph. What sessions need, and the
// endpoint that watches them, ends after the last session. The status listener may be nil. ready is called when
// clients are accepted.
func (g *graph) run(ctx context.Context, clients, status net.Listener, ready func()) error {
	defer g.close()
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	shutdown := func() { stopServing() }
	g.console.shutdown.Store(&shutdown)
	beside, stopBeside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBeside()
	var group errgroup.Group
	group.Go(func() error {
		defer stopServing()
		return g.listenToRegistry(beside)
	})
	group.Go(func() error {
		g.recoverSlots(beside)
		return nil
	})
	if g.config.Load().Peers.Address != "" {
		group.Go(func() error {
			g.fleet.Run(beside)
			return nil
		})
		select {
		case <-g.fleet.Tried():
		case <-ctx.Done():
		}
	}
	told, stopTelling := hangups()
	defer stopTelling()
	group.Go(func() error {
		g.reloadOnHangup(beside, told)
		return nil
	})
	err := g.takeover.ready(ctx, g.reached)
	if err == nil {
		watched, stopWatched := context.WithCancel(beside)
		defer stopWatched()
		group.Go(func() error {
			err := g.watch(watched, serving, status)
			if err != nil {
				stopServing()
			}
			return err
		})
		group.Go(func() error {
			g.takeover.await(beside, g, func() { g.retire(stopWatched) })
			return nil
		})
		stopping := context.AfterFunc(serving, g.endService)
		defer stopping()
		systemd("READY=1\nMAINPID=" + strconv.Itoa(os.Getpid()))
		ready() // the listeners are open: the kernel takes connections in
		err = g.proxy.Serve(serving, clients)
	}
	stopBeside()
	return errors.Join(err, group.Wait())
}

// watch serves the endpoint for those who watch the proxy, until ctx ends. There may be none.
func (g *graph) watch(ctx, serving context.Context, status net.Listener) error {
	if status == nil {
		return nil
	}
	return serveHTTP(ctx, status, g.endpoint(serving, status.Addr()))
}

// retire leaves new clients, and those who watch, to the process that has taken over. Server connections that wait for a
// session go: there are two processes now that want some.
func (g *graph) retire(stopWatched func()) {
	g.retired.Store(true)
	stopWatched()
	g.proxy.Retire()
	g.pools.Drain("")
}

// endService lets go of the listeners, of which there are copies for the next process: a client would wait at them for
// ever. It tells the service manager that the service stops, unless another process has taken it over.
func (g *graph) endService() {
	g.takeover.stop()
	if !g.retired.Load() {
		systemd("STOPPING=1")
	}
}

func (g *graph) listenToRegistry(ctx context.Context) error {
	return registry.Listen(ctx, registry.ListenOptions{
		DSN:       g.registryDSN,
		OnChange:  g.registryChanged,
		OnConnect: g.registryConnected,
		Metrics:   g.metrics,
		Logger:    g.logger,
	})
}

// registryChanged makes every part forget what has changed: the cache first, or the others would only learn the old
// again. Connections that were opened for what the tenant was are closed, idle ones now.
func (g *graph) registryChanged(payload string) {
	g.cache.Forget(payload)
	tenant := payload
	if payload == "*" {
		tenant = "" // all
	}
	drain := func() { g.pools.Drain(tenant) }
	g.proxy.RegistryChanged(payload, drain) // once more: a session that does not know yet opens another
	drain()
}

// changed asks the store itself whether a tenant's route is another one than the cache knows. The cache forgets only then: a
// server that refuses a role for good costs no one else's entries, and a registry that is down none at all.
func (g *graph) changed(ctx context.Context, id registry.TenantID, known *registry.Route) bool {
	tenant, err := g.store.Tenant(ctx, id)
	if err != nil || tenant.Route == nil || tenant.Route.LeadsAs(known) {
		return false
	}
	g.cache.Forget(string(id))
	return true
}

// registryConnected takes everything for changed, because changes may have been missed, and the registry's own server for
// another one, because what is read has to be as new as what is heard. Connections of tenants stay: one that has changed
// gets another target with its next session.
func (g *graph) registryConnected() {
	if g.registryReached.CompareAndSwap(false, true) {
		close(g.reached)
	}
	g.store.Reconnect()
	g.cache.ForgetAll()
	g.proxy.RegistryChanged("*", nil)
}

// recoverSlots takes back what a proxy that was killed has left in the middle of a switch.
func (g *graph) recoverSlots(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-g.reached:
	}
	databases, err := g.store.SlotDatabases(ctx)
	if err != nil {
		g.logger.Warn("the slots were not looked at: each is when it is first used", "error", err)
	}
	for _, d := range databases {
		if err := g.pools.Recover(ctx, d.Server, d.Name); err != nil && ctx.Err() == nil {
			g.logger.Warn("the slots of a database were not looked at: each is when it is first used", "database", d.Name, "error", err)
		}
	}
}

// ready says why a balancer should send no clients here. A registry that is lost later is no reason: known tenants
// are served meanwhile.
func (g *graph) ready(serving context.Context) error {
	switch {
	case serving.Err() != nil:
		return errors.New("shutting down")
	case !g.registryReached.Load():
		return errors.New("the registry has not been reached yet")
	}
	return nil
}

func (g *graph) poolStats() []metrics.PoolStat {
	stats := g.pools.Stats()
	converted := make([]metrics.PoolStat, len(stats))
	for i, stat := range stats {
		converted[i] = metrics.PoolStat{Tenant: stat.Target.Tenant, Server: stat.Target.Server,
			Idle: stat.Idle, Active: stat.Active, Connecting: stat.Connecting, Waiting: stat.Waiting}
	}
	return converted
}

// lastTraces is how long the collector gets to take the traces that are left at the end.
const lastTraces = 5 * time.Second

// close ends what newGraph made, in the opposite order. No session is left by then.
func (g *graph) close() {
	patience, stop := context.WithTimeout(context.Background(), lastTraces)
	defer stop()
	if err := g.traces.Close(patience); err != nil {
		g.logger.Warn("the last traces were not sent", "error", err)
	}
	g.pools.Close()
	g.store.Close()
}
