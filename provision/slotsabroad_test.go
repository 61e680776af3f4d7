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

// sharedSlot is a request for a tenant at level slot on the other server.
func sharedSlot(t *testing.T, id registry.TenantID) provision.TenantRequest {
	r := shared(t, id)
	r.Isolation = registry.IsolationSlot
	return r
}

// asThere logs in to the database that tenants share on the other server.
func (s *twoServers) asThere(t *testing.T, role string) *pgx.Conn {
	t.Helper()
	return connect(t, s.inShared(t, role, 1))
}

// inSharedAsSuperuser is in the same place, with every right.
func (s *twoServers) inSharedAsSuperuser(t *testing.T) *pgx.Conn {
	t.Helper()
	return connect(t, in(t, s.conn.Config().Database, s.eu.DSN("postgres")))
}

func TestATenantAtLevelSlotCanBeOnAnotherServer(t *testing.T) {
	for name, at := range map[string]func(*twoServers) *provision.Provisioner{
		"by a superuser": func(s *twoServers) *provision.Provisioner { return s.Provisioner },
		"by another":     func(s *twoServers) *provision.Provisioner { return s.reaching(s.key, s.maker(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTwoServers(t)
			p := at(s)
			for _, r := range []provision.TenantRequest{sharedSlot(t, "acme"), sharedSlot(t, "globex"), shared(t, "initech")} {
				if _, err := p.CreateTenant(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			there := s.inSharedAsSuperuser(t)
			if got := lines(t, there, slotNames); len(got) != 50 {
				t.Errorf("%d slots", len(got))
			}
			if got := lines(t, s.conn, slotNames); len(got) != 0 {
				t.Errorf("%d slots on the registry's server", len(got))
			}
			switcher, slot := s.asThere(t, provision.SwitcherRole), s.asThere(t, "docex_slot_1")
			for _, conn := range []*pgx.Conn{slot, s.asThere(t, "tenant_acme"), switcher} {
				for _, sql := range []string{
					"SELECT FROM docex_system.slot_tenant", "INSERT INTO docex_system.slot_tenant VALUES ('docex_owner')",
					"SELECT 1; LOCK TABLE docex_system.slot_tenant IN SHARE MODE", "SELECT last_value FROM docex_system.docex_slot_1",
					"SELECT setval('docex_system.docex_slot_1', 16384)", "SELECT FROM tenant_globex.notes", "SET ROLE tenant_globex",
				} {
					refused(t, conn, "42501", sql)
				}
			}
			refused(t, slot, "42501", "SELECT docex_system.seat('tenant_acme', 1, true)")
			for _, role := range []string{"tenant_initech", "docex_owner", "docex_slot_2", "postgres", "pg_read_all_data", "nobody"} {
				refused(t, switcher, "42704", "SELECT docex_system.seat('"+role+"', 1, true)")
			}
			refused(t, switcher, "42704", "SELECT docex_system.seat('tenant_acme', 51, true)")
			execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, true)")
			execute(t, slot, "SET ROLE tenant_acme")
			execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, false)")
			execute(t, slot, "INSERT INTO tenant_acme.notes VALUES (1, 'mine')")
			refused(t, slot, "42501", "SELECT FROM tenant_globex.notes")
			if got := lines(t, there, "SELECT last_value::oid::regrole::text FROM docex_system.docex_slot_1"); got[0] != "tenant_acme" {
				t.Errorf("the record says that the slot was lent to %s", got)
			}

			if findings, err := s.VerifyTenants(t.Context(), provision.VerifyRequest{Key: &s.key, Template: smallTemplate(t)}); err != nil || len(findings) > 0 {
				t.Errorf("%v, %v", findings, err)
			}
			execute(t, there, "DELETE FROM docex_system.slot_tenant WHERE role_name = 'tenant_globex'")
			findings, err := s.VerifyTenants(t.Context(), provision.VerifyRequest{Key: &s.key, Template: smallTemplate(t)})
			if err != nil || len(findings) != 1 || findings[0].Tenant != "globex" || !strings.Contains(findings[0].Problem, `no slot of server "eu"`) {
				t.Errorf("%v, %v", findings, err)
			} else {
				execute(t, there, strings.TrimPrefix(findings[0].Remedy, "as docex_owner: "))
			}
			if _, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Transition: provision.Delete}); err != nil {
				t.Fatal(err)
			}
			if err := p.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme"}); err != nil {
				t.Fatal(err)
			}
			if got := lines(t, there, "SELECT role_name FROM docex_system.slot_tenant"); !slices.Equal(got, []string{"tenant_globex"}) {
				t.Errorf("slots are lent to %q", got)
			}
		})
	}
}

