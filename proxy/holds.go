package proxy

import (
	"context"
	"errors"
	"sync"

	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// holds has sessions of tenants that are moving wait. The zero value is ready.
type holds struct {
	mu    sync.Mutex
	ended map[registry.TenantID]chan struct{} // closed when a session of the tenant is not held any more
}

// of is what to wait for. It has to be asked for before it is seen that the session is held.
func (h *holds) of(id registry.TenantID) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended == nil {
		h.ended = make(map[registry.TenantID]chan struct{})
	}
	if h.ended[id] == nil {
		h.ended[id] = make(chan struct{})
	}
	return h.ended[id]
}

// end wakes those who wait: each looks whether it is held itself.
func (h *holds) end(id registry.TenantID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ended, ok := h.ended[id]; ok {
		close(ended)
		delete(h.ended, id)
	}
}

// unheld is the session's present route, after the end of its tenant's move. What bounds the wait for a connection bounds
// this one.
func (s *session) unheld(ctx context.Context) (*router.Route, error) {
	for {
		route := s.route.Load()
		if !route.Held {
			return route, nil
		}
		ended := s.server.holds.of(route.Tenant.ID)
		if s.route.Load() != route {
			continue
		}
		select {
		case <-ended:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errQueueWait) {
				return nil, err
			}
			return nil, &router.Refusal{Err: router.ErrMoving, Tenant: route.Named, Source: route.Source}
		}
	}
}
