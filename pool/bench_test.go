package pool_test

import (
	"context"
	"testing"

	"github.com/docex-proxy/docex-proxy/pool"
)

func BenchmarkAcquireAndReleaseOfAnIdleConnection(b *testing.B) {
	bench := newBench(b, 8)
	set, target := bench.set(), bench.tenant("bench")
	acquire(b, set, target, 0).Release()
	lease := func() { cycle(b, set, target) }
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			lease()
		}
	})
	b.Run("parallel", func(b *testing.B) { // eight connections for GOMAXPROCS clients
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				lease()
			}
		})
	})
	b.Run("queueing", func(b *testing.B) { // eight connections for 32 × GOMAXPROCS clients
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				lease()
			}
		})
	})
}

func cycle(b *testing.B, set *pool.Set, target pool.Target) {
	c, err := set.Acquire(context.Background(), target, 0)
	if err != nil {
		b.Error(err)
		return
	}
	c.Release()
}
