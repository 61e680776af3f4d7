package registry

import (
	"context"
	"errors"
	"time"
)

// load asks the source and ends the flight. It runs in a goroutine of its own, which outlives the session that
// started it (others may be waiting) but not LoadTimeout, as far as the source heeds its context.
func (c *Cache) load(ctx context.Context, k key, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, c.options.LoadTimeout)
	defer cancel()
	asked := c.options.Now() // an entry is as old as the question, not as the answer
	value, err := c.ask(ctx, k)
	c.land(k, f, value, err, asked)
}

func (c *Cache) ask(ctx context.Context, k key) (any, error) {
	switch k.kind {
	case kindTenant:
		return c.source.Tenant(ctx, TenantID(k.name))
	case kindSchema:
		return c.source.TenantBySchema(ctx, k.name)
	default:
		return c.source.Login(ctx, k.name)
	}
}

// land gives the flight its result and, when nobody has forgotten the key meanwhile, stores it.
func (c *Cache) land(k key, f *flight, value any, err error, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	current := c.flights[k] == f
	if current {
		delete(c.flights, k)
	}
	switch {
	case err == nil:
		f.value, f.outcome = value, outcomeMiss
		if current {
			c.shelf.putKnown(k, entry{value: value, loadedAt: asked})
		}
	case errors.Is(err, ErrNotFound):
		f.outcome, f.err = outcomeNotFound, ErrNotFound
		if current {
			c.shelf.putAbsent(k, asked)
		}
	default:
		err = unavailable(err)
		now := c.options.Now()
		if current {
			c.shelf.failed.Add(k, failure{at: now, err: err})
		}
		f.value, f.outcome, f.err = c.fallback(k, now, err)
	}
	c.report(err)
}

// report logs when the source becomes unavailable and when it is back, not every lookup between. Called with
// mu held.
func (c *Cache) report(err error) {
	_, failed := errors.AsType[*UnavailableError](err)
	if failed == c.down {
		return
	}
	c.down = failed
	if failed {
		c.options.Logger.Warn("registry is unavailable; known tenants are served from the cache", "error", err)
	} else {
		c.options.Logger.Info("registry is available again")
	}
}
