package pool

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Set is all server connections of the process. Its methods may be called at the same time.
type Set struct {
	servers map[string]*server // not modified after New
	logger  *slog.Logger
	unknown complaint // about servers that are not configured
	paused  pauses
	waiters sync.Pool      // of *waiter
	work    sync.WaitGroup // dials, closings and the reaper
	end     context.CancelCauseFunc
}

// New returns a Set without any connection yet. Every Set has to be closed.
func New(o Options) (*Set, error) {
	o = o.withDefaults()
	// The Set's own lifetime: a dial outlives the Acquire that asked for it, and Close ends it.
	life, end := context.WithCancelCause(context.Background())
	set := &Set{servers: make(map[string]*server, len(o.Servers)), logger: o.Logger, end: end}
	set.waiters.New = func() any { return newWaiter() }
	alarm := make(chan struct{}, 1)
	for name, config := range o.Servers {
		s, err := newServer(name, config, &o)
		if err != nil {
			end(ErrClosed)
			return nil, err
		}
		s.life, s.alarm, s.waiters, s.work = life, alarm, &set.waiters, &set.work
		set.servers[name] = s
	}
	r := reaper{set: set, alarm: alarm, idleTimeout: o.IdleTimeout, period: sweepPeriod(o)}
	set.work.Go(func() { r.run(life) })
	return set, nil
}

func newServer(name string, config Server, o *Options) (*server, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("pool: server %q: %w", name, err)
	}
	d, err := newDialer(name, config, *o)
	if err != nil {
		return nil, fmt.Errorf("pool: server %q: %w", name, err)
	}
	return &server{
		name:    name,
		max:     config.MaxConnections,
		quantum: o.Quantum,
		grace:   min(usualReconnect, o.Quantum),
		options: o,
		dialer:  d,
		metrics: o.Metrics,
		logger:  o.Logger,
		targets: make(map[Target]*targetPool),
		tenants: make(map[string]*targetPool),
		groups:  make(map[groupKey]*group),
		vacant:  make(chan struct{}),
	}, nil
}

// Acquire leases a connection of the target: an idle one, else a new one, else it waits in turn. The limit is the
// most connections that the target may have; 0 leaves it to the server's bound. The context bounds the wait only.
//
// Errors: *QueueError when the context ends first, *ConnectError when the connection waited for could not be opened,
// ErrClosed.
func (s *Set) Acquire(ctx context.Context, t Target, limit int) (*Conn, error) {
	server, err := s.serverOf(t)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, &QueueError{Err: context.Cause(ctx)}
	}
	if err := s.paused.pass(ctx, t.Tenant); err != nil {
		return nil, err
	}
	return server.acquire(ctx, t, limit)
}

func (s *Set) serverOf(t Target) (*server, error) {
	if server, ok := s.servers[t.Server]; ok {
		return server, nil
	}
	if s.unknown.due(time.Now()) {
		s.logger.Warn("a tenant is on a server that is not configured", "server", t.Server, "tenant", t.Tenant)
	}
	return nil, &ConnectError{Server: t.Server, Err: errUnknownServer}
}

// TryAcquire leases an idle connection of the target, or of one that shares its connections, if there is one at once:
// it neither waits nor opens any. The limit is that of Acquire.
func (s *Set) TryAcquire(t Target, limit int) (*Conn, bool) {
	server, ok := s.servers[t.Server]
	if !ok || s.paused.of(t.Tenant) != nil {
		return nil, false
	}
	return server.tryAcquire(t, limit)
}

// Close turns waiters away with ErrClosed and closes every connection, those that are leased when they are
// released: it returns when all leases have ended and all sockets are closed.
func (s *Set) Close() {
	for _, server := range s.servers {
		server.close()
	}
	s.end(ErrClosed)
	for _, server := range s.servers {
		<-server.vacant
	}
	s.work.Wait()
	for _, server := range s.servers {
		server.closeBoards()
	}
}
