package provision_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestOnlyTheRoleOfATenantAtLevelSlotIsSeated(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 2)
	s.createAt(t, "acme", registry.IsolationSlot)
	s.create(t, "walled")
	s.createAt(t, "trusting", registry.IsolationTrusted)
	s.createAt(t, "strong", registry.IsolationSlot)
	s.createAt(t, "locked", registry.IsolationSlot)
	s.createAt(t, "joined", registry.IsolationSlot)
	execute(t, s.conn, "ALTER ROLE tenant_strong CREATEROLE; ALTER ROLE tenant_locked NOLOGIN; CREATE ROLE somebody LOGIN; "+
		"GRANT somebody TO tenant_joined; CREATE ROLE operator LOGIN; GRANT pg_execute_server_program TO operator")
	// A registry that somebody has written nonsense into.
	for id, role := range map[registry.TenantID]string{
		"forged": "pg_read_all_data", "owning": "docex_owner", "pooling": "docex_pool", "operating": "operator",
	} {
		s.createAt(t, id, registry.IsolationSlot)
		execute(t, s.conn, "UPDATE docex_system.tenant_route SET role_name = '"+role+"' WHERE tenant_id = '"+string(id)+"'")
	}
	before := s.snapshot(t)
	conn := s.as(t, provision.SwitcherRole)
	const notATenant, noSlot = "42704", "22023"
	for _, c := range []struct {
		tenant, slot any
		code         string
	}{
		{"tenant_walled", "1", notATenant},
		{"tenant_trusting", "1", notATenant},
		{"tenant_strong", "1", notATenant},
		{"tenant_forged", "1", notATenant},
		{"pg_read_all_data", "1", notATenant},
		{"tenant_locked", "1", notATenant},
		{"tenant_joined", "1", notATenant},
		{"docex_owner", "1", notATenant},
		{"docex_pool", "1", notATenant},
		{"operator", "1", notATenant},
		{"docex_slot_2", "1", notATenant},
		{"postgres", "1", notATenant},
		{"somebody", "1", notATenant},
		{"TENANT_ACME", "1", notATenant},
		{"tenant_acme, docex_owner", "1", notATenant},
		{`tenant_acme" TO docex_switcher; --`, "1", notATenant},
		{"", "1", notATenant},
		{nil, "1", notATenant},
		{"tenant_acme", "3", notATenant},
		{"tenant_acme", "0", noSlot},
		{"tenant_acme", "-1", noSlot},
		{"tenant_acme", nil, noSlot},
		{"tenant_acme", "1, docex_switcher", "22P02"},
	} {
		// As text: Postgres reads it, not the driver.
		_, err := conn.Exec(t.Context(), "SELECT docex_system.seat($1, $2::text::integer, true)", c.tenant, c.slot)
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != c.code {
			t.Errorf("tenant %v, slot %v: want SQLSTATE %s, got %v", c.tenant, c.slot, c.code, err)
		}
	}
	equal(t, before, s.snapshot(t))
}

// What is taken back need not be a tenant's any more, so that no membership stays.
func TestASeatIsTakenBackWhateverHasBecomeOfItsTenant(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	s.createAt(t, "acme", registry.IsolationSlot)
	conn := s.as(t, provision.SwitcherRole)
	execute(t, conn, "SELECT docex_system.seat('tenant_acme', 1, true)")
	execute(t, s.conn, "DELETE FROM docex_system.tenant_registry WHERE tenant_id = 'acme'; ALTER ROLE tenant_acme CREATEDB")
	execute(t, conn, "SELECT docex_system.seat('tenant_acme', 1, false)")
	if got := lines(t, s.conn, slotMembers); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

func TestNobodyButTheSwitcherSeats(t *testing.T) {
	s := newSite(t)
	s.slotted(t, 1)
	s.createAt(t, "acme", registry.IsolationSlot)
	for _, role := range []string{"docex_slot_1", "tenant_acme", provision.RegistryRole} {
		refused(t, s.as(t, role), "42501", "SELECT docex_system.seat('tenant_acme', 1, true)")
	}
}
