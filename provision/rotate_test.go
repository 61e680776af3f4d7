package provision_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestARotatedTenantLogsInWithTheNextPasswordOnly(t *testing.T) {
	s := newInitialisedSite(t)
	s.slotted(t, 1)
	for _, level := range []registry.Isolation{registry.IsolationRole, registry.IsolationSlot, registry.IsolationDatabase} {
		t.Run(string(level), func(t *testing.T) {
			id := registry.TenantID("at_" + string(level))
			tenant := s.createAt(t, id, level)
			role := tenant.Route.Role
			open := connect(t, in(t, tenant.Route.Database, s.login(t, role, s.key.Password(role, 1))))
			listener := connect(t, s.dsn)
			execute(t, listener, "LISTEN docex_registry")

			result, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: id, Actor: "admin"})
			if err != nil {
				t.Fatal(err)
			}
			if result.Role != role || result.Generation != 2 {
				t.Errorf("got %+v", result)
			}
			if notice, err := listener.WaitForNotification(t.Context()); err != nil || notice.Payload != string(id) {
				t.Errorf("notified of %+v, %v", notice, err)
			}
			refusedLogin(t, in(t, tenant.Route.Database, s.login(t, role, s.key.Password(role, 1))))
			connect(t, in(t, tenant.Route.Database, s.login(t, role, s.key.Password(role, 2))))
			execute(t, open, "SELECT FROM docbasket")

			stored, err := s.store(t).Tenant(t.Context(), id)
			if err != nil || stored.Route.SecretGeneration != 2 || stored.Route.Version != 2 {
				t.Errorf("stored %+v, %v", stored.Route, err)
			}
			events := lines(t, s.conn, `SELECT concat_ws(' ', verb, actor, detail) FROM docex_system.tenant_event WHERE tenant_id = $1 AND verb <> 'create'`, string(id))
			if want := []string{`rotate admin {"role": "` + role + `", "generation": 2}`}; !slices.Equal(events, want) {
				t.Errorf("events %q, want %q", events, want)
			}
		})
	}
}

func refusedLogin(tb testing.TB, dsn string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), dsn)
	if err == nil {
		_ = conn.Close(tb.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "28P01") {
		tb.Errorf("want SQLSTATE 28P01, got %v", err)
	}
}

func TestAPasswordThatATenantHasChosenEndsWithARotation(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	execute(t, s.as(t, "tenant_acme"), "ALTER ROLE CURRENT_USER PASSWORD 'chosen'")
	if _, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	refusedLogin(t, s.login(t, "tenant_acme", "chosen"))
	connect(t, s.login(t, "tenant_acme", s.key.Password("tenant_acme", 2)))
}

func TestARotationThatFailsChangesNothing(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	boom := errors.New("boom")
	before := s.snapshot(t)
	for _, name := range []string{"wait for the tenant's lock", "raise the generation", "set the password"} {
		p := s.failAfter(name, func() error { return boom })
		if _, err := p.RotateTenant(t.Context(), provision.RotateRequest{ID: "acme"}); !errors.Is(err, boom) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	_, err := s.with(secret.New()).RotateTenant(t.Context(), provision.RotateRequest{ID: "acme"})
	if _, ok := errors.AsType[*provision.KeyMismatchError](err); !ok {
		t.Errorf("another key: got %v", err)
	}
	if _, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: "nobody"}); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	_, err = s.RotateTenant(t.Context(), provision.RotateRequest{ID: registry.SystemTenantID})
	if conflict, ok := errors.AsType[*provision.ConflictError](err); !ok || conflict.Object != "tenant" {
		t.Errorf("got %v", err)
	}
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, DryRun: func(sql string) {
		if strings.Contains(sql, "SCRAM-SHA-256$4096") {
			t.Error("a verifier was shown")
		}
	}})
	if _, err := dry.RotateTenant(t.Context(), provision.RotateRequest{ID: "acme"}); err != nil {
		t.Error(err)
	}
	equal(t, before, s.snapshot(t))
}

func TestAProvisionerRotatesTheTenantsThatItHasCreated(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "NOINHERIT")
	if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.RotateTenant(t.Context(), provision.RotateRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	connect(t, s.login(t, "tenant_acme", s.key.Password("tenant_acme", 2)))
}