func TestSlotsAreMadeOnAnotherServerBeforeTheyAreNeeded(t *testing.T) {
	s := newTwoServers(t)
	for _, want := range []provision.SlotsResult{{Slots: 2, Created: 2}, {Slots: 3, Created: 1}, {Slots: 3}} {
		want.Server, want.Database = "eu", s.conn.Config().Database
		got, err := s.PrepareSlots(t.Context(), provision.SlotsRequest{Server: "eu", Slots: want.Slots})
		if err != nil || got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	}
	if got, err := s.PrepareSlots(t.Context(), provision.SlotsRequest{Server: "eu", Slots: 1}); err != nil || got.Slots != 3 || got.Created != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.CreateTenant(t.Context(), sharedSlot(t, "acme")); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, s.inSharedAsSuperuser(t), slotNames); len(got) != 3 {
		t.Errorf("%d slots", len(got))
	}
	events := lines(t, s.conn, `SELECT detail::text FROM docex_system.tenant_event WHERE detail ? 'slots_created' ORDER BY id`)
	if want := []string{`{"server": "eu", "slots_created": 2}`, `{"server": "eu", "slots_created": 1}`}; !slices.Equal(events, want) {
		t.Errorf("events %q", events)
	}
	for _, r := range []provision.SlotsRequest{{Server: "eu"}, {Server: "eu", Slots: 10_001}, {Server: "main", Slots: 1}, {Server: "us", Slots: 1}} {
		_, err := s.PrepareSlots(t.Context(), r)
		if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
			t.Errorf("%+v: got %v", r, err)
		}
	}

	execute(t, s.inSharedAsSuperuser(t), "ALTER ROLE docex_switcher PASSWORD 'another'")
	for name, run := range map[string]func() error{
		"a tenant": func() error { _, err := s.CreateTenant(t.Context(), sharedSlot(t, "globex")); return err },
		"slots": func() error {
			_, err := s.PrepareSlots(t.Context(), provision.SlotsRequest{Server: "eu", Slots: 4})
			return err
		},
	} {
		if mismatch, ok := errors.AsType[*provision.KeyMismatchError](run()); !ok || mismatch.Role != provision.SwitcherRole {
			t.Errorf("%s: got %v", name, run())
		}
	}
}

func TestADatabaseThatGetsARegistryLendsSlotsToTenantsOfBoth(t *testing.T) {
	s := newTwoServers(t)
	if _, err := s.CreateTenant(t.Context(), sharedSlot(t, "acme")); err != nil {
		t.Fatal(err)
	}
	own := provision.New(provision.Options{DSN: in(t, s.conn.Config().Database, s.eu.DSN("postgres")), Key: s.key})
	if _, err := own.Init(t.Context(), provision.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := own.CreateTenant(t.Context(), provision.TenantRequest{ID: "globex", Isolation: registry.IsolationSlot, Template: smallTemplate(t)}); err != nil {
		t.Fatal(err)
	}
	switcher := s.asThere(t, provision.SwitcherRole)
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, true), docex_system.seat('tenant_globex', 2, true)")
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, false), docex_system.seat('tenant_globex', 2, false)")
}

func TestRekeyMovesTheRolesOfOtherServersToTheNewKeyToo(t *testing.T) {
	s := newTwoServers(t)
	for _, r := range []provision.TenantRequest{sharedSlot(t, "acme"), inEurope("globex")} {
		if _, err := s.CreateTenant(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: "globex"}); err != nil {
		t.Fatal(err)
	}
	s.key = secret.New()
	result, err := s.with(s.key).Init(t.Context(), provision.InitRequest{Rekey: true})
	if err != nil || !slices.Equal(result.NotRekeyed, []string{"eu"}) || len(result.RolesRekeyed) != 2 {
		t.Errorf("got %+v, %v", result, err)
	}
	result, err = s.reaching(s.key, s.eu.DSN("postgres")).Init(t.Context(), provision.InitRequest{Rekey: true})
	if err != nil || len(result.NotRekeyed) > 0 || !slices.Contains(result.RolesRekeyed, "eu/tenant_acme") {
		t.Errorf("got %+v, %v", result, err)
	}
	s.asThere(t, "tenant_acme")
	s.asThere(t, "docex_slot_50")
	s.asThere(t, provision.SwitcherRole)
	connect(t, s.there(t, "tenant_globex", 2))
}
