package pool

import (
	"errors"
	"fmt"
)

// Audit checks the books of every server against each other and against puddle's.
func (s *Set) Audit() error {
	var errs []error
	for _, server := range s.servers {
		errs = append(errs, server.audit())
	}
	return errors.Join(errs...)
}

func (s *server) audit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	size, idle, live, closing := 0, 0, 0, 0
	sizes, lives := map[*claimant]int{}, map[*claimant]int{}
	for t, p := range s.targets {
		stat := p.connections.Stat()
		check(int(stat.IdleResources()) == p.idle, "%v: %d idle, puddle says %d", t, p.idle, stat.IdleResources())
		check(int(stat.TotalResources()) == p.size-p.connecting, "%v: %d of %d connecting, puddle has %d", t, p.connecting, p.size, stat.TotalResources())
		check(0 <= p.drained && p.drained <= p.size-p.idle, "%v: %d of %d are from before a drain", t, p.drained, p.size)
		check(p.idle == 0 || p.waiters.size == 0, "%v: %d idle beside %d waiting", t, p.idle, p.waiters.size)
		size, idle, closing = size+p.size, idle+p.idle, closing+p.closing
		sizes[p.claimant()] += p.size
		if p.live {
			live++
			lives[p.claimant()]++
		}
	}
	for c, size := range sizes {
		check(c.size == size && c.live == lives[c], "a claimant with %d connections of %d targets claims for %d and %d", size, lives[c], c.size, c.live)
		check(c.wants() == (c.place.in != nil), "a claimant that wants more is in no list, or one that does not is")
	}
	check(size <= s.used && s.used <= size+closing, "%d slots taken by %d connections and %d closing ones", s.used, size, closing)
	check(s.used <= s.max, "%d of %d slots taken", s.used, s.max)
	check(idle == s.idle.size, "%d idle, %d in the list", idle, s.idle.size)
	check(live == s.live, "%d live targets, %d counted", live, s.live)
	check(s.used == s.max || s.next(nil) == nil, "a free slot while %v waits", s.next(nil))
	check(s.idle.size == 0 || s.next(nil) == nil || s.used < s.max || !s.wake.IsZero(), "idle connections beside waiters, and no timer")
	indexed := 0
	for tenant, p := range s.tenants {
		check(p != nil && p.newer == nil, "%s has no newest target", tenant)
		for ; p != nil; p = p.older {
			indexed++
			check(p.target.Tenant == tenant && s.targets[p.target] == p && (p.older == nil || p.older.newer == p), "%v is in the wrong place of the index", p.target)
		}
	}
	check(indexed == len(s.targets), "%d targets, %d in the index", len(s.targets), indexed)
	return errors.Join(append(errs, s.auditGroups())...)
}

// auditGroups checks what is kept of targets that share their connections.
func (s *server) auditGroups() error {
	var errs []error
	sharing, idle := map[*group]int{}, map[*group]int{}
	for t, p := range s.targets {
		if t.passes() != (p.group != nil) || t.passes() && s.groups[t.groupKey()] != p.group {
			errs = append(errs, fmt.Errorf("%v is in the wrong group", t))
		}
		if p.group != nil {
			sharing[p.group]++
			idle[p.group] += p.idle
		}
	}
	for key, g := range s.groups {
		wants := 0
		for size := range g.wanting {
			for p := range g.wanting[size].all() {
				wants++
				if p.size != size || !p.uncovered() || p.full() {
					errs = append(errs, fmt.Errorf("%v is in the list of size %d", p.target, size))
				}
			}
		}
		if g.targets == 0 || g.targets != sharing[g] || g.wants != wants || g.idle.size != idle[g] {
			errs = append(errs, fmt.Errorf("%v: %d targets, %d idle, %d want more; there are %d, %d, %d", key, g.targets, g.idle.size, g.wants, sharing[g], idle[g], wants))
		}
		if g.idle.size > 0 && g.next() != nil {
			errs = append(errs, fmt.Errorf("%v: an idle connection while %v waits", key, g.next().target))
		}
	}
	if len(s.spare) > mostSpare {
		errs = append(errs, fmt.Errorf("%d spare pools", len(s.spare)))
	}
	return errors.Join(errs...)
}

// Targets is how many targets the Set keeps in memory.
func (s *Set) Targets() int {
	n := 0
	for _, server := range s.servers {
		server.mu.Lock()
		n += len(server.targets)
		server.mu.Unlock()
	}
	return n
}
