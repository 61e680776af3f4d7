package registry_test

import (
	"testing"

	"github.com/docex-proxy/docex-proxy/registry"
)

func BenchmarkCacheHit(b *testing.B) {
	cache := registry.NewCache(newSource("acme"), registry.CacheOptions{})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.Tenant(ctx, "acme"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCacheHitParallel(b *testing.B) {
	cache := registry.NewCache(newSource("acme"), registry.CacheOptions{})
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := cache.Tenant(ctx, "acme"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
