package pool

import (
	"context"
	"math"
	"time"

	"github.com/jackc/puddle/v2"
)

// waiter is one Acquire in the queue of its target. Whoever takes it out of the queue owes it exactly one grant.
type waiter struct {
	pool   *targetPool
	since  time.Time
	place  element[*waiter] // in targetPool.waiters
	result chan grant       // holds one, so that granting never blocks
	// deliver takes the grant in the place of result, for a Request. It is called under server.mu.
	deliver func(*Conn, error)
}

type grant struct {
	conn *Conn
	err  error
}

func newWaiter() *waiter {
	w := &waiter{result: make(chan grant, 1)}
	w.place.value = w
	return w
}

// targetPool is what a server knows of one target: its connections and who waits for one. It exists while there is
// either. Everything in it is guarded by server.mu.
type targetPool struct {
	server *server
	target Target // of another one when the pool is used again
	group  *group // nil when the target's connections are not shared
	limit  int    // most connections, as the last Acquire said; 0 = none of its own

	// connections holds the states and the stack of idle connections. It is only called under server.mu, with the
	// outcome known, so that none of its calls waits: its constructor adopts what has been dialled before.
	connections *puddle.Pool[*Conn]
	adopted     *Conn

	waiters    list[*waiter]
	size       int // slots: connecting, active, idle
	connecting int // each serves one of the first waiters; which one does not matter
	idle       int
	closing    int // no slot of this target any more, but a socket
	epoch      int // raised by a drain
	drained    int // of size, those from before the last drain

	alone   claimant             // unless it has a group
	live    bool                 // counted in the claimant's
	counted int                  // of size, in the claimant's
	inGroup element[*targetPool] // in one of the group's lists
	came    int                  // into it, as the group counts

	newer, older *targetPool // of the same tenant
}

// claimant is by whom the target claims its part of the budget.
func (p *targetPool) claimant() *claimant {
	if p.group != nil {
		return &p.group.claimant
	}
	return &p.alone
}

// mostSpare bounds the pools that are kept for targets to come: making one costs about ten allocations, and tenants
// that share connections come and go with every transaction.
const mostSpare = 256

// pool returns what is known of the target, which may be nothing yet: settle has to follow.
func (s *server) pool(t Target) *targetPool {
	p := s.targets[t]
	if p != nil {
		return p
	}
	if last := len(s.spare) - 1; last >= 0 {
		p = s.spare[last]
		s.spare[last] = nil
		s.spare = s.spare[:last]
	} else {
		p = newTargetPool(s)
	}
	p.target = t
	if t.passes() {
		s.join(p)
	}
	s.targets[t] = p
	s.index(p)
	return p
}

// forget drops a target that has and wants nothing. Nobody refers to its pool any more, so that another may have it.
func (s *server) forget(p *targetPool) {
	if s.targets[p.target] != p {
		return // forgotten already: were it spare twice, two tenants would share one pool, and get each other's connections
	}
	delete(s.targets, p.target)
	s.unindex(p)
	if p.group != nil {
		s.part(p)
	}
	if s.closed || len(s.spare) == mostSpare {
		p.connections.Close() // holds nothing, so it does not wait
		return
	}
	p.target, p.limit = Target{}, 0
	s.spare = append(s.spare, p)
}

func newTargetPool(s *server) *targetPool {
	p := &targetPool{server: s}
	p.inGroup.value = p
	p.alone.pool, p.alone.place.value = p, &p.alone
	connections, err := puddle.NewPool(&puddle.Config[*Conn]{
		Constructor: func(context.Context) (*Conn, error) { return p.adopted, nil },
		Destructor:  (*Conn).close,
		MaxSize:     math.MaxInt32, // the bound is the server's budget
	})
	if err != nil {
		panic("pool: " + err.Error()) // only a MaxSize below 1 is an error
	}
	p.connections = connections
	return p
}

// adopt makes a connection that was just dialled, or given up by another pool, one of this pool's, in the state of a
// leased one.
func (p *targetPool) adopt(ctx context.Context, c *Conn) {
	p.adopted = c
	err := p.connections.CreateResource(ctx)
	p.adopted = nil
	if err != nil {
		panic("pool: " + err.Error()) // the constructor has no error and MaxSize is out of reach
	}
	c.resource = p.take(ctx)
	if c.resource.Value() != c {
		panic("pool: the idle connections are not a stack")
	}
}

// take pops the idle connection that was used last. There has to be one.
func (p *targetPool) take(ctx context.Context) *puddle.Resource[*Conn] {
	resource, err := p.connections.TryAcquire(ctx)
	if err != nil {
		panic("pool: " + err.Error())
	}
	return resource
}

// pick takes one certain idle connection out of the stack, leaving the others, of which there are p.idle, in their
// order.
func (p *targetPool) pick(ctx context.Context, c *Conn) {
	if p.idle == 0 {
		p.take(ctx)
		return
	}
	stack := p.connections.AcquireAllIdle()
	for i := len(stack) - 1; i >= 0; i-- {
		if stack[i] != c.resource {
			stack[i].ReleaseUnused()
		}
	}
}

// uncovered reports whether more connections are waited for than are being opened.
func (p *targetPool) uncovered() bool { return p.waiters.size > p.connecting }

// full reports whether the target's own limit forbids one more connection.
func (p *targetPool) full() bool { return p.limit > 0 && p.size+p.closing >= p.limit }

// enqueue makes a waiter the last in its target's queue.
func (s *server) enqueue(p *targetPool, w *waiter, now time.Time) {
	w.pool, w.since = p, now
	p.waiters.pushBack(&w.place)
	s.settle(p)
	s.serve(p.group, now)
	s.dispatch(now)
}

// wait queues until a grant comes or the context ends. What is granted in that very moment is passed on.
func (s *server) wait(ctx context.Context, w *waiter) (*Conn, error) {
	var g grant
	select {
	case g = <-w.result:
	case <-ctx.Done():
		if s.abandon(w) {
			g.err = &QueueError{Waited: time.Since(w.since), Err: context.Cause(ctx)}
			break
		}
		g = <-w.result
		if g.conn != nil {
			g.conn.Release()
			g = grant{err: &QueueError{Waited: time.Since(w.since), Err: context.Cause(ctx)}}
		}
	}
	s.waiters.Put(w)
	return g.conn, g.err
}

// abandon takes the waiter out of its queue and reports whether it was still there.
func (s *server) abandon(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.place.in == nil {
		return false
	}
	w.place.leave()
	s.settle(w.pool)
	return true
}

// grant gives a leased connection to the first waiter.
func (p *targetPool) grant(c *Conn) {
	c.leased.Store(true)
	p.answer(grant{conn: c})
}

// fail tells the first waiter that its connection could not be opened.
func (p *targetPool) fail(err error) { p.answer(grant{err: err}) }

func (p *targetPool) answer(g grant) {
	w := p.waiters.front.value
	w.place.leave()
	if w.deliver != nil {
		w.deliver(g.conn, g.err)
	} else {
		w.result <- g
	}
	p.server.settle(p)
}
