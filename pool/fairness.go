package pool

import "time"

// Who gets a connection, between claimants. A claimant is a target that has its connections to itself, or a group of
// targets that share theirs, which counts as many times as it has targets that hold or want connections. Its due is its part
// of the budget by that count; its share is the due in whole connections, at least 1. There is a crowd when there are more
// targets than slots. The rules, each of them local to one decision:
//
//   - Free slots go to the claimant without any connection that came first, then to the one that has the least for its
//     count.
//   - A claimant that wants more starves while it has fewer connections than its share. In a crowd one that has none
//     starves only after a Quantum, and comes after those that have some.
//   - One that has some takes at most one of others' in the time of two reconnects, and beyond its share only when its next
//     waiter has waited for as long: most waits are over before a connection that is opened for them is there.
//   - A connection that is released stays with its claimant, unless another starves, and this one is above its share, or
//     above its due while the connection is older than a Quantum.
//   - An idle connection, least recently used first, is given up to a claimant that waits, under the same conditions
//     or when it has been idle for longer than reconnecting takes: one that is about to be used again by its tenant
//     is not torn away for less.
//
// So a claimant without a connection waits for a bounded number of quanta, however many waiters the others have;
// fairness costs at most one reconnect per connection and Quantum; and in a crowd only the slots that are nobody's due in
// whole go from hand to hand: those of a group stay with it.
//
// Within a group a change costs no reconnect, so nothing is worth waiting for:
//
//   - An idle connection goes to any target of the group at once, unless that one has an idle one itself: one that has
//     served the target before, else the one that was used least recently.
//   - A connection that is released goes to the target of the group with the fewest connections, if that is fewer than
//     a target's share, and it has none or this target is above its share; between equals to the one that has been in
//     that state for longest. Else to its own target's waiters, else to any of the group's.
//   - Targets without a connection take turns in rounds. Within a round one that the connection has served before comes
//     first: a server process that has a tenant's tables in its caches does several transactions in the time that another
//     takes for one.
//
// So when a group has more targets than connections, they take turns: each is given one lease, then the others of the
// round, however many waiters it has.

// claimant is whoever the budget is divided among. Everything in it is guarded by server.mu.
type claimant struct {
	pool  *targetPool // nil for a group
	group *group      // nil for a target that does not share

	size        int                // slots
	live        int                // targets that hold or want connections
	place       element[*claimant] // in server.empty or server.holding
	hungrySince time.Time          // when it came into server.empty
	grewAt      time.Time          // when a slot was last taken for it
}

// wants reports whether the claimant waits for a connection that nobody is opening yet.
func (c *claimant) wants() bool {
	if c.group != nil {
		return c.group.wants > 0
	}
	return c.pool.uncovered()
}

// next is the claimant's target that a new connection is for; nil when no target's own limit allows one more.
func (c *claimant) next() *targetPool {
	switch {
	case c.group != nil:
		return c.group.fewest(len(c.group.wanting))
	case c.pool.full():
		return nil
	}
	return c.pool
}

// usualReconnect is what opening a connection takes on a server close by, until it has been measured.
const usualReconnect = 2 * time.Millisecond

// longestGrace bounds how long an idle connection is kept from a target that has others. On a machine that is short of
// CPU connecting takes long, and so do the pauses of clients: a shorter bound would have connections change hands for
// nothing just then.
const longestGrace = time.Second

// learn takes the time of one dial into account. Keeping an idle connection for as long as a reconnect takes, before
// giving it away, costs at most twice what an oracle would pay.
func (s *server) learn(dial time.Duration) {
	const weight = 8 // of the past
	s.grace = min(s.grace+(dial-s.grace)/weight, longestGrace)
}

// settle brings what is derived of a target up to date. It has to follow every change of its sizes or its queue.
func (s *server) settle(p *targetPool) {
	c := p.claimant()
	if p.group != nil {
		p.group.settle(p)
	}
	c.size += p.size - p.counted
	p.counted = p.size
	if live := p.size > 0 || p.waiters.size > 0; live != p.live {
		p.live = live
		change := 1
		if !live {
			change = -1
		}
		c.live += change
		s.live += change
	}
	s.enlist(c)
	if !p.live && p.closing == 0 {
		s.forget(p)
	}
}

// enlist has a claimant in the list where it belongs.
func (s *server) enlist(c *claimant) {
	var in *list[*claimant]
	switch {
	case !c.wants():
	case c.size == 0:
		in = &s.empty
	default:
		in = &s.holding
	}
	if c.place.in == in {
		return
	}
	c.place.leave()
	if in != nil {
		in.pushBack(&c.place)
	}
	if in == &s.empty {
		c.hungrySince = time.Now()
	}
}

