package pool

import (
	"context"
	"iter"
	"maps"
)

// Drain closes the connections of a tenant, "" those of all: idle ones at once, leased ones when they are released, those
// being opened when they are. Later Acquires open new ones. It does not wait for the sockets to close. A tenant that has
// no connections costs next to nothing: every change in the registry, of whatever tenant, is a Drain.
func (s *Set) Drain(tenant string) {
	for _, server := range s.servers {
		server.drain(tenant)
	}
}

// AwaitDrain waits until every connection that a Drain has found of a tenant, "" of all, is closed.
func (s *Set) AwaitDrain(ctx context.Context, tenant string) error {
	return until(ctx, func() bool {
		for _, server := range s.servers {
			if server.draining(tenant) {
				return false
			}
		}
		return true
	})
}

func (s *server) drain(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for p := range s.of(tenant) {
		found = true
		p.epoch++
		p.drained = p.size
	}
	if found {
		s.expel(func(c *Conn) bool { return c.epoch != c.pool.epoch })
	}
}

// draining reports whether a tenant, "" any, has connections from before its last drain, or sockets that are being closed.
func (s *server) draining(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.of(tenant) {
		if p.drained+p.closing > 0 {
			return true
		}
	}
	return false
}

// of are the targets of a tenant, "" all.
func (s *server) of(tenant string) iter.Seq[*targetPool] {
	if tenant == "" {
		return maps.Values(s.targets)
	}
	return func(yield func(*targetPool) bool) {
		for p := s.tenants[tenant]; p != nil && yield(p); p = p.older {
		}
	}
}

// index has a new target found by its tenant.
func (s *server) index(p *targetPool) {
	tenant := p.target.Tenant
	if p.older = s.tenants[tenant]; p.older != nil {
		p.older.newer = p
	}
	s.tenants[tenant] = p
}

// unindex ends what index began.
func (s *server) unindex(p *targetPool) {
	switch tenant := p.target.Tenant; {
	case p.newer != nil:
		p.newer.older = p.older
	case p.older != nil:
		s.tenants[tenant] = p.older
	default:
		delete(s.tenants, tenant)
	}
	if p.older != nil {
		p.older.newer = p.newer
	}
	p.newer, p.older = nil, nil
}
