package provision_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestTheSwitcherRenewsASlotThatATenantHasSpoilt(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 2)
	renewsSpoiltSlot(t, s)
}

// On Postgres 15, CREATEROLE is what it takes; since 16, the admin option that whoever creates a role gets.
func TestASlotIsRenewedAlsoWhereNoSuperuserHasMadeIt(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "")
	execute(t, s.conn, "ALTER SCHEMA docex_system OWNER TO provisioner; ALTER TABLE docex_system.tenant_route OWNER TO provisioner")
	if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot}); err != nil {
		t.Fatal(err)
	}
	renewsSpoiltSlot(t, s)
	switcher, slot := s.as(t, provision.SwitcherRole), s.as(t, "docex_slot_3")
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 3, true)")
	execute(t, slot, "SET ROLE tenant_acme")
	execute(t, switcher, "SELECT docex_system.seat('tenant_acme', 3, false)")
	if got := lines(t, s.conn, slotMembers); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// The functions run as whoever has made them, and read what hardening takes from PUBLIC.
func TestASlotIsRenewedAndSeatedInAHardenedDatabaseToo(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "")
	execute(t, s.conn, "ALTER SCHEMA docex_system OWNER TO provisioner; ALTER TABLE docex_system.tenant_route OWNER TO provisioner")
	if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Isolation: registry.IsolationSlot}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Init(t.Context(), provision.InitRequest{Harden: provision.HardenLight}); err != nil {
		t.Fatal(err)
	}
	renewsSpoiltSlot(t, s)
	execute(t, s.as(t, provision.SwitcherRole), "SELECT docex_system.seat('tenant_acme', 3, true); SELECT docex_system.seat('tenant_acme', 3, false)")
}

func renewsSpoiltSlot(t *testing.T, s *site) {
	t.Helper()
	const slot = "docex_slot_1"
	database := pgx.Identifier{s.conn.Config().Database}.Sanitize()
	spoilt := s.as(t, slot)
	execute(t, spoilt, "ALTER ROLE CURRENT_USER PASSWORD 'stolen'; ALTER ROLE CURRENT_USER SET search_path = mine; "+
		"ALTER ROLE CURRENT_USER IN DATABASE "+database+" SET default_transaction_read_only = on; "+
		"ALTER ROLE CURRENT_USER IN DATABASE template1 SET work_mem = '1MB'; "+ // where it cannot even connect
		"ALTER ROLE CURRENT_USER SET local_preload_libraries = 'none'") // no login is possible with this one
	_ = spoilt.Close(t.Context())
	execute(t, s.conn, "ALTER ROLE docex_slot_1 CONNECTION LIMIT 5")

	switcher := s.as(t, provision.SwitcherRole)
	verifier := scram.NewVerifier(s.key.Password(slot, 1)).String()
	execute(t, switcher, "SELECT docex_system.renew_slot(1, E'"+verifier+"')")
	attributes := lines(t, s.conn, `
SELECT concat_ws(' ', rolconnlimit, rolpassword, (SELECT count(*) FROM pg_db_role_setting WHERE setrole = r.oid))
  FROM pg_authid AS r WHERE rolname = 'docex_slot_1'`)
	if want := []string{"1 " + verifier + " 0"}; !slices.Equal(attributes, want) {
		t.Errorf("got %q, want %q", attributes, want)
	}
	s.as(t, slot)

	execute(t, switcher, "SELECT docex_system.renew_slot(2, NULL)")
	if password := lines(t, s.conn, `SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = 'docex_slot_2'`); password[0] != "none" {
		t.Errorf("got %q", password)
	}
}

func TestRenewingTakesTheNumberOfASlotAndAVerifierAndNothingElse(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 2)
	execute(t, s.conn, "CREATE ROLE docex_slot_7 SUPERUSER LOGIN; CREATE ROLE docex_slot_8 NOLOGIN; CREATE ROLE docex_slot_0 LOGIN")
	before := s.snapshot(t)
	switcher := s.as(t, provision.SwitcherRole)
	verifier := scram.NewVerifier("x").String()
	const notOurs, malformed, tooLarge = "22023", "22P02", "22003"
	for _, c := range []struct{ slot, verifier, code string }{
		{"3", verifier, notOurs},
		{"0", verifier, notOurs},
		{"-1", verifier, notOurs},
		{"2147483647", verifier, notOurs},
		{"7", verifier, notOurs},
		{"8", verifier, notOurs},
		{"99999999999999999999", verifier, tooLarge},
		{"x; DROP ROLE docex_slot_1", verifier, malformed},
		{"1 SUPERUSER", verifier, malformed},
		{"", verifier, malformed},
		{"1", "", notOurs},
		{"1", "clear text", notOurs},
		{"1", "' SUPERUSER --", notOurs},
		{"1", "md5" + strings.Repeat("0", 32), notOurs},
		{"1", strings.Replace(verifier, "4096", "0", 1), notOurs},
		{"1", strings.Replace(verifier, "4096", "10000000", 1), notOurs}, // seconds of work for whoever logs in
		{"1", strings.Replace(verifier, "4096:", "4096:=", 1), notOurs},
		{"1", strings.Replace(verifier, "SCRAM", "scram", 1), notOurs},
		{"1", verifier + "\n", notOurs},
		{"1", "\n" + verifier, notOurs},
		{"1", verifier + "' SUPERUSER", notOurs},
		{"1", verifier[:len(verifier)-1], notOurs},
		{"1", verifier[:len(verifier)-4], notOurs},
	} {
		// As text: Postgres reads it, not the driver.
		_, err := switcher.Exec(t.Context(), "SELECT docex_system.renew_slot($1::text::integer, $2)", c.slot, c.verifier)
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != c.code {
			t.Errorf("slot %q, verifier %q: want SQLSTATE %s, got %v", c.slot, c.verifier, c.code, err)
		}
	}
	refused(t, switcher, notOurs, "SELECT docex_system.renew_slot(NULL, NULL)")
	equal(t, before, s.snapshot(t))
}

func TestNobodyButTheSwitcherRenewsASlot(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	s.createAt(t, "acme", registry.IsolationSlot)
	for _, role := range []string{"docex_slot_1", "tenant_acme", provision.RegistryRole} {
		refused(t, s.as(t, role), "42501", "SELECT docex_system.renew_slot(1, NULL)")
	}
}
