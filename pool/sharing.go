package pool

import "time"

// groupKey says, within a server, whose shared connections are interchangeable.
type groupKey struct {
	database   string
	role       string
	generation int
	slot       bool
}

func (t Target) groupKey() groupKey {
	if t.Slot {
		return groupKey{database: t.Database, slot: true}
	}
	return groupKey{database: t.Database, role: t.Role, generation: t.Generation}
}

// group is the targets that share their connections. It exists while there are any. Everything in it is guarded by
// server.mu. While one of its connections is idle, none of its targets waits that its own limit allows one more.
type group struct {
	claimant claimant
	targets  int
	idle     list[*Conn] // least recently used first

	// The targets with waiters that their own limit allows one more. Each is in the list of its size, or in covered.
	wanting []list[*targetPool] // want one more; longest in that state first
	wants   int                 // in all lists of wanting
	covered list[*targetPool]   // as many connections are being opened for them as they wait for

	// Those that want a connection and have none are numbered as they come. A round is those up to a number; the next begins
	// when all of them have had their lease.
	came, round int
}

// mostLooked bounds the search for a target that a connection knows, and for a connection that knows a target.
const mostLooked = 16

// knows reports whether the connection has served the tenant before: its server process has that tenant's tables in its
// caches then, where another would have to read the catalogs.
func (c *Conn) knows(tenant string) bool {
	_, known := c.seen[tenant]
	return known
}

// join makes the target one of its group.
func (s *server) join(p *targetPool) {
	key := p.target.groupKey()
	g := s.groups[key]
	if g == nil {
		g = &group{wanting: make([]list[*targetPool], s.max+1)}
		g.claimant.group, g.claimant.place.value = g, &g.claimant
		s.groups[key] = g
	}
	g.targets++
	p.group = g
}

// part ends what join began, for a target that has and wants nothing.
func (s *server) part(p *targetPool) {
	p.group.targets--
	if p.group.targets == 0 {
		delete(s.groups, p.target.groupKey())
	}
	p.group = nil
}

// sharesIdle reports whether a target that is not known yet would find an idle connection.
func (s *server) sharesIdle(t Target) bool {
	if !t.Shared { // a slot is not leased without a switch, which takes its time
		return false
	}
	g := s.groups[t.groupKey()]
	return g != nil && g.idle.size > 0
}

// settle is the group's part of server.settle.
func (g *group) settle(p *targetPool) {
	var in *list[*targetPool]
	switch {
	case p.waiters.size == 0 || p.full():
	case p.uncovered():
		in = &g.wanting[p.size]
	default:
		in = &g.covered
	}
	if p.inGroup.in == in {
		return
	}
	if p.inGroup.in != nil && p.inGroup.in != &g.covered {
		g.wants--
	}
	p.inGroup.leave()
	if in != nil {
		in.pushBack(&p.inGroup)
		g.came++
		p.came = g.came
		if in != &g.covered {
			g.wants++
		}
	}
}

// fewest is the target that wants one more and has the fewest connections, fewer than the bound; nil when there is
// none. When there are more targets than connections the first look finds it.
func (g *group) fewest(bound int) *targetPool {
	if g.wants == 0 {
		return nil
	}
	for i := range g.wanting[:min(bound, len(g.wanting))] {
		if first := g.wanting[i].front; first != nil {
			return first.value
		}
	}
	return nil
}

// known is the target of the round without a connection that the connection knows; the first, which is the first of the list
// of those, when it knows none.
func (g *group) known(c *Conn, first *targetPool) *targetPool {
	if first.came > g.round {
		g.round = g.came
	}
	looked := 0
	for p := range g.wanting[0].all() {
		if looked == mostLooked || p.came > g.round {
			break
		}
		if c.knows(p.target.Tenant) {
			return p
		}
		looked++
	}
	return first
}

// idleFor is the idle connection for a target: one that knows it, else that which was used least recently; nil when there is
// none.
func (g *group) idleFor(tenant string) *Conn {
	if g.idle.front == nil {
		return nil
	}
	looked := 0
	for c := range g.idle.all() {
		if c.knows(tenant) {
			return c
		}
		if looked++; looked == mostLooked {
			break
		}
	}
	return g.idle.front.value
}

// next is the target that deserves a connection most which its own target has no use for; nil when none has.
func (g *group) next() *targetPool {
	if p := g.fewest(len(g.wanting)); p != nil {
		return p
	}
	if first := g.covered.front; first != nil {
		return first.value
	}
	return nil
}

// wantedByOthers reports whether any other claimant waits for a connection that nobody is opening yet.
func (s *server) wantedByOthers(c *claimant) bool {
	wanted := s.empty.size + s.holding.size
	if c.place.in != nil {
		wanted--
	}
	return wanted > 0
}

// sharer is the target of the group that a released connection passes to although its own may have waiters; nil when
// its own comes first.
func (s *server) sharer(c *Conn) *targetPool {
	own := c.pool
	if own.group == nil {
		return nil
	}
	share := s.share(1)
	p := own.group.fewest(share)
	switch {
	case p == nil || p == own || p.size > 0 && own.size <= share:
		return nil
	case p.size == 0:
		return own.group.known(c, p)
	}
	return p
}

// pass hands a connection in the state of a leased one over to the first waiter of another target of the group.
func (s *server) pass(c *Conn, heir *targetPool) {
	s.move(c, heir)
	heir.grant(c)
}

// move makes a connection in the state of a leased one the heir's, which has to be settled then. No socket is touched.
func (s *server) move(c *Conn, heir *targetPool) {
	p := c.pool
	c.resource.Hijack()
	p.size--
	heir.size++
	c.pool, c.epoch = heir, heir.epoch
	c.seen[heir.target.Tenant] = struct{}{}
	heir.adopt(s.life, c)
	s.settle(p)
}

// borrow takes an idle connection of the group and makes it the target's, as move does; nil when there is none.
func (s *server) borrow(p *targetPool, now time.Time) *Conn {
	for c := p.group.idleFor(p.target.Tenant); c != nil; c = p.group.idleFor(p.target.Tenant) {
		s.unpark(c)
		if s.unfit(c, now) {
			s.retire(c, nil)
			continue
		}
		s.doubt(c, now)
		s.move(c, p)
		return c
	}
	return nil
}

// serve gives the group's idle connections to its targets that wait. It has to follow when a limit allows more than
// before.
func (s *server) serve(g *group, now time.Time) {
	for g != nil && g.idle.size > 0 {
		p := g.next()
		if p == nil {
			return
		}
		c := s.borrow(p, now)
		if c == nil {
			return
		}
		p.grant(c)
	}
}
