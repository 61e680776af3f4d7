//go:build unix

package main

import (
	"context"
	"errors"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/router"
)

// class is what a tenant is in a scenario.
type class int

const (
	others class = iota
	neighbours
	noisy
	classes
)

// retryPause is the least that a client waits after an error before it tries again.
const retryPause = 100 * time.Millisecond

// session is one client connection: it logs in, has its transactions, with pauses, and leaves.
type session struct {
	entry
	world   *world
	proxy   *proxy
	id      int64
	tenant  int32 // -1: none, the name is a stranger's
	name    string
	class   class
	left    int           // transactions
	think   time.Duration // the mean pause before each; 0: none
	step    step
	greeted bool
	gone    bool

	home    *tenancy
	place   int // in home.sessions
	request *pool.Request
	route   *router.Route // for which a connection was asked, or is leased
	conn    *pool.Conn
	began   moment // its login
	asked   moment // for a server connection
	turn    int    // of asking, so that a timer knows its own
	waiting bool
}

// step is what comes next.
type step int

const (
	toLogIn step = iota
	toBeGreeted
	toAsk
	toFinish
)

func (s *session) happen() {
	if s.gone {
		return
	}
	switch s.step {
	case toLogIn:
		s.logIn()
	case toBeGreeted:
		s.greet()
	case toAsk:
		s.ask()
	case toFinish:
		s.finish()
	}
}

func startup(name string) router.Startup {
	return router.Startup{Parameters: map[string]string{"user": appLogin, "docex.tenant_id": name, "application_name": "sim"}}
}

// ended is a context that has ended: with it the cache answers what it knows, and begins to load what it does not.
var ended = func() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}()

// logIn asks the router. What the cache does not know is waited for in a goroutine, as a session's own would.
func (s *session) logIn() {
	w, p := s.world, s.proxy
	if !p.alive {
		s.refused()
		return
	}
	s.began = w.now
	w.tally.logins++
	route, err := p.router.Route(ended, startup(s.name))
	if !errors.Is(err, router.ErrRegistryOffline) {
		w.tally.hits++
		s.routed(route, err)
		return
	}
	w.atWork.Go(func() {
		route, err := p.router.Route(context.Background(), startup(s.name))
		w.desk.hand(news{kind: ofRoute, proxy: p.serial, name: s.name, id: s.id, tell: func() { s.routed(route, err) }})
	})
}

func (s *session) routed(route router.Route, err error) {
	w, p := s.world, s.proxy
	switch {
	case !p.alive:
		s.refused()
		return
	case s.tenant < 0:
		if err != nil && !errors.Is(err, router.ErrRegistryOffline) || err == nil && (route.Denied == nil || !errors.Is(route.Denied, router.ErrUnknownTenant)) {
			w.violated("proxy %d serves a tenant that does not exist: %s", p.number, s.name)
		}
		w.tally.strangers++
		s.gone = true
		return
	case errors.Is(err, router.ErrRegistryOffline):
		w.tally.offline++
		s.refused()
		return
	case err != nil || route.Denied != nil:
		w.violated("proxy %d refuses a session of %s: %v, %v", p.number, s.name, err, route.Denied)
		s.gone = true
		return
	}
	p.verify(s.tenant, &route, s.began)
	p.enter(s, &route)
	s.request = pool.NewRequest(s.deliver)
	s.step = toBeGreeted
	if _, known := p.known[route.Target]; known {
		w.after(roundTrip, &s.entry)
		return
	}
	s.ask() // a server connection is borrowed, to learn what the greeting says
}

// refused is the end of a session that has not begun. The client tries again.
func (s *session) refused() {
	s.gone = true
	s.world.retry(s)
}

func (s *session) greet() {
	w, p := s.world, s.proxy
	if s.conn != nil {
		if !s.giveBack() {
			s.ask()
			return
		}
		if len(p.known) >= mostKnown {
			clear(p.known)
		}
		p.known[s.route.Target] = struct{}{}
	}
	s.greeted = true
	w.tally.welcome.add(w.now - s.began)
	s.pause()
}

// pause is what the client does between transactions.
func (s *session) pause() {
	w := s.world
	if s.left--; s.left < 0 {
		s.proxy.leave(s)
		s.gone = true
		return
	}
	s.step = toAsk
	w.after(w.about(s.think), &s.entry)
}

