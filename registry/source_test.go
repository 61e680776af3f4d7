package registry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

var errDown = errors.New("connection refused")

// source is a registry in memory that counts what it is asked and can be down or slow.
type source struct {
	mu      sync.Mutex
	tenants map[registry.TenantID]*registry.Tenant
	logins  map[string]*registry.Login
	down    bool
	asked   int

	// While gate is set every question is announced on arrived, and answered with what held when it came, once
	// the gate is closed or the question's context has ended.
	gate    chan struct{}
	arrived chan struct{}
}

func newSource(ids ...registry.TenantID) *source {
	s := &source{
		tenants: make(map[registry.TenantID]*registry.Tenant),
		logins:  make(map[string]*registry.Login),
		arrived: make(chan struct{}, 1000),
	}
	for _, id := range ids {
		s.put(tenantNamed(id))
	}
	return s
}

func (s *source) put(t *registry.Tenant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tenants[t.ID] = t
}

func (s *source) putLogin(l *registry.Login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins[l.Name] = l
}

func (s *source) remove(id registry.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tenants, id)
}

func (s *source) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// shut makes the questions that follow wait until open is called.
func (s *source) shut() (open func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gate = gate
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.gate == gate {
			s.gate = nil
		}
		close(gate)
	}
}

// asks returns how many questions came since the last call.
func (s *source) asks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

func answer[T any](ctx context.Context, s *source, find func() *T) (*T, error) {
	s.mu.Lock()
	s.asked++
	found, down, gate := find(), s.down, s.gate
	s.mu.Unlock()
	if gate != nil {
		s.arrived <- struct{}{}
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	switch {
	case down:
		return nil, errDown
	case found == nil:
		return nil, registry.ErrNotFound
	}
	return found, nil
}

func (s *source) Tenant(ctx context.Context, id registry.TenantID) (*registry.Tenant, error) {
	return answer(ctx, s, func() *registry.Tenant { return s.tenants[id] })
}

func (s *source) TenantBySchema(ctx context.Context, schema string) (*registry.Tenant, error) {
	return answer(ctx, s, func() *registry.Tenant {
		for _, t := range s.tenants {
			if t.SchemaName == schema {
				return t
			}
		}
		return nil
	})
}

func (s *source) Login(ctx context.Context, name string) (*registry.Login, error) {
	return answer(ctx, s, func() *registry.Login { return s.logins[name] })
}

// clock is a time that only tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bench is a cache over a source, with its clock.
type bench struct {
	*testing.T
	source *source
	clock  *clock
	cache  *registry.Cache
}

// newBench uses a TTL of one minute, a negative TTL of five seconds and a MaxStale of one hour.
func newBench(t *testing.T, o registry.CacheOptions, ids ...registry.TenantID) *bench {
	b := &bench{T: t, source: newSource(ids...), clock: newClock()}
	o.TTL, o.NegativeTTL, o.MaxStale, o.Now = time.Minute, 5*time.Second, time.Hour, b.clock.Now
	b.cache = registry.NewCache(b.source, o)
	return b
}

func (b *bench) found(id registry.TenantID) *registry.Tenant {
	b.Helper()
	t, err := b.cache.Tenant(b.Context(), id)
	if err != nil || t.ID != id {
		b.Fatalf("tenant %s: %v, %v", id, t, err)
	}
	return t
}

func (b *bench) absent(id registry.TenantID) {
	b.Helper()
	if t, err := b.cache.Tenant(b.Context(), id); !errors.Is(err, registry.ErrNotFound) || t != nil {
		b.Fatalf("tenant %s: %v, %v, want ErrNotFound", id, t, err)
	}
}

func (b *bench) unavailable(id registry.TenantID) {
	b.Helper()
	t, err := b.cache.Tenant(b.Context(), id)
	if _, ok := errors.AsType[*registry.UnavailableError](err); !ok || t != nil {
		b.Fatalf("tenant %s: %v, %v, want an UnavailableError", id, t, err)
	}
}

func (b *bench) asked(want int) {
	b.Helper()
	if got := b.source.asks(); got != want {
		b.Fatalf("the source was asked %d times, want %d", got, want)
	}
}
