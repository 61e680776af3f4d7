package proxy

import (
	"cmp"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/peers"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// times are how long things may take in a session; 0 is for ever.
type times struct{ queueWait, query, transaction, idleTransaction, clientIdle time.Duration }

func (o *Options) times() times {
	return times{o.QueueWait, o.Query, o.Transaction, o.IdleTransaction, o.ClientIdle}
}

// times are the tenant's own, else the Options', at this moment: the registry may change them.
func (s *session) times() times {
	return s.o.times().of(s.limits())
}

func (t times) of(l *registry.Limits) times {
	own := func(limit registry.Duration, usual time.Duration) time.Duration {
		return cmp.Or(time.Duration(limit), usual)
	}
	return times{
		queueWait: own(l.QueueWait, t.queueWait), query: own(l.Query, t.query), transaction: own(l.Transaction, t.transaction),
		idleTransaction: own(l.IdleTransaction, t.idleTransaction), clientIdle: own(l.ClientIdle, t.clientIdle),
	}
}

func (s *session) limits() *registry.Limits { return &s.route.Load().Tenant.Route.Limits }

// portion is this proxy's part of a limit, at least 1; 0 is no limit.
func (s *Server) portion(limit int) int { return peers.Portion(limit, s.sharers()) }

// sharers is how many proxies the limits of a tenant are divided among.
func (s *Server) sharers() int {
	if !s.o.ShareLimits {
		return 1
	}
	return s.o.Fleet.Live()
}

// rates holds tenants to their rates of transactions. The zero value is ready.
type rates struct {
	mu       sync.Mutex
	limiters map[registry.TenantID]*rate.Limiter // of tenants with sessions and a rate
}

// of is what a tenant's next transaction has to pass; nil for one that has no rate. A second's worth may be saved up.
// sharers is how many proxies share the rate.
func (r *rates) of(route *router.Route, sharers int) *rate.Limiter {
	limit := rate.Limit(route.Tenant.Route.Limits.Rate / float64(sharers))
	if limit == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	limiter := r.limiters[route.Tenant.ID]
	if limiter == nil || limiter.Limit() != limit {
		limiter = rate.NewLimiter(limit, max(1, int(limit)))
		if r.limiters == nil {
			r.limiters = make(map[registry.TenantID]*rate.Limiter)
		}
		r.limiters[route.Tenant.ID] = limiter
	}
	return limiter
}

// forget is called when a tenant has no session any more.
func (r *rates) forget(id registry.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.limiters, id)
}

// paced waits until the tenant's rate allows one more transaction.
func (s *session) paced(ctx context.Context) error {
	route := s.route.Load()
	limiter := s.server.rates.of(route, s.server.sharers())
	if limiter == nil {
		return nil
	}
	began := time.Now()
	if limiter.Wait(ctx) != nil {
		return &pool.QueueError{Waited: time.Since(began), Err: &rateError{route.Tenant.Route.Limits.Rate, context.Cause(ctx)}}
	}
	return nil
}

// rateError says that the wait was for the tenant's rate.
type rateError struct {
	rate  float64 // transactions a second
	cause error
}

func (e *rateError) Error() string { return "rate of transactions used up: " + e.cause.Error() }

func (e *rateError) Unwrap() error { return e.cause }
