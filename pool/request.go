package pool

import "time"

// Request is an Acquire that does not wait: where no connection is idle, it takes its place in the queue, and is told
// later. One can be used again and again, but for one connection at a time.
type Request struct {
	waiter
	server *server
	target Target
}

// NewRequest makes a Request. deliver is told what the queue has brought, a leased connection or an error, as Acquire
// would return it. It is called with the pool's books closed: it must neither block nor call the pool. A connection may
// only be used after Accept.
func NewRequest(deliver func(*Conn, error)) *Request {
	r := &Request{waiter: waiter{deliver: deliver}}
	r.place.value = &r.waiter
	return r
}

// Ask is Acquire for a Request. It returns a connection that is ready to be used, or an error, or neither: then the
// Request waits, until deliver is called or Withdraw reports true. The error is ErrBlocks where only Acquire goes on:
// the tenant is paused, or the target is a Slot and none of its own connections is idle, so that another's has to be
// switched.
func (s *Set) Ask(r *Request, t Target, limit int) (*Conn, error) {
	server, err := s.serverOf(t)
	if err != nil {
		return nil, err
	}
	if s.paused.of(t.Tenant) != nil {
		return nil, ErrBlocks
	}
	if t.Slot {
		if c, ok := server.tryAcquire(t, limit); ok {
			return c, nil
		}
		return nil, ErrBlocks
	}
	r.server, r.target, r.since = server, t, time.Now()
	for {
		c, err := server.ask(r, limit)
		if c == nil || r.Accept(c) {
			return c, err
		}
	}
}

// ask leases an idle connection at once, else queues.
func (s *server) ask(r *Request, limit int) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	p := s.pool(r.target)
	p.limit = limit
	if c := s.lease(p, r.since); c != nil {
		return c, nil
	}
	s.enqueue(p, &r.waiter, r.since)
	return nil, nil
}

// Accept checks a connection that a Request has brought. One that turns out to be dead is destroyed, and Accept reports
// false: ask again.
func (r *Request) Accept(c *Conn) bool {
	if !c.usable() {
		c.Destroy()
		return false
	}
	r.server.metrics.AcquireWaited(r.target.Tenant, time.Since(r.since))
	return true
}

// Withdraw takes a Request out of its queue. It reports false where deliver has been called, or is about to be.
func (r *Request) Withdraw() bool { return r.server.abandon(&r.waiter) }

// Waited is for how long the Request has waited.
func (r *Request) Waited() time.Duration { return time.Since(r.since) }
