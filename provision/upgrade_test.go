package provision_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// template writes files, by name, and loads them.
func template(t *testing.T, files map[string]string) provision.Template {
	t.Helper()
	dir := t.TempDir()
	for name, sql := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(sql), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := provision.LoadTemplate(dir)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

const (
	first  = "CREATE TABLE IF NOT EXISTS things (n integer); "
	second = "ALTER TABLE things ADD COLUMN IF NOT EXISTS t text DEFAULT current_user"
)

func TestATenantIsMadeOfAndUpgradedToTheFilesOfATemplate(t *testing.T) {
	s := newInitialisedSite(t)
	early, late := template(t, map[string]string{"0001_things.sql": first, "README": "no SQL"}), template(t, map[string]string{"0001_things.sql": first, "0010_text.sql": second})
	for _, level := range levels {
		id := registry.TenantID("t_" + string(level))
		tenant, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: id, Isolation: level, Template: early})
		if err != nil || tenant.Route.SchemaVersion != 1 {
			t.Fatal(tenant, err)
		}
		for _, want := range []provision.UpgradeResult{{From: 1, To: 10, Files: 1}, {From: 10, To: 10}} {
			if got, err := s.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: id, Template: late, Actor: "admin"}); err != nil || got != want {
				t.Errorf("%s: %+v, %v, want %+v", level, got, err, want)
			}
		}
		conn := connect(t, in(t, tenant.Route.Database, s.dsn))
		if got := lines(t, conn, `SELECT attname || ' of ' || relowner::regrole FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
			WHERE relnamespace = $1::regnamespace AND attnum > 0 AND relkind = 'r' ORDER BY attnum`, tenant.SchemaName); !slices.Equal(got, []string{"n of " + tenant.Route.Role, "t of " + tenant.Route.Role}) {
			t.Errorf("%s: columns %q", level, got)
		}
		if found, err := s.VerifyTenants(t.Context(), provision.VerifyRequest{IDs: []registry.TenantID{id}, Template: late}); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", level, found, err)
		}
		conn.Close(t.Context())
	}
	if got := lines(t, s.conn, `SELECT actor || (detail->>'file') FROM docex_system.tenant_event WHERE verb = 'upgrade' AND tenant_id = 't_role'`); !slices.Equal(got, []string{"admin0010_text.sql"}) {
		t.Errorf("events %q", got)
	}
}

func TestAnUpgradeIsDoneOrNotDone(t *testing.T) {
	s := newInitialisedSite(t)
	boom := errors.New("boom")
	early, late := template(t, map[string]string{"1_things.sql": first}), template(t, map[string]string{"1_things.sql": first, "2_text.sql": second, "3_bad.sql": "SELECT 1/0"})
	if _, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Template: early}); err != nil {
		t.Fatal(err)
	}
	before := s.snapshot(t)
	for _, name := range []string{"wait for the tenant's lock", "look at the version", "run the file", "note the version down"} {
		if _, err := s.failAfter(name, func() error { return boom }).UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Template: late}); !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
	}
	equal(t, before, s.snapshot(t))
	// Between the two commits: the file has run, and runs again.
	if _, err := s.failAfter("commit what the file has done", func() error { return boom }).UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Template: late}); !errors.Is(err, boom) {
		t.Error(err)
	}
	result, err := s.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Template: late})
	if err == nil || !strings.Contains(err.Error(), "3_bad.sql") || result != (provision.UpgradeResult{From: 1, To: 2, Files: 1}) {
		t.Errorf("%+v, %v", result, err)
	}
	if got := lines(t, s.conn, `SELECT schema_version::text FROM docex_system.tenant_route`); got[0] != "2" {
		t.Errorf("version %s", got)
	}
}

func TestAnUpgradeThatMeetsALockIsTriedAgain(t *testing.T) {
	s := newInitialisedSite(t)
	early, late := template(t, map[string]string{"1_things.sql": first}), template(t, map[string]string{"1_things.sql": first, "2_text.sql": "SET LOCAL lock_timeout = '100ms';" + second})
	if _, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Template: early}); err != nil {
		t.Fatal(err)
	}
	holder := s.as(t, "tenant_acme")
	execute(t, holder, "BEGIN; SELECT * FROM things")
	tries := 0
	p := s.failAfter("look at the version", func() error {
		if tries++; tries == 3 {
			execute(t, holder, "COMMIT")
		}
		return nil
	})
	result, err := p.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Template: late})
	if err != nil || tries != 3 || result.To != 2 {
		t.Errorf("%+v after %d tries, %v", result, tries, err)
	}
}

func TestWhatCannotBeUpgradedIsRefused(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	s.transition(t, "acme", provision.Delete)
	ends := template(t, map[string]string{"9_ends.sql": "COMMIT; CREATE TABLE after_it (n int)"})
	if _, err := s.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Template: ends}); !isConflict(err) {
		t.Errorf("a deleted tenant: %v", err)
	}
	if _, err := s.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "nobody"}); !errors.Is(err, provision.ErrNotFound) {
		t.Error(err)
	}
	s.transition(t, "acme", provision.Restore)
	if _, err := s.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Template: ends}); err == nil || !strings.Contains(err.Error(), "ends the transaction") {
		t.Errorf("a file with COMMIT: %v", err)
	}
	for _, files := range []map[string]string{{}, {"1_a.sql": "", "01_b.sql": ""}, {"0_a.sql": ""}} {
		dir := t.TempDir()
		for name := range files {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := provision.LoadTemplate(dir); err == nil {
			t.Errorf("%v: is taken", files)
		}
	}
}

func TestARepairBringsBackWhatIsMissing(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	execute(t, s.conn, "DROP TABLE tenant_acme.doc_events; DROP INDEX tenant_acme.idx_document_basket_name")
	if result, err := s.UpgradeTenant(t.Context(), provision.UpgradeRequest{ID: "acme", Repair: true}); err != nil || result != (provision.UpgradeResult{From: 1, To: 1, Files: 1}) {
		t.Fatal(result, err)
	}
	if found := s.findings(t, "acme"); len(found) > 0 {
		t.Errorf("%q", found)
	}
}
