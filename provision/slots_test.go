package provision_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// slotted gives the site slots.
func (s *site) slotted(tb testing.TB, slots int) provision.InitResult {
	tb.Helper()
	result, err := s.Init(tb.Context(), provision.InitRequest{Slots: slots})
	if err != nil {
		tb.Fatal(err)
	}
	return result
}

// slotMembers are the memberships of slots: none, but for the moment of a switch.
const slotMembers = `SELECT member::regrole || ' in ' || roleid::regrole FROM pg_auth_members WHERE member::regrole::text ~ '^docex_s'`

const slotNames = `SELECT rolname::text FROM pg_roles WHERE rolname ~ '^docex_slot_' ORDER BY length(rolname), rolname`

func TestInitMakesSlotsAndNeverTakesOneAway(t *testing.T) {
	s := newSite(t)
	result := s.slotted(t, 2)
	if result.Slots != 2 || result.SlotsCreated != 2 || !slices.Contains(result.RolesCreated, provision.SwitcherRole) {
		t.Errorf("got %+v", result)
	}
	for wanted, now := range map[int]int{0: 2, 1: 2, 2: 2} {
		before := s.snapshot(t)
		if result := s.slotted(t, wanted); result.Slots != now || result.SlotsCreated != 0 || len(result.RolesCreated) > 0 {
			t.Errorf("got %+v", result)
		}
		equal(t, before, s.snapshot(t))
	}
	if result := s.slotted(t, 3); result.Slots != 3 || result.SlotsCreated != 1 {
		t.Errorf("got %+v", result)
	}
	if got := lines(t, s.conn, slotNames); !slices.Equal(got, []string{"docex_slot_1", "docex_slot_2", "docex_slot_3"}) {
		t.Errorf("slots %q", got)
	}
	events := lines(t, s.conn, `SELECT detail->>'slots_created' FROM docex_system.tenant_event WHERE detail ? 'slots_created' ORDER BY id`)
	if !slices.Equal(events, []string{"2", "1"}) {
		t.Errorf("events %q", events)
	}
}

func TestInitMakesNoSlotsUnlessAsked(t *testing.T) {
	s := newInitialisedSite(t)
	if got := lines(t, s.conn, `SELECT rolname::text FROM pg_roles WHERE rolname ~ '^docex_s'`); len(got) > 0 {
		t.Errorf("roles %q", got)
	}
	for _, number := range []int{-1, 10_001} {
		_, err := s.Init(t.Context(), provision.InitRequest{Slots: number})
		if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
			t.Errorf("%d slots: got %v", number, err)
		}
	}
}

func TestAnotherDatabasesRegistryGetsTheSameSlots(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 2)
	execute(t, s.conn, "CREATE DATABASE another TEMPLATE template0")
	other := &site{dsn: in(t, "another", s.dsn), key: s.key}
	other.Provisioner, other.conn = other.with(s.key), connect(t, in(t, "another", s.dsn))
	if result := other.slotted(t, 0); result.Slots != 0 {
		t.Errorf("got %+v", result)
	}
	if result := other.slotted(t, 1); result.Slots != 2 || result.SlotsCreated != 0 {
		t.Errorf("got %+v", result)
	}
	other.as(t, "docex_slot_2")
	other.createAt(t, "acme", registry.IsolationSlot)
	execute(t, other.as(t, provision.SwitcherRole), "SELECT docex_system.renew_slot(1, NULL)")
	_ = other.conn.Close(t.Context())
}

func TestTheFirstTenantAtLevelSlotBringsSlots(t *testing.T) {
	s := newInitialisedSite(t)
	tenant := s.createAt(t, "acme", registry.IsolationSlot)
	if tenant.Route.Isolation != registry.IsolationSlot || tenant.Route.Role != "tenant_acme" {
		t.Errorf("got %+v", tenant.Route)
	}
	if got := lines(t, s.conn, slotNames); len(got) != 50 || got[49] != "docex_slot_50" {
		t.Errorf("slots %q", got)
	}
	event := lines(t, s.conn, `SELECT detail::text FROM docex_system.tenant_event WHERE tenant_id = '_docex_system_' ORDER BY id DESC LIMIT 1`)
	if want := []string{`{"roles_created": ["docex_switcher"], "slots_created": 50}`}; !slices.Equal(event, want) {
		t.Errorf("event %q", event)
	}
	s.createAt(t, "globex", registry.IsolationSlot)
	if got := lines(t, s.conn, slotNames); len(got) != 50 {
		t.Errorf("%d slots", len(got))
	}
	if result := s.slotted(t, 51); result.Slots != 51 || result.SlotsCreated != 1 {
		t.Errorf("got %+v", result)
	}
}