// ask wants a server connection, for a transaction or for the welcome.
func (s *session) ask() {
	w, p, home := s.world, s.proxy, s.home
	s.asked = w.now
	s.turn++
	p.touched[s.tenant] = struct{}{}
	s.route = home.route
	limit := p.portion(s.route.MaxConnections)
	if home.bound = max(home.bound, limit); home.leased == 0 {
		home.bound = limit
	}
	conn, err := p.pools.Ask(s.request, s.route.Target, limit)
	if conn != nil || err != nil {
		s.answered(conn, err)
		return
	}
	s.waiting = true
	w.waiting++
	turn := s.turn
	w.do(w.o.queueWait, func() {
		if s.waiting && s.turn == turn && s.request.Withdraw() {
			s.waiting = false
			w.waiting--
			s.answered(nil, &pool.QueueError{Waited: w.o.queueWait, Err: context.DeadlineExceeded})
		}
	})
}

// deliver is told what the queue has brought.
func (s *session) deliver(conn *pool.Conn, err error) {
	s.world.desk.hand(news{kind: ofGrant, proxy: s.proxy.serial, id: s.id, tell: func() {
		s.waiting = false
		s.world.waiting--
		switch {
		case s.gone && conn != nil:
			conn.Release()
		case s.gone:
		case conn != nil && !s.request.Accept(conn):
			s.ask()
		default:
			s.answered(conn, err)
		}
	}})
}

func (s *session) answered(conn *pool.Conn, err error) {
	w := s.world
	if err != nil {
		w.tally.failed(s.class, err)
		s.step = toAsk
		w.after(max(w.about(s.think), retryPause), &s.entry)
		return
	}
	s.conn = conn
	c := s.hold()
	work := welcomeTime
	s.step = toBeGreeted
	if s.greeted {
		w.tally.transactions++
		w.tally.waits[s.class].add(w.now - s.asked)
		s.step = toFinish
		work = w.about(w.o.work)
	}
	if m := conn.State.(*memory); m.tenant != s.name {
		if m.tenant != "" {
			w.tally.switches++
			work += w.o.switchTime()
		}
		m.tenant = s.name
	}
	done := c.server.work(w.elapsed(), work)
	if s.step == toFinish {
		done += w.about(w.o.hold)
	}
	w.at(momentAfter(done+roundTrip), &s.entry)
}

// hold checks that a connection that was leased is what the session has to have.
func (s *session) hold() *wire {
	w, home := s.world, s.home
	c := s.conn.NetConn().(*wire)
	target := s.route.Target
	if c.holder != nil || c.proxy != s.proxy || c.server.name != target.Server || c.role != target.Role || s.conn.Target() != target || target.Tenant != s.name {
		w.violated("proxy %d gives %s a connection of %s to %s, for %s", s.proxy.number, s.name, c.role, c.server.name, s.conn.Target().Tenant)
	}
	if waited := w.now - s.asked; waited > momentAfter(w.o.queueWait) {
		w.violated("a session of %s has waited for %s", s.name, waited.duration())
	}
	c.holder = s
	w.leased[s.tenant]++
	if home.leased++; home.bound > 0 && home.leased > home.bound {
		w.violated("proxy %d gives %s %d connections, of %d", s.proxy.number, s.name, home.leased, home.bound)
	}
	return c
}

// giveBack ends the lease, and reports whether the connection is still there.
func (s *session) giveBack() bool {
	c := s.conn.NetConn().(*wire)
	s.world.leased[s.tenant]--
	s.home.leased--
	c.holder = nil
	conn := s.conn
	s.conn = nil
	if c.dead() {
		conn.Destroy()
		s.world.tally.failed(s.class, errReset)
		return false
	}
	conn.Release()
	return true
}

func (s *session) finish() {
	s.giveBack()
	s.pause()
}

// perish is the end of a session whose proxy ends.
func (s *session) perish() {
	s.gone = true
	if s.waiting && s.request.Withdraw() {
		s.waiting = false
		s.world.waiting--
	}
	if s.conn != nil {
		c := s.conn.NetConn().(*wire)
		s.world.leased[s.tenant]--
		s.home.leased--
		c.holder = nil
		s.conn.Destroy()
		s.conn = nil
	}
}
