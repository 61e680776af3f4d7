package pool

import (
	"context"
	"sync"
	"time"
)

// pauses holds back the Acquires of tenants. The zero value holds nobody back.
type pauses struct {
	mu   sync.Mutex
	held map[string]chan struct{} // by tenant, "" for all; closed at the end of the pause
}

// of is what has to end before the tenant goes on, nil for nothing.
func (p *pauses) of(tenant string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) == 0 {
		return nil
	}
	if all, ok := p.held[""]; ok {
		return all
	}
	return p.held[tenant] // a nil channel when there is none
}

// pass waits for the end of the tenant's pauses.
func (p *pauses) pass(ctx context.Context, tenant string) error {
	began := time.Now()
	for ended := p.of(tenant); ended != nil; ended = p.of(tenant) {
		select {
		case <-ended:
		case <-ctx.Done():
			return &QueueError{Waited: time.Since(began), Err: context.Cause(ctx)}
		}
	}
	return nil
}

// Pause holds back the Acquires of a tenant, "" for all, from now on until Resume: they wait, as in the queue. Those
// that were in the queue before go on. It reports false when they are held back already.
func (s *Set) Pause(tenant string) bool {
	s.paused.mu.Lock()
	defer s.paused.mu.Unlock()
	if _, already := s.paused.held[tenant]; already {
		return false
	}
	if s.paused.held == nil {
		s.paused.held = make(map[string]chan struct{})
	}
	s.paused.held[tenant] = make(chan struct{})
	return true
}

// Resume ends a Pause of the same name. It reports false when there is none.
func (s *Set) Resume(tenant string) bool {
	s.paused.mu.Lock()
	defer s.paused.mu.Unlock()
	held, ok := s.paused.held[tenant]
	if ok {
		close(held)
		delete(s.paused.held, tenant)
	}
	return ok
}

// Paused lists what is paused.
func (s *Set) Paused() []string {
	s.paused.mu.Lock()
	defer s.paused.mu.Unlock()
	var all []string
	for tenant := range s.paused.held {
		all = append(all, tenant)
	}
	return all
}

// quiescePause lies between two looks whether a tenant is at rest.
const quiescePause = 5 * time.Millisecond

// Quiesce waits until no connection of a tenant, "" for all, is leased, being opened or waited for in the queue. It is
// for one that is paused; Drain first, to have its connections closed.
func (s *Set) Quiesce(ctx context.Context, tenant string) error {
	return until(ctx, func() bool { return !s.busy(tenant) })
}

func until(ctx context.Context, holds func() bool) error {
	ticker := time.NewTicker(quiescePause)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}

func (s *Set) busy(tenant string) bool {
	for _, stat := range s.Stats() {
		if (tenant == "" || stat.Target.Tenant == tenant) && stat.Active+stat.Connecting+stat.Waiting > 0 {
			return true
		}
	}
	return false
}
