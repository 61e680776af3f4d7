package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// installation is one in a directory of the test's own, which is the working directory.
func installation(t *testing.T) sqlite.Installation {
	t.Helper()
	tables, err := os.ReadFile("../template/0001_docex.sql")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	i := sqlite.Installation{Tables: string(tables), SystemPath: "storage/_docex_system_/docex.db"}
	for range 2 { // it may run again
		if err := i.Init(t.Context(), "system"); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

func opened(t *testing.T, i sqlite.Installation) *sqlite.Registry {
	t.Helper()
	r, err := i.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// lines runs a query of one text column in a file.
func lines(t *testing.T, path, query string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(query, err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		all = append(all, line)
	}
	return all
}

const (
	columns    = `SELECT m.name || '.' || c.name || ' ' || c.type || CASE WHEN c."notnull" THEN ' NOT NULL' ELSE '' END FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table' ORDER BY 1`
	systemFile = "storage/tenant__docex_system_/docex.db"
	acmeFile   = "storage/tenant_acme/docex.db"
)

func TestFilesAreAsDocEXMakesThem(t *testing.T) {
	golden, err := os.ReadFile("testdata/columns.txt") // of the files that DocEX's own models make
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(strings.ReplaceAll(string(golden), " ", "\x00"))
	r := opened(t, installation(t))
	if _, err := r.Create(t.Context(), "acme", "Acme", "admin"); err != nil {
		t.Fatal(err)
	}
	for path, keep := range map[string]func(string) bool{
		systemFile: func(line string) bool {
			return !strings.HasPrefix(line, "tenant_route") && !strings.HasPrefix(line, "tenant_event") && !strings.HasPrefix(line, "sqlite_")
		},
		acmeFile: func(string) bool { return true },
	} {
		var got []string
		for _, line := range lines(t, path, columns) {
			if keep(line) {
				got = append(got, strings.ReplaceAll(line, " ", "\x00"))
			}
		}
		expected := want
		if path == acmeFile {
			expected = slices.DeleteFunc(slices.Clone(want), func(line string) bool { return strings.HasPrefix(line, "tenant_registry") })
		}
		slices.Sort(got)
		slices.Sort(expected)
		if !slices.Equal(got, expected) {
			t.Errorf("%s: %q, want %q", path, got, expected)
		}
	}
	if got := lines(t, systemFile, `SELECT tenant_id || ', ' || is_system || ', ' || isolation_strategy || ', ' || database_path || ', ' || created_by || coalesce(last_updated_by, '') FROM tenant_registry ORDER BY 1`); !slices.Equal(got,
		[]string{"_docex_system_, 1, database, storage/_docex_system_/docex.db, system", "acme, 0, database, " + acmeFile + ", admin"}) {
		t.Errorf("%q", got)
	}
	if n := len(lines(t, acmeFile, `SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'idx_%'`)); n < 26 {
		t.Errorf("%d indexes", n)
	}
}

func TestATenantsLifeOnSQLite(t *testing.T) {
	r := opened(t, installation(t))
	ctx := t.Context()
	if _, err := r.Create(ctx, "acme", "Acme", "admin"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(ctx, "acme", "Acme", "admin"); !errors.Is(err, sqlite.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if err := r.Rename(ctx, "acme", "Acme Corp", "bob"); err != nil {
		t.Error(err)
	}
	for _, step := range []struct {
		verb string
		ok   bool
		want registry.Status
	}{
		{"suspend", true, registry.StatusSuspended},
		{"suspend", true, registry.StatusSuspended},
		{"restore", false, registry.StatusSuspended},
		{"resume", true, registry.StatusActive},
		{"delete", true, registry.StatusDeleted},
		{"suspend", false, registry.StatusDeleted},
		{"restore", true, registry.StatusActive},
	} {
		err := r.Transition(ctx, "acme", step.verb, "bob")
		tenant, read := r.Tenant(ctx, "acme")
		if (err == nil) != step.ok || read != nil || tenant.Route.Status != step.want || tenant.DisplayName != "Acme Corp" || tenant.LastUpdatedBy != "bob" || tenant.LastUpdatedAt.IsZero() {
			t.Errorf("%s: %v, %+v, %v", step.verb, err, tenant, read)
		}
	}
	if err := r.Purge(ctx, "acme", "bob"); err == nil {
		t.Error("an active tenant is purged")
	}
	if err := errors.Join(r.Transition(ctx, "acme", "delete", "bob"), r.Purge(ctx, "acme", "bob")); err != nil {
		t.Error(err)
	}
	if _, err := r.Tenant(ctx, "acme"); !errors.Is(err, sqlite.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(acmeFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its file is still there: %v", err)
	}
	if err := r.Transition(ctx, registry.SystemTenantID, "delete", "bob"); err == nil {
		t.Error("the system tenant is deleted")
	}
	if got := lines(t, systemFile, `SELECT group_concat(verb, ' ') FROM tenant_event`); got[0] != "create update suspend resume delete restore delete purge" {
		t.Errorf("events %q", got)
	}
}

func TestACreationThatIsEndedIsFinishedByTheNext(t *testing.T) {
	i := installation(t)
	r := opened(t, i)
	if err := os.MkdirAll(acmeFile+".new", 0o755); err != nil { // in its way
		t.Fatal(err)
	}
	if err := os.WriteFile(acmeFile+".new/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), "acme", "Acme", "admin"); err == nil {
		t.Fatal("created over what is in its way")
	}
	acme, err := r.Tenant(t.Context(), "acme")
	if err != nil || acme.Route.Status != registry.StatusProvisioning {
		t.Fatalf("%+v, %v", acme, err)
	}
	if found, err := r.Verify(t.Context(), acme); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if err := os.RemoveAll(acmeFile + ".new"); err != nil {
		t.Fatal(err)
	}
	acme, err = r.Create(t.Context(), "acme", "Acme", "admin")
	if err != nil || acme.Route.Status != registry.StatusActive {
		t.Errorf("%+v, %v", acme, err)
	}
	if found, err := r.Verify(t.Context(), acme); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	if err := os.WriteFile("storage/tenant_globex", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (sqlite.Installation{PathTemplate: "flat.db"}).Open(t.Context()); err == nil {
		t.Error("a template without the id")
	}
	t.Chdir(t.TempDir())
	if _, err := i.Open(t.Context()); !errors.Is(err, sqlite.ErrNotInitialised) {
		t.Errorf("no registry: %v", err)
	}
}

func TestFilesOfDocEX2AreRegistered(t *testing.T) {
	r := opened(t, installation(t))
	ctx := context.Background()
	for _, id := range []registry.TenantID{"acme", "globex", "docex_first_tenant"} {
		if _, err := r.Create(ctx, id, string(id), "x"); err != nil {
			t.Fatal(err)
		}
	}
	lines(t, systemFile, `DELETE FROM tenant_registry WHERE tenant_id IN ('acme', 'docex_first_tenant') RETURNING tenant_id`)
	lines(t, acmeFile, `ALTER TABLE document_metadata DROP COLUMN coordination_id`)
	lines(t, acmeFile, `DROP INDEX idx_document_basket_name`)
	for path, text := range map[string]string{"storage/tenant_my-shop/docex.db": "", "storage/tenant_stray/docex.db": "no database"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		content, _ := os.ReadFile(acmeFile)
		if text != "" {
			content = []byte(text)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"acme": "migrate", "globex": "nothing", "docex_first_tenant": "skip", "my-shop": "refuse", "stray": "skip"}
	for range 2 {
		steps, err := r.PlanMigration(ctx)
		if err != nil || len(steps) != len(want) {
			t.Fatal(steps, err)
		}
		for _, step := range steps {
			id := strings.TrimPrefix(filepath.Base(filepath.Dir(step.Path)), "tenant_")
			if step.Action != want[id] {
				t.Errorf("%s: %+v, want %s", id, step, want[id])
			}
			if err := r.Migrate(ctx, step, "migration"); err != nil {
				t.Error(id, err)
			}
		}
		want["acme"] = "nothing"
	}
	acme, err := r.Tenant(ctx, "acme")
	if err != nil || acme.CreatedBy != "migration" {
		t.Fatal(acme, err)
	}
	if found, err := r.Verify(ctx, acme); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
}
