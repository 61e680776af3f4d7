package proxy

import (
	"net"
	"sync"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

// throttle slows down whoever guesses passwords: after a few failed logins from one address for one tenant, further
// ones are refused for a time that doubles with each failure. A success forgets the failures; clients that never fail
// are never delayed, and an address that many share is held back for the guessed tenant only.
type throttle struct {
	now  func() time.Time
	free int // failures without a delay; 0 throttles nobody

	mu     sync.Mutex
	failed map[throttleKey]failures
}

type throttleKey struct {
	address string
	tenant  registry.TenantID
}

type failures struct {
	count int
	until time.Time // refused before
}

const (
	firstDelay    = time.Second
	longestDelay  = time.Minute
	maxThrottled  = 50000 // entries; past that the ones that have served their time go
	forgottenPast = 10 * time.Minute
)

func newThrottle(free int, now func() time.Time) *throttle {
	return &throttle{now: now, free: free, failed: make(map[throttleKey]failures)}
}

func keyOf(address net.Addr, tenant registry.TenantID) throttleKey {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		host = address.String()
	}
	return throttleKey{address: host, tenant: tenant}
}

// allow reports how long the client still has to wait, 0 when it may try.
func (t *throttle) allow(key throttleKey) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, t.failed[key].until.Sub(t.now()))
}

// succeeded forgets the failures.
func (t *throttle) succeeded(key throttleKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failed, key)
}

// failedOnce counts a wrong password.
func (t *throttle) failedOnce(key throttleKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.failed) >= maxThrottled {
		t.sweep(now)
	}
	f := t.failed[key]
	if now.Sub(f.until) > forgottenPast {
		f.count = 0
	}
	f.count++
	f.until = now
	if over := f.count - t.free; over >= 0 && t.free > 0 {
		f.until = now.Add(min(firstDelay<<min(over, 10), longestDelay))
	}
	t.failed[key] = f
}

// sweep makes room: those that have served their time go, or any one when there are none.
func (t *throttle) sweep(now time.Time) {
	for key, f := range t.failed {
		if now.After(f.until) {
			delete(t.failed, key)
		}
	}
	for key := range t.failed {
		if len(t.failed) < maxThrottled {
			return
		}
		delete(t.failed, key)
	}
}
