package pool_test

import (
	"errors"
	"testing"

	"github.com/docex-proxy/docex-proxy/pool"
)

// TestTargetsThatComeAfterAFailedDialAreApart: the pool object of a target whose only dial failed goes to the next
// target, and to one only. It once went to two, and each got the other's connections.
func TestTargetsThatComeAfterAFailedDialAreApart(t *testing.T) {
	b := newBench(t, 4)
	set, targets := b.set(), b.tenants(2)
	missing := targets[0]
	missing.Role, missing.Tenant = "nobody_there", "missing"
	for range 3 {
		var refused *pool.ConnectError
		if _, err := set.Acquire(t.Context(), missing, 0); !errors.As(err, &refused) {
			t.Fatalf("a login that does not exist: %v", err)
		}
	}
	first, second := acquire(t, set, targets[0], 0), acquire(t, set, targets[1], 0)
	first.Release()
	second.Release()
	for _, target := range targets {
		c := acquire(t, set, target, 0)
		if got := mustAsk(t, c, "SELECT current_user"); got != target.Role || c.Target() != target {
			t.Errorf("asked for %s, got a connection of %s", target.Role, got)
		}
		c.Release()
	}
}
