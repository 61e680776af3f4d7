package registry_test

import (
	"context"
	"errors"

	"github.com/docex-proxy/docex-proxy/registry"
)

// A proxy looks tenants up in a cache that the registry's notifications keep current.
func ExampleCache() {
	serve := func(ctx context.Context, dsn string) error {
		store, err := registry.OpenStore(ctx, dsn)
		if err != nil {
			return err
		}
		defer store.Close()
		cache := registry.NewCache(store, registry.CacheOptions{})

		listening := make(chan error, 1)
		go func() {
			listening <- registry.Listen(ctx, registry.ListenOptions{
				DSN:       dsn,
				OnChange:  cache.Forget,
				OnConnect: cache.ForgetAll,
			})
		}()

		tenant, err := cache.TenantBySchema(ctx, "tenant_acme")
		if errors.Is(err, registry.ErrNotFound) {
			return err // known not to exist: refuse the session
		}
		if err != nil {
			return err // an *UnavailableError: nothing is known
		}
		_ = tenant.Route
		return <-listening
	}
	_ = serve
}
