package provision_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// trap is a trigger of a tenant's, which tries to make its role a superuser.
const trap = `
CREATE FUNCTION spring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RESET ROLE;
  EXECUTE 'ALTER ROLE ' || quote_ident(TG_TABLE_SCHEMA) || ' SUPERUSER';
  RETURN NEW;
END$$;
CREATE TRIGGER spring BEFORE INSERT ON docbasket FOR EACH ROW EXECUTE FUNCTION spring()`

const intoTheTrap = `INSERT INTO tenant_acme.docbasket VALUES ('1', 'new', NULL, '{}', 'active', now(), now())`

func TestATenantsTriggerGainsNothingFromAMigrationThatLogsInAsTheTenant(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	execute(t, s.as(t, "tenant_acme"), trap)

	migration, err := s.ConnectAsTenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer migration.Close(t.Context())
	refused(t, migration, "42501", intoTheTrap)
	if got := s.superusers(t); len(got) > 0 {
		t.Fatalf("superusers: %q", got)
	}

	// That the trap is one: what a migration must never do.
	execute(t, s.conn, "SET ROLE tenant_acme; "+intoTheTrap)
	if got := s.superusers(t); !slices.Equal(got, []string{"tenant_acme"}) {
		t.Errorf("superusers: %q", got)
	}
}

// superusers are those that are tenants.
func (s *site) superusers(t *testing.T) []string {
	t.Helper()
	return lines(t, s.conn, `SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolname ~ '^tenant_'`)
}

func TestAConnectionAsATenantIsInItsSchemaWhateverItsRoleSays(t *testing.T) {
	s := newInitialisedSite(t)
	for id, level := range map[registry.TenantID]registry.Isolation{"walled": registry.IsolationRole, "apart": registry.IsolationDatabase} {
		role := s.createAt(t, id, level).Route.Role
		if _, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
		execute(t, s.conn, "ALTER ROLE "+role+" SET search_path = pg_temp; ALTER ROLE "+role+" SET default_transaction_read_only = on; "+
			"ALTER ROLE "+role+" SET client_encoding = 'LATIN1'")
		conn, err := s.ConnectAsTenant(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		execute(t, conn, "CREATE TABLE more (text text DEFAULT 'ü'); INSERT INTO more DEFAULT VALUES")
		got := lines(t, conn, `SELECT session_user || ' ' || current_schema() || ' ' || text FROM more`)
		if want := []string{role + " " + role + " ü"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOnlyATenantWithARoleIsConnectedAs(t *testing.T) {
	s := newInitialisedSite(t)
	if _, err := s.ConnectAsTenant(t.Context(), "nobody"); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	_, err := s.ConnectAsTenant(t.Context(), registry.SystemTenantID)
	if conflict, ok := errors.AsType[*provision.ConflictError](err); !ok || conflict.Object != "tenant" {
		t.Errorf("got %v", err)
	}
}
