package pool

import (
	"context"
	"time"
)

// longestPeriod bounds how late an idle timeout or a lifetime is noticed.
const longestPeriod = 30 * time.Second

// reaper runs everything that happens by the clock: idle timeouts, lifetimes of idle connections, and the moments
// at which an idle connection may be given up to another target.
type reaper struct {
	set         *Set
	alarm       <-chan struct{} // a server's wake was brought forward
	idleTimeout time.Duration
	period      time.Duration // between sweeps
}

func sweepPeriod(o Options) time.Duration {
	return max(time.Millisecond, min(longestPeriod, o.IdleTimeout/4, o.Lifetime/4))
}

func (r *reaper) run(ctx context.Context) {
	sweep := time.Now().Add(r.period)
	timer := time.NewTimer(r.period)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.alarm:
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(sweep) {
			sweep = now.Add(r.period)
			r.sweep(now)
		}
		timer.Reset(r.ring(now, sweep).Sub(now))
	}
}

func (r *reaper) sweep(now time.Time) {
	for _, s := range r.set.servers {
		s.mu.Lock()
		s.expel(func(c *Conn) bool { return now.Sub(c.idleSince) >= r.idleTimeout || now.After(c.expiry) })
		s.mu.Unlock()
	}
}

// ring runs the dispatches that are due and returns when to look again, at the given time at the latest.
func (r *reaper) ring(now, latest time.Time) time.Time {
	for _, s := range r.set.servers {
		s.mu.Lock()
		if !s.wake.IsZero() && !now.Before(s.wake) {
			s.wake = time.Time{}
			s.dispatch(now)
		}
		if !s.wake.IsZero() && s.wake.Before(latest) {
			latest = s.wake
		}
		s.mu.Unlock()
	}
	return latest
}
