package registry

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/docex-proxy/docex-proxy/metrics"
)

const (
	// A name that was unknown a moment ago may have been created since, and its creator may be waiting to use
	// it. Asking again is bounded, over all names, so that guessing names costs the registry little.
	recheckAfter     = 100 * time.Millisecond
	rechecksPerSec   = 20
	askAgainInterval = time.Second // between two loads of one name while the registry is unavailable
)

// Source is what a Cache reads through; *Store is one. It returns ErrNotFound for what does not exist; every
// other error means that it is unavailable.
type Source interface {
	Tenant(ctx context.Context, id TenantID) (*Tenant, error)
	TenantBySchema(ctx context.Context, schema string) (*Tenant, error)
	Login(ctx context.Context, name string) (*Login, error)
}

// CacheOptions bound a Cache. The zero value is usable.
type CacheOptions struct {
	Size        int              // most entries that are known to exist, and as many that are known not to; default 10000
	TTL         time.Duration    // how long a known entry is used without asking again; default 1 minute
	NegativeTTL time.Duration    // the same for an entry that does not exist; default 5 seconds
	MaxStale    time.Duration    // how old an entry may be served while the source is unavailable; default 1 hour, negative: never
	LoadTimeout time.Duration    // of one read from the source; default 5 seconds
	Metrics     *metrics.Metrics // nil: not counted
	Logger      *slog.Logger     // nil: silent
	Now         func() time.Time // nil: time.Now
}

func (o CacheOptions) withDefaults() CacheOptions {
	if o.Size <= 0 {
		o.Size = 10_000
	}
	if o.TTL <= 0 {
		o.TTL = time.Minute
	}
	if o.NegativeTTL <= 0 {
		o.NegativeTTL = 5 * time.Second
	}
	if o.MaxStale == 0 {
		o.MaxStale = time.Hour
	}
	if o.LoadTimeout <= 0 {
		o.LoadTimeout = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Cache is a bounded view of a Source for sessions. What it knows it answers without I/O; what it does not know
// it loads, once for all who wait for it. Safe for concurrent use; it needs no closing.
type Cache struct {
	source  Source
	options CacheOptions
	recheck *rate.Limiter

	// mu guards the fields below. It is never held while the source is asked.
	mu      sync.Mutex
	shelf   *shelf
	flights map[key]*flight
	down    bool // the last load failed; only for the log
}

// flight is one load under way. Value, outcome and err are written before done is closed.
//
// A flight may put what it read on the shelf only while flights still holds it: Forget takes it out, so that a
// value read before the change is never stored after it.
type flight struct {
	done    chan struct{}
	value   any
	outcome string
	err     error
}

// NewCache returns an empty cache over source.
func NewCache(source Source, o CacheOptions) *Cache {
	o = o.withDefaults()
	return &Cache{
		source:  source,
		options: o,
		recheck: rate.NewLimiter(rechecksPerSec, rechecksPerSec),
		shelf:   newShelf(o.Size),
		flights: make(map[key]*flight),
	}
}

// Tenant returns the tenant with the id. The error is ErrNotFound, an *UnavailableError, or wraps ctx's.
func (c *Cache) Tenant(ctx context.Context, id TenantID) (*Tenant, error) {
	value, err := c.lookup(ctx, key{kindTenant, string(id)})
	if err != nil {
		return nil, err
	}
	return value.(*Tenant), nil
}

// TenantBySchema returns the tenant whose schema_name is exactly the text, with the errors of Tenant.
func (c *Cache) TenantBySchema(ctx context.Context, schema string) (*Tenant, error) {
	value, err := c.lookup(ctx, key{kindSchema, schema})
	if err != nil {
		return nil, err
	}
	return value.(*Tenant), nil
}

// Login returns the login with the name, with the errors of Tenant.
func (c *Cache) Login(ctx context.Context, name string) (*Login, error) {
	value, err := c.lookup(ctx, key{kindLogin, name})
	if err != nil {
		return nil, err
	}
	return value.(*Login), nil
}

// Forget drops what a notification on Channel says has changed: a tenant's entries and all that is known not to
// exist, or with "login/<name>" that login, or with "*" everything. Loads under way are not stored.
func (c *Cache) Forget(payload string) {
	if payload == everything {
		c.ForgetAll()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if name, ok := strings.CutPrefix(payload, loginPrefix); ok {
		c.shelf.dropLogin(name)
		delete(c.flights, key{kindLogin, name})
		return
	}
	c.shelf.dropTenant(TenantID(payload))
	delete(c.flights, key{kindTenant, payload})
	// Which schema a load under way will find the tenant by is not known yet.
	for k := range c.flights {
		if k.kind == kindSchema {
			delete(c.flights, k)
		}
	}
}

// ForgetAll drops everything, for when notifications may have been missed.
func (c *Cache) ForgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shelf.dropAll()
	clear(c.flights)
}

func (c *Cache) lookup(ctx context.Context, k key) (any, error) {
	if !storable(k.name) {
		c.count(k.kind, outcomeNegative)
		return nil, ErrNotFound
	}
	now := c.options.Now()
	c.mu.Lock()
	value, outcome, err := c.answer(k, now)
	if outcome != "" {
		c.mu.Unlock()
		c.count(k.kind, outcome)
		return value, err
	}
	f := c.flights[k]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[k] = f
		go c.load(context.WithoutCancel(ctx), k, f)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		c.count(k.kind, f.outcome)
		return f.value, f.err
	case <-ctx.Done():
		c.count(k.kind, outcomeError)
		return nil, fmt.Errorf("registry: gave up waiting for %s %q: %w", k.kind, k.name, context.Cause(ctx))
	}
}

// answer says what is known without a load; an empty outcome asks for one. Called with mu held.
func (c *Cache) answer(k key, now time.Time) (value any, outcome string, err error) {
	if e, ok := c.shelf.known.Get(k); ok && now.Sub(e.loadedAt) < c.options.TTL {
		return e.value, outcomeHit, nil
	}
	if c.flights[k] != nil {
		return nil, "", nil
	}
	if since, ok := c.shelf.absent.Get(k); ok && !c.askAgain(now.Sub(since), now) {
		return nil, outcomeNegative, ErrNotFound
	}
	if failed, ok := c.shelf.failed.Get(k); ok && now.Sub(failed.at) < askAgainInterval {
		return c.fallback(k, now, failed.err)
	}
	return nil, "", nil
}

// askAgain reports whether a negative entry of the given age is to be loaded again; it may spend a re-check.
func (c *Cache) askAgain(age time.Duration, now time.Time) bool {
	switch {
	case age < recheckAfter:
		return false
	case age < c.options.NegativeTTL:
		return c.recheck.AllowN(now, 1)
	default:
		return true
	}
}

// fallback is the answer when the source is unavailable because of cause. Called with mu held.
func (c *Cache) fallback(k key, now time.Time, cause error) (value any, outcome string, err error) {
	if e, ok := c.shelf.known.Get(k); ok && now.Sub(e.loadedAt) <= c.options.MaxStale {
		return e.value, outcomeStale, nil
	}
	if since, ok := c.shelf.absent.Get(k); ok && now.Sub(since) < c.options.NegativeTTL {
		return nil, outcomeNegative, ErrNotFound
	}
	return nil, outcomeError, cause
}

func (c *Cache) count(k kind, outcome string) { c.options.Metrics.LookupDone(string(k), outcome) }
