package provision_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
)

// sqliteFile makes a tenant's file as DocEX does, and runs statements in it.
func sqliteFile(t *testing.T, statements ...string) string {
	t.Helper()
	tables, err := os.ReadFile("template/0001_docex.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "docex.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range append([]string{sqlite.Dialect(string(tables))}, statements...) {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(statement, err)
		}
	}
	return path
}

func open(t *testing.T, path string) *sqlite.File {
	t.Helper()
	file, err := sqlite.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

const (
	basket   = `INSERT INTO docbasket VALUES ('b1', 'Körbe', NULL, '{"a": [1, 2,  3]}', 'active', '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05')`
	document = `WITH RECURSIVE numbers (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < 3000)
		INSERT INTO document SELECT 'd' || value, 'b1', 'name' || char(9) || value, 's', 'C:\temp\n', NULL, 'file', '{}', 'line' || char(10) || 'two\.', value, 'x', 'NEW', 0,
		'2026-01-02 03:04:05.678901', '2026-01-02' FROM numbers`
	metadata  = `INSERT INTO document_metadata VALUES ('m1', 'd1', 'k', '', 'custom', '0123456789ABCDEF0123456789abcdef', '2026-01-02 03:04:05', '2026-01-02T03:04:05+02:00')`
	processor = `INSERT INTO processors VALUES ('p1', 'p', 't', NULL, '[]', 1, '2026-01-02 03:04:05', '2026-01-02 03:04:05')`
)

func TestATenantOnSQLiteIsImportedValueByValue(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	file := sqliteFile(t, basket, document, metadata, processor, "CREATE TABLE own (n)", "ALTER TABLE file_history DROP COLUMN internal_path")
	result, err := s.ImportTenant(t.Context(), provision.ImportRequest{ID: "acme", From: open(t, file)})
	if err != nil || result != (provision.ImportResult{Tables: 11, Rows: 3003}) {
		t.Fatal(result, err)
	}
	got := lines(t, s.conn, `SELECT name || ' ' || storage_config || ' ' || created_at FROM tenant_acme.docbasket
		UNION ALL SELECT raw_content || path || created_at || coalesce(content_type, '-') FROM tenant_acme.document WHERE id = 'd7'
		UNION ALL SELECT coordination_id || ' ' || updated_at || '[' || value || ']' FROM tenant_acme.document_metadata
		UNION ALL SELECT enabled::text FROM tenant_acme.processors`)
	if want := []string{
		`Körbe {"a": [1, 2,  3]} 2026-01-02 03:04:05.678901`, "line\ntwo\\.C:\\temp\\n2026-01-02 03:04:05.678901-",
		"01234567-89ab-cdef-0123-456789abcdef 2026-01-02 01:04:05[]", "true",
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := lines(t, s.conn, `SELECT detail::text FROM docex_system.tenant_event WHERE verb = 'import'`); !slices.Equal(got, []string{`{"rows": 3003, "tables": 11}`}) {
		t.Errorf("%q", got)
	}
	if _, err := s.ImportTenant(t.Context(), provision.ImportRequest{ID: "acme", From: open(t, file)}); !isConflict(err) {
		t.Errorf("imported twice: %v", err)
	}
}

func TestAnImportIsWholeOrNotAtAll(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	before := s.snapshot(t)
	for want, statements := range map[string][]string{
		"is no time":          {basket, "UPDATE docbasket SET created_at = 'yesterday'"},
		"is no boolean":       {processor, "UPDATE processors SET enabled = 'maybe'"},
		"is no UUID":          {basket, document, metadata, "UPDATE document_metadata SET coordination_id = 'x'"},
		"invalid input":       {basket, "UPDATE docbasket SET storage_config = 'no json'"},
		"null value":          {basket, document, "ALTER TABLE document DROP COLUMN checksum"},
		"foreign key":         {"PRAGMA foreign_keys = 0", document},
		"too long":            {basket, "UPDATE docbasket SET status = '" + strings.Repeat("x", 60) + "'"},
		"invalid byte sequen": {basket, "UPDATE docbasket SET name = CAST(x'ff00' AS TEXT)"},
	} {
		_, err := s.ImportTenant(t.Context(), provision.ImportRequest{ID: "acme", From: open(t, sqliteFile(t, statements...))})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if got := lines(t, s.conn, `SELECT id::text FROM tenant_acme.docbasket UNION ALL SELECT id FROM tenant_acme.processors`); len(got) > 0 {
			t.Errorf("%s: %q is left", want, got)
		}
	}
	if _, err := s.ImportTenant(t.Context(), provision.ImportRequest{ID: "nobody", From: open(t, sqliteFile(t))}); !errors.Is(err, provision.ErrNotFound) {
		t.Error(err)
	}
	if _, err := sqlite.OpenFile("none.db"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	equal(t, before, s.snapshot(t))
}
