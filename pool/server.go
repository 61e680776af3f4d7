package pool

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/pool/slots"
)

// alwaysFresh is for how long an idle connection is leased again without a look whether it is alive.
const alwaysFresh = 100 * time.Millisecond

// mostLost is how many slots' sessions may end in the moment of a switch before the client hears of it. Whoever moves a tenant
// to another server ends those that were its.
const mostLost = 3

// server keeps the books of one Postgres server. It does no I/O under its mutex: sockets are opened and closed by
// goroutines that the Set waits for.
type server struct {
	name    string
	max     int // slots
	quantum time.Duration
	options *Options
	dialer  *dialer
	metrics *metrics.Metrics
	logger  *slog.Logger
	waiters *sync.Pool      // the Set's
	work    *sync.WaitGroup // the Set's
	life    context.Context // ends, with ErrClosed, when the Set is closed: dials outlive the Acquire that asked
	alarm   chan<- struct{} // tells the reaper to look at wake

	mu      sync.Mutex
	closed  bool
	grace   time.Duration // an idle connection may be given up after it
	used    int           // slots taken
	live    int           // targets that hold or want connections
	targets map[Target]*targetPool
	tenants map[string]*targetPool // the newest target of each; the others follow it
	spare   []*targetPool          // of no target, for the next that come
	groups  map[groupKey]*group
	idle    list[*Conn]     // least recently used first
	empty   list[*claimant] // want a connection and have none, longest first
	holding list[*claimant] // want one more
	doubted time.Time       // connections that turned idle before it are checked before they are leased
	wake    time.Time       // when dispatch wants to run again; zero = not
	vacant  chan struct{}   // closed when the server is closed and no slot is taken
	home    Host            // where the last connection was opened to
	boards  boards
}

// acquire leases a connection: an idle one of the target or its group at once, else whichever the queue brings.
func (s *server) acquire(ctx context.Context, t Target, limit int) (*Conn, error) {
	began := time.Now()
	for lost := 0; ; {
		c, w := s.claim(t, limit, began)
		var waited time.Duration
		switch {
		case w != nil:
			var err error
			if c, err = s.wait(ctx, w); err != nil {
				return nil, err
			}
			waited = time.Since(began)
		case c == nil:
			return nil, ErrClosed
		}
		if !c.usable() {
			c.Destroy()
			continue
		}
		if err := c.serve(ctx, t); err != nil {
			c.Destroy()
			if lost++; lost <= mostLost && errors.Is(err, slots.ErrLost) && ctx.Err() == nil {
				continue
			}
			return nil, err
		}
		if t.Slot && ctx.Err() != nil { // meanwhile
			c.Release()
			return nil, &QueueError{Waited: time.Since(began), Err: context.Cause(ctx)}
		}
		s.metrics.AcquireWaited(t.Tenant, waited)
		return c, nil
	}
}

// tryAcquire is acquire as far as it goes without waiting.
func (s *server) tryAcquire(t Target, limit int) (*Conn, bool) {
	for {
		c := s.claimIdle(t, limit, time.Now())
		switch {
		case c == nil:
			return nil, false
		case c.usable():
			s.metrics.AcquireWaited(t.Tenant, 0)
			return c, true
		}
		c.Destroy()
	}
}

// claim returns a leased connection, or a place in the queue, or neither when the server is closed.
func (s *server) claim(t Target, limit int, now time.Time) (*Conn, *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	p := s.pool(t)
	p.limit = limit
	if c := s.lease(p, now); c != nil {
		return c, nil
	}
	w := s.waiters.Get().(*waiter)
	s.enqueue(p, w, now)
	return nil, w
}

