package pool_test

import (
	"context"
	"testing"
)

// BenchmarkSwitchesOfSlots switches 8 slots between 500 tenants, without a statement in between, and reports how large
// the catalog of memberships has become meanwhile at most. 200,000 switches: -benchtime 200000x.
func BenchmarkSwitchesOfSlots(b *testing.B) {
	site := newBench(b, 8)
	targets := site.slotted(8, 500)
	set := site.set()
	for range 8 {
		acquire(b, set, targets[0], 0).Release()
	}
	leases := make(chan int)
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range leases {
				acquire(b, set, targets[i%len(targets)], 0).Release()
			}
		}()
	}
	most := int64(0)
	b.ResetTimer()
	for i := range b.N {
		leases <- i
		if i%5000 == 0 {
			most = max(most, site.membershipBytes(b))
		}
	}
	close(leases)
	for range 8 {
		<-done
	}
	b.StopTimer()
	b.ReportMetric(float64(max(most, site.membershipBytes(b))), "catalog-bytes")
	if left := site.memberships(); left != "" {
		b.Errorf("memberships are left: %s", left)
	}
}

func (b *bench) membershipBytes(tb testing.TB) (bytes int64) {
	tb.Helper()
	err := b.admin.QueryRow(context.Background(), "SELECT pg_total_relation_size('pg_auth_members')").Scan(&bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return bytes
}

// BenchmarkHostileTriesDuringSwitches counts tries to become a tenant on another slot than the one that is being
// switched to it. One that wins fails the benchmark. 60,000 tries: -benchtime 60000x.
func BenchmarkHostileTriesDuringSwitches(b *testing.B) {
	site := newBench(b, 4)
	b.ReportMetric(float64(hostility(b, site, 1, int64(b.N))), "tries")
}