func TestNothingIsLeftWhenTheFirstTenantAtLevelSlotFails(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	boom := errors.New("boom")
	for _, name := range []string{"grant the shared rights", "check the result"} { // what comes before is as at level role
		failing := s.failAfter(name, func() error { return boom })
		if _, err := failing.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot}); !errors.Is(err, boom) {
			t.Errorf("%s: got %v", name, err)
		}
		equal(t, before, s.snapshot(t))
	}
}

func TestSeveralFirstTenantsAtLevelSlotAreCreatedSideBySide(t *testing.T) {
	s := newInitialisedSite(t)
	errs := make([]error, 4)
	var all sync.WaitGroup
	for i := range errs {
		r := provision.TenantRequest{ID: registry.TenantID(fmt.Sprintf("a%d", i)), Isolation: registry.IsolationSlot}
		all.Go(func() { _, errs[i] = s.CreateTenant(t.Context(), r) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if got := lines(t, s.conn, slotNames); len(got) != 50 {
		t.Errorf("%d slots", len(got))
	}
}

func TestASlotBecomesATenantWhenTheSwitcherLetsItAndNotOtherwise(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	s.createAt(t, "acme", registry.IsolationSlot)
	s.createAt(t, "globex", registry.IsolationSlot)
	switcher, slot := s.as(t, provision.SwitcherRole), s.as(t, "docex_slot_1")
	nothing := func() {
		t.Helper()
		for _, sql := range []string{
			"SET ROLE tenant_acme", "SET ROLE tenant_globex", "SET ROLE docex_switcher", "SET ROLE docex_owner",
			"SELECT FROM tenant_acme.docbasket", "SELECT FROM docex_system.tenant_registry", "SELECT docex_system.renew_slot(1, NULL)",
			"CREATE TABLE public.mine ()", "CREATE TEMPORARY TABLE mine ()", "CREATE SCHEMA mine", "GRANT tenant_acme TO docex_slot_1",
		} {
			refused(t, slot, "42501", sql)
		}
	}
	nothing()
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, true)")
	execute(t, slot, "SET ROLE tenant_acme")
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, false)")
	if got := lines(t, s.conn, slotMembers); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	execute(t, slot, "SELECT FROM tenant_acme.docbasket; CREATE TABLE tenant_acme.extra (id serial)")
	refused(t, slot, "42501", "SELECT FROM tenant_globex.docbasket")
	execute(t, slot, "RESET ROLE")
	nothing()
}

func TestTheSwitcherHasNoRightOfItsOwn(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	if _, err := s.Init(t.Context(), provision.InitRequest{Harden: provision.HardenLight}); err != nil {
		t.Fatal(err)
	}
	s.createAt(t, "acme", registry.IsolationSlot)
	conn := s.as(t, provision.SwitcherRole)
	for _, sql := range []string{
		"SELECT FROM tenant_acme.docbasket",
		"SELECT FROM docex_system.tenant_registry",
		"SELECT FROM docex_system.tenant_route",
		"SELECT FROM docex_system.proxy_login",
		"SELECT FROM pg_authid",
		"CREATE ROLE mine",
		"CREATE SCHEMA mine",
		"CREATE TABLE docex_system.mine ()",
		"CREATE TABLE public.mine ()",
		"CREATE TEMPORARY TABLE mine ()",
		"GRANT tenant_acme TO docex_slot_1",
		"GRANT tenant_acme TO docex_switcher",
		"GRANT docex_owner TO docex_slot_1",
		"GRANT pg_read_all_data TO docex_slot_1",
		"SET ROLE tenant_acme",
		"SET ROLE docex_owner",
		"SET ROLE docex_slot_1",
		"ALTER ROLE docex_slot_1 CONNECTION LIMIT 2",
		"ALTER ROLE tenant_acme PASSWORD 'stolen'",
		"DROP ROLE tenant_acme",
		"ALTER FUNCTION docex_system.seat(text, integer, boolean) SECURITY INVOKER",
	} {
		refused(t, conn, "42501", sql)
	}
	execute(t, conn, "SELECT FROM pg_auth_members; SELECT FROM pg_db_role_setting; SELECT FROM pg_roles")
}

func TestASlotHasOneSessionAtMost(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	s.as(t, "docex_slot_1")
	conn, err := pgx.Connect(t.Context(), s.login(t, "docex_slot_1", s.key.Password("docex_slot_1", 1)))
	if err == nil {
		_ = conn.Close(t.Context())
	}
	if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != "53300" {
		t.Errorf("got %v", err)
	}
}

func TestATenantAtLevelSlotHasALoginOfItsOwn(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	s.createAt(t, "acme", registry.IsolationSlot)
	compareCatalog(t, s.conn, "tenant_acme", all)
	conn := s.as(t, "tenant_acme")
	execute(t, conn, "SELECT FROM docbasket")
	refused(t, conn, "42501", "SET ROLE docex_switcher")
	refused(t, conn, "42501", "GRANT tenant_acme TO docex_slot_1")
}

func TestRekeyMovesSwitcherAndSlotsToTheNewKey(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	other := secret.New()
	_, err := s.with(other).Init(t.Context(), provision.InitRequest{Slots: 1})
	if _, ok := errors.AsType[*provision.KeyMismatchError](err); !ok {
		t.Errorf("got %v", err)
	}
	s.key = other
	result, err := s.with(s.key).Init(t.Context(), provision.InitRequest{Rekey: true, Slots: 2})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"docex_pool", "docex_registry", "docex_slot_1", "docex_switcher"}; !slices.Equal(result.RolesRekeyed, want) {
		t.Errorf("rekeyed %q, want %q", result.RolesRekeyed, want)
	}
	for _, role := range []string{provision.SwitcherRole, "docex_slot_1", "docex_slot_2"} {
		s.as(t, role)
	}
}