// claimIdle returns a leased connection when there is an idle one. It leaves a queue of the target as it is.
func (s *server) claimIdle(t Target, limit int, now time.Time) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.targets[t]
	switch {
	case s.closed, p != nil && p.waiters.size > 0:
		return nil
	case p == nil && !s.sharesIdle(t):
		return nil
	case p == nil:
		p = s.pool(t)
	}
	p.limit = limit
	if t.Slot && p.idle == 0 {
		return nil
	}
	c := s.lease(p, now)
	if c != nil && t.Slot && c.serves != t {
		s.place(c, now) // it has not been switched yet
		c = nil
	}
	s.settle(p) // it may be new and have got nothing
	return c
}

// lease takes the target's idle connection that was used last, else one that it shares; nil when there is none.
func (s *server) lease(p *targetPool, now time.Time) *Conn {
	var c *Conn
	switch {
	case p.idle > 0:
		c = p.take(s.life).Value()
		s.unlist(c)
		s.doubt(c, now)
	case p.group == nil || p.waiters.size > 0 || p.full():
		return nil
	default:
		if c = s.borrow(p, now); c == nil {
			return nil
		}
		s.settle(p)
	}
	c.leased.Store(true)
	return c
}

// doubt notes whether a connection that was idle has to be checked before it is used.
func (s *server) doubt(c *Conn, now time.Time) {
	c.doubtful = c.doubtful || now.Sub(c.idleSince) > alwaysFresh || c.idleSince.Before(s.doubted)
}

// release ends a lease for good or passes the connection on.
func (s *server) release(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if c.turned == hostTurned {
		s.expel(func(other *Conn) bool { return other.host == c.host })
	}
	if s.unfit(c, now) {
		s.retire(c, nil)
		return
	}
	if s.wantedByOthers(c.pool.claimant()) {
		if heir := s.heir(c, now); heir != nil {
			s.retire(c, heir)
			return
		}
	}
	if heir := s.sharer(c); heir != nil {
		s.pass(c, heir)
		return
	}
	s.place(c, now)
}

// discard ends the lease of a connection that is no good. What broke it may have broken others.
func (s *server) discard(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubted = time.Now()
	s.retire(c, nil)
}

// unfit reports whether nobody shall lease the connection again.
func (s *server) unfit(c *Conn, now time.Time) bool {
	p := c.pool
	return s.closed || c.epoch != p.epoch || now.After(c.expiry) || c.turned != notTurned || s.strays(c) ||
		s.options.TenantsSeen > 0 && len(c.seen) >= s.options.TenantsSeen || p.limit > 0 && p.size > p.limit
}

// place gives a connection that nobody leases to its target's first waiter, else to one of its group, else makes it
// idle.
func (s *server) place(c *Conn, now time.Time) {
	p := c.pool
	if p.waiters.size > 0 {
		p.grant(c)
		return
	}
	if p.group != nil {
		if heir := p.group.next(); heir != nil {
			s.pass(c, heir)
			return
		}
		p.group.idle.pushBack(&c.inGroup)
	}
	c.idleSince = now
	c.resource.ReleaseUnused()
	p.idle++
	s.idle.pushBack(&c.place)
	s.dispatch(now)
}

// unpark takes an idle connection out of circulation, in the state of a leased one.
func (s *server) unpark(c *Conn) {
	s.unlist(c)
	c.pool.pick(s.life, c)
}

func (s *server) unlist(c *Conn) {
	c.place.leave()
	c.inGroup.leave()
	c.pool.idle--
}

// retire closes a connection in the state of a leased one. Its slot passes to the heir at once, or is free after the
// socket is closed.
func (s *server) retire(c *Conn, heir *targetPool) {
	c.resource.Hijack()
	p := c.pool
	p.size--
	p.closing++
	if c.epoch != p.epoch {
		p.drained--
	}
	if heir != nil {
		heir.size++
		heir.connecting++
		heir.claimant().grewAt = time.Now()
		s.settle(heir)
	}
	s.settle(p)
	s.work.Go(func() { s.bury(c, heir) })
}

func (s *server) bury(c *Conn, heir *targetPool) {
	c.close()
	epoch := s.buried(c, heir)
	if heir != nil {
		s.connect(heir, epoch)
	}
}

