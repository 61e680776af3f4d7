package pool

import "time"

// Who gets a connection, between targets. A target's share is the budget divided by the targets that hold or want
// connections, at least 1. The rules, each of them local to one decision:
//
//   - Free slots go to the target without any connection that came first, then to the one with the fewest.
//   - A target that wants more starves while it has fewer connections than its share. When there are more targets
//     than slots, it starves once it has had none for a Quantum.
//   - A connection that is released goes to its own target's waiters, unless another target starves and either this
//     target is above its share, or the starving one has nothing and the connection is older than a Quantum.
//   - An idle connection, least recently used first, is given up to a target that waits, under the same conditions
//     or when it has been idle for longer than reconnecting takes: one that is about to be used again by its tenant
//     is not torn away for less.
//
// So a target without a connection waits for a bounded number of quanta, however many waiters the others have, and
// fairness costs at most one reconnect per connection and Quantum.
//
// Within a group of targets that share their connections a change costs no reconnect, so nothing is worth waiting for:
//
//   - An idle connection, least recently used first, goes to any target of the group at once, unless that one has an
//     idle one itself.
//   - A connection that is released goes to the target of the group with the fewest connections, if that is fewer than
//     its share, and it has none or this target is above its share; between equals to the one that has been in that
//     state for longest. Else to its own target's waiters, else to any of the group's.
//
// So when a group has more targets than connections, they take turns: each is given one lease, then the others that
// came before its next, however many waiters it has. Between groups, and between a group and a target that does not
// share, the rules above hold, for each target of the group by itself.

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
	var in *list[*targetPool]
	switch {
	case !p.uncovered():
	case p.size == 0:
		in = &s.empty
	default:
		in = &s.holding
	}
	if p.place.in != in {
		p.place.leave()
		if in != nil {
			in.pushBack(&p.place)
		}
		if in == &s.empty {
			p.hungrySince = time.Now()
		}
	}
	if p.group != nil {
		p.group.settle(p)
	}
	if live := p.size > 0 || p.waiters.size > 0; live != p.live {
		p.live = live
		if live {
			s.live++
		} else {
			s.live--
		}
	}
	if !p.live && p.closing == 0 {
		s.forget(p)
	}
}

// dispatch gives free slots, and idle connections that may be given up, to the targets that wait for them.
func (s *server) dispatch(now time.Time) {
	for s.wanted() && (s.used < s.max || s.idle.size > 0) {
		p := s.next()
		if p == nil {
			return
		}
		if s.used < s.max {
			s.open(p)
			continue
		}
		victim := s.victim(p, now)
		if victim == nil {
			if first := s.idle.front; first != nil {
				s.wakeAt(first.value.idleSince.Add(s.grace))
			}
			return
		}
		s.unpark(victim)
		s.retire(victim, p)
	}
}

// wanted reports whether any target waits for a connection that nobody is opening yet.
func (s *server) wanted() bool { return s.empty.size+s.holding.size > 0 }

// next is the target that deserves a free slot most; nil when no target's own limit allows one more.
func (s *server) next() *targetPool {
	if p := s.firstEmpty(); p != nil {
		return p
	}
	var best *targetPool
	for p := range s.holding.all() { // at most as many as there are slots
		if !p.full() && (best == nil || p.size < best.size) {
			best = p
		}
	}
	return best
}

// firstEmpty is the target that has been without a connection for longest. Only one whose last connection is being
// closed can be full, so the search is short.
func (s *server) firstEmpty() *targetPool {
	for p := range s.empty.all() {
		if !p.full() {
			return p
		}
	}
	return nil
}

func (s *server) share() int { return max(1, s.max/max(1, s.live)) }

// starving is the target that starves most; nil when none does.
func (s *server) starving(now time.Time) *targetPool {
	crowded := s.live > s.max
	if p := s.firstEmpty(); p != nil && (!crowded || now.Sub(p.hungrySince) >= s.quantum) {
		return p
	}
	if crowded {
		return nil
	}
	share := s.share()
	for p := range s.holding.all() {
		if p.size < share && !p.full() {
			return p
		}
	}
	return nil
}

// heir is the target that a released connection is to be closed for; nil when its own target or group keeps it.
func (s *server) heir(c *Conn, now time.Time) *targetPool {
	p := s.starving(now)
	if p == nil || p == c.pool || c.pool.shares(p) {
		return nil
	}
	if c.pool.size > s.share() || p.size == 0 && now.Sub(c.opened) >= s.quantum {
		return p
	}
	return nil
}

// victim is the idle connection to be given up for a target that waits; nil when none may be given up yet.
func (s *server) victim(p *targetPool, now time.Time) *Conn {
	share := s.share()
	for c := range s.idle.all() {
		switch {
		case now.Sub(c.idleSince) >= s.grace,
			p.size < share && c.pool.size > share,
			p.size == 0 && now.Sub(c.opened) >= s.quantum:
			return c
		}
	}
	return nil
}