// dispatch gives free slots, and idle connections that may be given up, to the claimants that wait for them.
func (s *server) dispatch(now time.Time) {
	for s.wanted() && (s.used < s.max || s.idle.size > 0) {
		if s.used < s.max {
			c := s.next(nil)
			if c == nil {
				return
			}
			s.open(c.next())
			continue
		}
		c := s.next(func(c *claimant) bool { return !s.mayTakeAt(c).After(now) })
		if c == nil {
			s.wakeForTakers()
			return
		}
		victim := s.victim(c, now)
		if victim == nil {
			if first := s.idle.front; first != nil {
				s.wakeAt(latest(first.value.idleSince.Add(s.grace), s.patientAt(c)))
			}
			return
		}
		s.unpark(victim)
		s.retire(victim, c.next())
	}
}

// wanted reports whether any claimant waits for a connection that nobody is opening yet.
func (s *server) wanted() bool { return s.empty.size+s.holding.size > 0 }

// next is the claimant that deserves a slot most, of those that are fit, nil for all; nil when no target's own limit allows
// one more.
func (s *server) next(fit func(*claimant) bool) *claimant {
	if c := s.firstEmpty(); c != nil {
		return c
	}
	var best *claimant
	for c := range s.holding.all() { // at most as many as there are slots
		if c.next() != nil && (best == nil || c.size*best.live < best.size*c.live) && (fit == nil || fit(c)) {
			best = c
		}
	}
	return best
}

// mayTakeAt is from when on a claimant that wants more, and may have more, may take another's connection.
func (s *server) mayTakeAt(c *claimant) time.Time {
	if c.size == 0 {
		return c.hungrySince
	}
	return c.grewAt.Add(2 * s.grace)
}

// patientAt is from when on a claimant that is not below its share may take a connection that another does not use.
func (s *server) patientAt(c *claimant) time.Time {
	if c.size == 0 {
		return c.hungrySince
	}
	return c.next().waiters.front.value.since.Add(2 * s.grace)
}

// wakeForTakers has dispatch run when the first claimant may take another's connection.
func (s *server) wakeForTakers() {
	var first time.Time
	for c := range s.holding.all() {
		if c.next() != nil {
			if at := s.mayTakeAt(c); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	if !first.IsZero() {
		s.wakeAt(first)
	}
}

// firstEmpty is the claimant that has been without a connection for longest. Only one whose last connection is being
// closed can have no target that its own limit allows one more, so the search is short.
func (s *server) firstEmpty() *claimant {
	for c := range s.empty.all() {
		if c.next() != nil {
			return c
		}
	}
	return nil
}

// crowded reports whether there are more targets than slots.
func (s *server) crowded() bool { return s.live > s.max }

// share is how many connections so many targets may have without owing any to others.
func (s *server) share(live int) int { return max(1, s.max*live/max(1, s.live)) }

// aboveDue reports whether a claimant has more than its part of the budget, which need not be a whole number.
func (s *server) aboveDue(c *claimant) bool { return c.size*s.live > s.max*c.live }

// starving is the claimant that starves most; nil when none does.
func (s *server) starving(now time.Time) *claimant {
	crowded := s.crowded()
	if !crowded {
		if c := s.firstEmpty(); c != nil {
			return c
		}
	}
	for c := range s.holding.all() {
		if c.size < s.share(c.live) && c.next() != nil && !s.mayTakeAt(c).After(now) {
			return c
		}
	}
	if crowded {
		if c := s.firstEmpty(); c != nil && now.Sub(c.hungrySince) >= s.quantum {
			return c
		}
	}
	return nil
}

// heir is the target that a released connection is to be closed for; nil when its claimant keeps it.
func (s *server) heir(c *Conn, now time.Time) *targetPool {
	owner, hungry := c.pool.claimant(), s.starving(now)
	if hungry == nil || hungry == owner || !s.owes(owner, c, now) {
		return nil
	}
	return hungry.next()
}

// owes reports whether a claimant has to give a connection of its own to one that starves.
func (s *server) owes(owner *claimant, c *Conn, now time.Time) bool {
	return owner.size > s.share(owner.live) || now.Sub(c.opened) >= s.quantum && s.aboveDue(owner)
}

// victim is the idle connection to be given up for a claimant that waits; nil when none may be given up yet.
func (s *server) victim(hungry *claimant, now time.Time) *Conn {
	starves, patient := hungry.size < s.share(hungry.live), !s.patientAt(hungry).After(now)
	for c := range s.idle.all() {
		if patient && now.Sub(c.idleSince) >= s.grace || starves && s.owes(c.pool.claimant(), c, now) {
			return c
		}
	}
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