// buried books that the socket is closed, and returns the heir's epoch.
func (s *server) buried(c *Conn, heir *targetPool) (epoch int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, group := time.Now(), c.pool.group
	c.pool.closing--
	if heir != nil {
		epoch = heir.epoch
	} else {
		s.free()
	}
	s.settle(c.pool)
	s.serve(group, now)
	s.dispatch(now)
	return epoch
}

func (s *server) free() {
	s.used--
	if s.closed && s.used == 0 {
		close(s.vacant)
	}
}

// open takes a free slot for a target and fills it.
func (s *server) open(p *targetPool) {
	s.used++
	p.size++
	p.connecting++
	s.settle(p)
	epoch := p.epoch
	s.work.Go(func() { s.connect(p, epoch) })
}

// connect fills a slot of the target. Whoever waited for it may be gone by then; the connection stays all the same.
func (s *server) connect(p *targetPool, epoch int) {
	began := time.Now()
	dialed, seat, err := s.dial(p.target)
	took := time.Since(began)
	s.metrics.ServerConnected(s.name, took, err)
	if err != nil {
		s.failed(p, epoch, err)
		return
	}
	c := newConn(dialed, p, epoch, s.options)
	c.seat = seat
	if s.connected(c, took) {
		s.logger.Info("a server is on another host now", "server", s.name, "host", c.host.String())
		s.boards.moved()
	}
}

// connected books a new connection, and reports whether the server has moved to another host with it.
func (s *server) connected(c *Conn, took time.Duration) (moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learn(took)
	now := time.Now()
	p := c.pool
	p.connecting--
	p.adopt(s.life, c)
	moved = s.arrived(c)
	if s.unfit(c, now) {
		s.retire(c, nil)
		return moved
	}
	s.settle(p)
	s.place(c, now)
	return moved
}

// arrived notes where a new connection leads. Where only one host at a time can be the right one, those to another are of
// no use any more, even if that one has only fallen silent: what is wanted was there no longer, or nobody would have looked
// elsewhere.
func (s *server) arrived(c *Conn) (moved bool) {
	moved = s.dialer.wants.single() && s.home != c.host && s.home != Host{}
	s.home = c.host
	if moved {
		s.expel(s.strays)
	}
	return moved
}

// strays reports whether a connection leads to a host that another has taken the place of.
func (s *server) strays(c *Conn) bool { return s.dialer.wants.single() && c.host != s.home }

// failed gives the slot back. The error goes to the target's first waiter, unless the connections that are still
// being opened are enough for all of them.
func (s *server) failed(p *targetPool, epoch int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, group := time.Now(), p.group
	p.connecting--
	p.size--
	if epoch != p.epoch {
		p.drained--
	}
	s.free()
	if p.uncovered() {
		p.fail(&ConnectError{Server: s.name, Err: err})
	}
	s.settle(p)
	s.serve(group, now)
	s.dispatch(now)
}

// wakeAt has the reaper run dispatch at the given time, or before it.
func (s *server) wakeAt(at time.Time) {
	if !s.wake.IsZero() && !at.Before(s.wake) {
		return
	}
	s.wake = at
	select {
	case s.alarm <- struct{}{}:
	default: // it has been told already and not looked yet
	}
}

// expel closes idle connections.
func (s *server) expel(match func(*Conn) bool) {
	for c := range s.idle.all() {
		if match(c) {
			s.unpark(c)
			s.retire(c, nil)
		}
	}
}

// close turns every waiter away and closes the idle connections; the leased ones follow when they are released.
func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, p := range s.targets {
		for p.waiters.size > 0 {
			p.fail(ErrClosed)
		}
	}
	s.expel(func(*Conn) bool { return true })
	for _, p := range s.spare {
		p.connections.Close()
	}
	s.spare = nil
	if s.used == 0 {
		close(s.vacant)
	}
}
