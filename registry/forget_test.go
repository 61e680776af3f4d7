package registry_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

func (b *bench) suspend(id registry.TenantID) {
	t := tenantNamed(id)
	t.Route.Status = registry.StatusSuspended
	b.source.put(t)
}

func (b *bench) foundBySchema(schema string) *registry.Tenant {
	b.Helper()
	t, err := b.cache.TenantBySchema(b.Context(), schema)
	if err != nil {
		b.Fatalf("schema %s: %v", schema, err)
	}
	return t
}

func TestForgetDropsATenantUnderItsIdAndItsSchemaAndNoOther(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme", "globex")
	for _, id := range []registry.TenantID{"acme", "globex"} {
		b.found(id)
		b.foundBySchema("tenant_" + string(id))
	}
	b.asked(4)
	b.suspend("acme")
	b.cache.Forget("acme")
	if b.found("acme").Route.Status != registry.StatusSuspended ||
		b.foundBySchema("tenant_acme").Route.Status != registry.StatusSuspended {
		t.Error("the former value is served")
	}
	b.asked(2)
	b.found("globex")
	b.foundBySchema("tenant_globex")
	b.asked(0)
}

func TestForgetDropsASchemaThatWasOnlyEverLookedUpBySchema(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.foundBySchema("tenant_acme")
	renamed := tenantNamed("acme")
	renamed.SchemaName = "acme_2"
	b.source.put(renamed)
	b.cache.Forget("acme")
	if got, err := b.cache.TenantBySchema(t.Context(), "tenant_acme"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the former schema gives %v, %v", got, err)
	}
	if b.foundBySchema("acme_2").ID != "acme" {
		t.Error("the new schema gives another tenant")
	}
}

func TestForgetFollowsASchemaThatPassesToAnotherTenant(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.foundBySchema("tenant_acme")
	heir := tenantNamed("heir")
	heir.SchemaName = "tenant_acme"
	b.source.remove("acme")
	b.source.put(heir)
	b.cache.Forget("acme")
	b.foundBySchema("tenant_acme")
	heir = tenantNamed("heir")
	heir.SchemaName, heir.Route.Status = "tenant_acme", registry.StatusSuspended
	b.source.put(heir)
	b.cache.Forget("acme")
	if b.foundBySchema("tenant_acme").Route.Status != registry.StatusActive {
		t.Error("news of the former tenant drops its heir")
	}
	b.cache.Forget("heir")
	if b.foundBySchema("tenant_acme").Route.Status != registry.StatusSuspended {
		t.Error("news of the heir does not drop it")
	}
}

func TestForgetOfATenantDropsAllNegativeEntries(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	b.absent("acme")
	if _, err := b.cache.TenantBySchema(t.Context(), "tenant_acme"); !errors.Is(err, registry.ErrNotFound) {
		t.Fatal(err)
	}
	b.source.put(tenantNamed("acme"))
	b.cache.Forget("acme")
	b.found("acme")
	b.foundBySchema("tenant_acme")
}

func TestForgetOfALoginDropsThatLoginOnly(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	names := []string{"app", "other"}
	look := func() {
		t.Helper()
		b.found("acme")
		for _, name := range names {
			if _, err := b.cache.Login(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range names {
		b.source.putLogin(&registry.Login{Name: name})
	}
	look()
	b.source.asks()
	b.cache.Forget("login/app")
	look()
	b.asked(1)
	b.cache.Forget("app")
	look()
	b.asked(0)
}

func TestForgetOfEverythingAndForgetAllDropEverything(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme", "globex")
	b.source.putLogin(&registry.Login{Name: "app"})
	for _, forget := range []func(){func() {}, func() { b.cache.Forget("*") }, b.cache.ForgetAll} {
		forget()
		b.found("acme")
		b.foundBySchema("tenant_globex")
		b.absent("nobody")
		if _, err := b.cache.Login(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		b.asked(4)
	}
}

func TestForgetLetsAFailedNameBeAskedForAgainAtOnce(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.source.setDown(true)
	b.unavailable("acme")
	b.source.setDown(false)
	b.unavailable("acme")
	b.cache.ForgetAll()
	b.found("acme")
}

func TestAValueReadBeforeAForgetIsNotStoredAfterIt(t *testing.T) {
	for name, forget := range map[string]func(*registry.Cache){
		"tenant":     func(c *registry.Cache) { c.Forget("acme") },
		"everything": func(c *registry.Cache) { c.ForgetAll() },
	} {
		for _, kind := range []string{"id", "schema"} {
			t.Run(name+" by "+kind, func(t *testing.T) {
				b := newBench(t, registry.CacheOptions{}, "acme")
				look := func() (*registry.Tenant, error) {
					if kind == "schema" {
						return b.cache.TenantBySchema(t.Context(), "tenant_acme")
					}
					return b.cache.Tenant(t.Context(), "acme")
				}
				open := b.source.shut()
				var waiting sync.WaitGroup
				waiting.Go(func() { _, _ = look() })
				receive(t, b.source.arrived, "question")
				b.suspend("acme")
				forget(b.cache)
				// Who comes after the Forget does not join the load from before it.
				late := make(chan *registry.Tenant, 1)
				waiting.Go(func() {
					got, _ := look()
					late <- got
				})
				receive(t, b.source.arrived, "second question")
				open()
				waiting.Wait()
				if got := <-late; got == nil || got.Route.Status != registry.StatusSuspended {
					t.Errorf("who came after the Forget got %+v", got)
				}
				if got, err := look(); err != nil || got.Route.Status != registry.StatusSuspended {
					t.Errorf("what is stored is %+v, %v", got, err)
				}
				b.asked(2)
			})
		}
	}
}

func TestANotFoundReadBeforeAForgetIsNotStoredAfterIt(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	open := b.source.shut()
	var waiting sync.WaitGroup
	waiting.Go(func() { _, _ = b.cache.Login(t.Context(), "app") })
	receive(t, b.source.arrived, "question")
	b.source.putLogin(&registry.Login{Name: "app"})
	b.cache.Forget("login/app")
	open()
	waiting.Wait()
	if _, err := b.cache.Login(t.Context(), "app"); err != nil {
		t.Error(err)
	}
}

func TestCacheNeverServesATenantOlderThanItsLastForgetUnderLoad(t *testing.T) {
	src := newSource("acme")
	cache := registry.NewCache(src, registry.CacheOptions{Size: 2, TTL: time.Millisecond})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = cache.TenantBySchema(t.Context(), "tenant_acme")
					_, _ = cache.Tenant(t.Context(), "acme")
					_, _ = cache.Tenant(t.Context(), registry.TenantID(fmt.Sprint("name", i)))
				}
			}
		})
	}
	for generation := 2; generation < 1000; generation++ {
		tenant := tenantNamed("acme")
		tenant.Route.SecretGeneration = generation
		src.put(tenant)
		cache.Forget("acme")
		byID, err := cache.Tenant(t.Context(), "acme")
		bySchema, err2 := cache.TenantBySchema(t.Context(), "tenant_acme")
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if byID.Route.SecretGeneration != generation || bySchema.Route.SecretGeneration != generation {
			t.Errorf("generation %d: by id %d, by schema %d", generation, byID.Route.SecretGeneration, bySchema.Route.SecretGeneration)
			break
		}
	}
	close(stop)
	readers.Wait()
}
