package proxy

import (
	"sync"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/registry"
)

// senders knows for which tenant a server process works, as far as this proxy leads to it: it was last attached to a
// session of that tenant. The zero value is ready.
type senders struct {
	mu      sync.RWMutex
	tenants map[sender]registry.TenantID
}

type sender struct {
	server  string
	process uint32
}

// maxSenders bounds the entries. Process ids come back, so that the number of live ones is far below it; when it is
// reached all are forgotten, and noted again when they are next attached.
const maxSenders = 100000

func (s *senders) note(conn *pool.Conn, tenant registry.TenantID) {
	key := sender{conn.Target().Server, conn.PID()}
	if s.is(key.server, key.process, tenant) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tenants == nil || len(s.tenants) >= maxSenders {
		s.tenants = make(map[sender]registry.TenantID)
	}
	s.tenants[key] = tenant
}

func (s *senders) is(server string, process uint32, tenant registry.TenantID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tenants[sender{server, process}] == tenant && tenant != ""
}
