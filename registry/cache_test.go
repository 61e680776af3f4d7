package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

func TestCacheAsksOnceUntilTheTTLEnds(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	first := b.found("acme")
	b.clock.pass(time.Minute - 1)
	if b.found("acme") != first {
		t.Error("a hit is another value")
	}
	b.asked(1)
	b.clock.pass(1)
	b.found("acme")
	b.asked(1)
}

func TestCacheKeepsTenantsSchemasAndLoginsApart(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.source.putLogin(&registry.Login{Name: "acme"})
	tenant := b.found("acme")
	bySchema, err := b.cache.TenantBySchema(t.Context(), "tenant_acme")
	if err != nil || bySchema != tenant {
		t.Errorf("by schema: %v, %v", bySchema, err)
	}
	if login, err := b.cache.Login(t.Context(), "acme"); err != nil || login.Name != "acme" {
		t.Errorf("login: %v, %v", login, err)
	}
	if _, err := b.cache.TenantBySchema(t.Context(), "acme"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a tenant's id is no schema: %v", err)
	}
	if _, err := b.cache.Login(t.Context(), "tenant_acme"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a schema is no login: %v", err)
	}
	b.asked(5)
}

func TestCacheLoadsOnceForAllWhoWait(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	open := b.source.shut()
	var waiting sync.WaitGroup
	got := make([]*registry.Tenant, 200)
	for i := range got {
		waiting.Go(func() { got[i], _ = b.cache.Tenant(t.Context(), "acme") })
	}
	receive(t, b.source.arrived, "question")
	open()
	waiting.Wait()
	for i, tenant := range got {
		if tenant == nil || tenant != got[0] {
			t.Fatalf("waiter %d got %v", i, tenant)
		}
	}
	b.asked(1)
}

func TestALoadSurvivesTheCallerThatStartedIt(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	open := b.source.shut()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := b.cache.Tenant(ctx, "acme")
		first <- err
	}()
	receive(t, b.source.arrived, "question")
	cancel()
	err := receive(t, first, "end of the first caller")
	if _, unavailable := errors.AsType[*registry.UnavailableError](err); !errors.Is(err, context.Canceled) || unavailable {
		t.Errorf("the first caller got %v", err)
	}
	open()
	b.found("acme")
	b.asked(1)
}

func TestALoadEndsAtItsOwnTimeout(t *testing.T) {
	b := newBench(t, registry.CacheOptions{LoadTimeout: 20 * time.Millisecond}, "acme")
	open := b.source.shut()
	defer open()
	b.unavailable("acme")
}

func TestCacheRemembersWhatDoesNotExist(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	b.absent("acme")
	b.clock.pass(100*time.Millisecond - 1)
	b.absent("acme")
	b.asked(1)
}

func TestATenantJustCreatedIsFoundAtOnceEvenWithoutANotification(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	b.absent("acme")
	b.source.put(tenantNamed("acme"))
	b.clock.pass(100 * time.Millisecond)
	b.found("acme")
	b.asked(2)
}

func TestRechecksAreBoundedOverTheWholeCache(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	b.cache = registry.NewCache(b.source, registry.CacheOptions{NegativeTTL: time.Hour, Now: b.clock.Now})
	names := make([]registry.TenantID, 500)
	for i := range names {
		names[i] = registry.TenantID(fmt.Sprint("name", i))
		b.absent(names[i])
	}
	b.asked(len(names))
	for range 10 {
		b.clock.pass(time.Second)
		for range 3 {
			for _, name := range names {
				b.absent(name)
			}
		}
		b.asked(20)
	}
}

func TestANegativeEntryEndsWithItsTTLWhateverTheBound(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	for i := range 100 {
		b.absent(registry.TenantID(fmt.Sprint("name", i)))
	}
	b.clock.pass(5 * time.Second)
	b.source.asks()
	for i := range 100 {
		b.absent(registry.TenantID(fmt.Sprint("name", i)))
	}
	b.asked(100)
}

func TestCacheServesAStaleTenantWhileTheRegistryIsDown(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	first := b.found("acme")
	b.source.setDown(true)
	b.clock.pass(time.Hour)
	if b.found("acme") != first {
		t.Error("another value is served")
	}
	b.clock.pass(1)
	b.unavailable("acme")
	b.unavailable("globex")
	b.source.setDown(false)
	b.clock.pass(time.Second)
	b.found("acme")
	b.absent("globex")
}

func TestMaxStaleBelowZeroServesNothingStale(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.cache = registry.NewCache(b.source, registry.CacheOptions{TTL: time.Minute, MaxStale: -1, Now: b.clock.Now})
	b.found("acme")
	b.source.setDown(true)
	b.clock.pass(time.Minute)
	b.unavailable("acme")
}

func TestWhileDownTheSourceIsAskedOnceASecondPerKey(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.found("acme")
	b.source.setDown(true)
	b.clock.pass(time.Minute)
	b.source.asks()
	for range 10 {
		for range 100 {
			b.found("acme")
			b.unavailable("globex")
		}
		b.asked(2)
		b.clock.pass(time.Second)
	}
}

func TestARecheckThatFailsLeavesTheNegativeEntry(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	b.absent("acme")
	b.source.setDown(true)
	b.clock.pass(time.Second)
	b.absent("acme")
	b.asked(2)
	b.clock.pass(5 * time.Second)
	b.unavailable("acme")
}

func TestATenantThatIsGoneAtItsReloadIsNotServedStaleLater(t *testing.T) {
	b := newBench(t, registry.CacheOptions{}, "acme")
	b.found("acme")
	b.source.remove("acme")
	b.clock.pass(time.Minute)
	b.absent("acme")
	b.source.setDown(true)
	b.clock.pass(5 * time.Second)
	b.unavailable("acme")
}

func TestGuessedNamesPushOutNoTenant(t *testing.T) {
	b := newBench(t, registry.CacheOptions{Size: 10}, "acme")
	b.found("acme")
	for i := range 1000 {
		b.absent(registry.TenantID(fmt.Sprint("name", i)))
	}
	b.source.setDown(true)
	for i := range 1000 {
		b.unavailable(registry.TenantID(fmt.Sprint("other", i)))
	}
	b.source.asks()
	b.found("acme")
	b.asked(0)
}

func TestCacheKeepsTheEntriesUsedLast(t *testing.T) {
	b := newBench(t, registry.CacheOptions{Size: 3}, "a", "b", "c", "d")
	for _, id := range []registry.TenantID{"a", "b", "c", "a", "d"} {
		b.found(id)
	}
	b.asked(4)
	b.found("a")
	b.found("c")
	b.found("d")
	b.asked(0)
	b.found("b")
	b.asked(1)
}

func TestNamesThatTheRegistryCannotHoldAreNeverAskedFor(t *testing.T) {
	b := newBench(t, registry.CacheOptions{})
	for _, name := range []string{"a\x00b", "\xff\xfe", strings.Repeat("x", 1021)} {
		b.absent(registry.TenantID(name))
	}
	b.asked(0)
}

func TestAnOutageIsLoggedWhenItBeginsAndWhenItEnds(t *testing.T) {
	var log strings.Builder
	b := newBench(t, registry.CacheOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, "acme")
	b.found("acme")
	b.source.setDown(true)
	for range 3 {
		b.clock.pass(time.Minute)
		b.found("acme")
		b.unavailable("globex")
	}
	b.source.setDown(false)
	b.clock.pass(time.Second)
	b.found("acme")
	b.absent("globex")
	if strings.Count(log.String(), "level=WARN") != 1 || strings.Count(log.String(), "\n") != 2 {
		t.Errorf("the log is\n%s", &log)
	}
}
