package provision_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

var levels = []registry.Isolation{registry.IsolationRole, registry.IsolationSlot, registry.IsolationTrusted, registry.IsolationDatabase}

func (s *site) transition(tb testing.TB, id registry.TenantID, transition provision.Transition) {
	tb.Helper()
	if _, err := s.ChangeTenant(tb.Context(), provision.ChangeRequest{ID: id, Transition: transition}); err != nil {
		tb.Fatal(err)
	}
}

func (s *site) purge(tb testing.TB, p *provision.Provisioner, id registry.TenantID) {
	tb.Helper()
	if err := p.PurgeTenant(tb.Context(), provision.PurgeRequest{ID: id}); err != nil {
		tb.Fatal(err)
	}
}

func TestAPurgedTenantLeavesNothingButItsAuditTrail(t *testing.T) {
	s := newInitialisedSite(t)
	for _, level := range levels {
		t.Run(string(level), func(t *testing.T) {
			s.createAt(t, registry.TenantID("stays_"+string(level)), level)
			s.purge(t, s.Provisioner, func() registry.TenantID { // what the first of a level makes for all is there now
				s.createAt(t, "first", level)
				s.transition(t, "first", provision.Delete)
				return "first"
			}())
			execute(t, s.conn, "DELETE FROM docex_system.tenant_event")
			before := s.snapshot(t)
			acme := s.createAt(t, "acme", level)
			if _, err := s.CreateLogin(t.Context(), provision.LoginRequest{Name: "app", Tenants: []registry.TenantID{"acme"}}); err != nil {
				t.Fatal(err)
			}
			mine := connect(t, in(t, acme.Route.Database, s.login(t, acme.Route.Role, s.key.Password(acme.Route.Role, 1))))
			execute(t, mine, `CREATE VIEW seen AS SELECT * FROM document; SELECT lo_create(0); GRANT SELECT ON document TO PUBLIC;
				ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC`)
			if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme"}); !isConflict(err) {
				t.Fatalf("an active tenant: %v", err)
			}
			s.transition(t, "acme", provision.Delete)
			s.purge(t, s.Provisioner, "acme")
			events := lines(t, s.conn, `SELECT verb FROM docex_system.tenant_event WHERE tenant_id = 'acme' ORDER BY id`)
			if !slices.Equal(events, []string{"create", "login_create", "delete", "purge"}) {
				t.Errorf("events %q", events)
			}
			execute(t, s.conn, "DELETE FROM docex_system.proxy_login; DELETE FROM docex_system.tenant_event")
			equal(t, before, s.snapshot(t))
			s.createAt(t, "acme", level) // the id is free again
			s.transition(t, "acme", provision.Delete)
			s.purge(t, s.Provisioner, "acme")
		})
	}
}

func TestWhoeverMayProvisionMayPurge(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "CREATEDB")
	before := s.snapshot(t)
	for _, level := range []registry.Isolation{registry.IsolationRole, registry.IsolationDatabase} {
		if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: level}); err != nil {
			t.Fatal(err)
		}
		s.transition(t, "acme", provision.Delete)
		s.purge(t, p, "acme")
		execute(t, s.conn, "DELETE FROM docex_system.tenant_event WHERE tenant_id = 'acme'")
		equal(t, before, s.snapshot(t))
	}
}

func TestAPurgeThatIsEndedIsFinishedByTheNext(t *testing.T) {
	s := newInitialisedSite(t)
	boom := errors.New("boom")
	for _, level := range []registry.Isolation{registry.IsolationSlot, registry.IsolationDatabase} {
		for i, name := range provision.PurgeStepNames() {
			id := registry.TenantID(fmt.Sprintf("%s%d", level, i))
			tenant := s.createAt(t, id, level)
			s.transition(t, id, provision.Delete)
			before := s.snapshot(t)
			if err := s.failAfter(name, func() error { return boom }).PurgeTenant(t.Context(), provision.PurgeRequest{ID: id}); !errors.Is(err, boom) {
				t.Fatal(level, name, err)
			}
			dropped := len(lines(t, s.conn, `SELECT 'x' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, tenant.Route.Database)) > 0
			if !dropped {
				equal(t, before, s.snapshot(t))
			} else if _, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: id, Transition: provision.Restore}); !isConflict(err) {
				t.Errorf("%s, %s: restored without its data: %v", level, name, err)
			}
			s.purge(t, s.Provisioner, id)
			if left := lines(t, s.conn, `SELECT rolname FROM pg_roles WHERE rolname = $1 UNION ALL SELECT tenant_id FROM docex_system.tenant_registry WHERE schema_name = $1`, tenant.SchemaName); len(left) > 0 {
				t.Errorf("%s, %s: %q are left", level, name, left)
			}
		}
	}
}

func TestADeletedTenantIsKeptAndRestored(t *testing.T) {
	s := newInitialisedSite(t)
	acme := s.create(t, "acme")
	execute(t, s.as(t, acme.Route.Role), "CREATE TABLE kept AS SELECT 1")
	s.transition(t, "acme", provision.Delete)
	if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme", Grace: time.Hour}); !isConflict(err) {
		t.Errorf("within the grace period: %v", err)
	}
	if _, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Transition: provision.Resume}); !isConflict(err) {
		t.Errorf("resumed: %v", err)
	}
	s.transition(t, "acme", provision.Restore)
	execute(t, s.as(t, acme.Route.Role), "SELECT * FROM kept")
	s.transition(t, "acme", provision.Delete)
	later := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	if err := later.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme", Grace: time.Hour}); err != nil {
		t.Errorf("after the grace period: %v", err)
	}
	if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme"}); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("purged twice: %v", err)
	}
}

func TestWhatIsNotTheTenantsAloneIsNotPurged(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	s.transition(t, "acme", provision.Delete)
	execute(t, s.conn, "CREATE DATABASE elsewhere")
	elsewhere := connect(t, in(t, "elsewhere", s.dsn))
	execute(t, elsewhere, "GRANT USAGE ON SCHEMA public TO tenant_acme")
	elsewhere.Close(t.Context())
	refused := func(what string) {
		t.Helper()
		before := s.snapshot(t)
		if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme"}); !isConflict(err) {
			t.Errorf("%s: %v", what, err)
		}
		equal(t, before, s.snapshot(t))
	}
	refused("a role with rights elsewhere")
	execute(t, s.conn, "DROP DATABASE elsewhere")
	execute(t, s.conn, "ALTER ROLE tenant_acme CREATEDB")
	refused("a role with power")
	execute(t, s.conn, "ALTER ROLE tenant_acme NOCREATEDB")
	execute(t, s.conn, `INSERT INTO docex_system.tenant_registry VALUES ('twin', 'Twin', false, 'schema', 'tenant_acme', NULL, now(), 'docex', now(), NULL)`)
	refused("a schema that is another's too")
	if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: registry.SystemTenantID}); !isConflict(err) {
		t.Errorf("the system tenant: %v", err)
	}
}