func TestASwitcherOfAnotherKeyIsRefused(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	execute(t, s.conn, "ALTER ROLE docex_switcher PASSWORD 'another'")
	before := s.snapshot(t)
	_, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot})
	if mismatch, ok := errors.AsType[*provision.KeyMismatchError](err); !ok || mismatch.Role != provision.SwitcherRole {
		t.Errorf("got %v", err)
	}
	_, err = s.Init(t.Context(), provision.InitRequest{})
	if mismatch, ok := errors.AsType[*provision.KeyMismatchError](err); !ok || mismatch.Role != provision.SwitcherRole {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestARoleThatIsMoreThanASlotIsRefused(t *testing.T) {
	for role, attributes := range map[string][]string{
		provision.SwitcherRole: {"LOGIN SUPERUSER", "LOGIN CREATEROLE", "NOLOGIN", "LOGIN INHERIT"},
		"docex_slot_1":         {"LOGIN NOINHERIT", "LOGIN INHERIT CONNECTION LIMIT 1", "LOGIN NOINHERIT SUPERUSER CONNECTION LIMIT 1", "NOINHERIT CONNECTION LIMIT 1"},
	} {
		for _, attribute := range attributes {
			t.Run(role+" "+attribute, func(t *testing.T) {
				s := newInitialisedSite(t)
				execute(t, s.conn, "CREATE ROLE "+role+" "+attribute)
				before := s.snapshot(t)
				_, err := s.Init(t.Context(), provision.InitRequest{Slots: 2, Rekey: true})
				if conflict, ok := errors.AsType[*provision.ConflictError](err); !ok || conflict.Name != role {
					t.Errorf("got %v", err)
				}
				equal(t, before, s.snapshot(t))
			})
		}
	}
}

func TestAProvisionerCreatesTenantsAtLevelSlotWhereSlotsArePrepared(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "NOINHERIT")
	before := s.snapshot(t)
	r := provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot}
	if _, err := p.CreateTenant(t.Context(), r); err == nil || !strings.Contains(err.Error(), "docexctl init --slots N` as a superuser") {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
	s.slotted(t, 1)
	if _, err := p.CreateTenant(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	switcher, slot := s.as(t, provision.SwitcherRole), s.as(t, "docex_slot_1")
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, true)")
	execute(t, slot, "SET ROLE tenant_acme")
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 1, false)")
	if got := lines(t, s.conn, slotMembers); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

func TestATenantThatNobodyMaySeatIsNotCreated(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	execute(t, s.conn, "CREATE ROLE powerless; ALTER FUNCTION docex_system.seat(text, integer, boolean) OWNER TO powerless")
	before := s.snapshot(t)
	_, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot})
	if err == nil || !strings.Contains(err.Error(), `"powerless", which owns docex_system.seat(), may not grant role "tenant_acme"`) {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestADryRunShowsTheSlotsWithoutVerifiers(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	var shown []string
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, DryRun: func(sql string) { shown = append(shown, sql) }})
	if _, err := dry.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot}); err != nil {
		t.Fatal(err)
	}
	equal(t, before, s.snapshot(t))
	all := strings.Join(shown, "\n")
	for _, want := range []string{
		`CREATE ROLE "docex_switcher"`, `CREATE ROLE "docex_slot_50"`, `CONNECTION LIMIT 1 PASSWORD 'SCRAM-SHA-256$[redacted]'`,
		`FUNCTION docex_system.renew_slot(slot integer, verifier text)`,
		`FUNCTION docex_system.seat(tenant text, slot integer, take boolean)`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is missing from\n%s", want, all)
		}
	}
	if strings.Contains(all, "SCRAM-SHA-256$4096") {
		t.Error("a verifier was shown")
	}
}
