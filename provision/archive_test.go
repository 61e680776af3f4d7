package provision_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// needPrograms puts the server's own pg_dump and pg_restore in front, for a test of what they write.
func needPrograms(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("pg_dump"); err != nil {
		t.Fatal("the tests need pg_dump in PATH: ", err)
	}
}

func TestAnArchiveHasEveryRowAndRestores(t *testing.T) {
	needPrograms(t)
	for _, level := range []registry.Isolation{registry.IsolationRole, registry.IsolationDatabase} {
		t.Run(string(level), func(t *testing.T) {
			s := newInitialisedSite(t)
			tenant := s.createAt(t, "acme", level)
			mine := connect(t, in(t, tenant.Route.Database, s.login(t, tenant.Route.Role, s.key.Password(tenant.Route.Role, 1))))
			execute(t, mine, `CREATE TABLE "Odd ""name""" (id serial PRIMARY KEY, t text NOT NULL DEFAULT session_user);
				INSERT INTO "Odd ""name""" SELECT FROM generate_series(1, 1000); CREATE VIEW v AS SELECT * FROM "Odd ""name"""`)
			mine.Close(t.Context())
			before := s.snapshot(t)
			file := filepath.Join(t.TempDir(), "acme.dump")
			result, err := s.ArchiveTenant(t.Context(), provision.ArchiveRequest{ID: "acme", File: file})
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(file)
			if err != nil || info.Mode().Perm() != 0o600 || info.Size() != result.Bytes || result.Tables != 12 || result.Rows != 1000 {
				t.Errorf("%+v: %v, %v", result, info, err)
			}
			equal(t, before, s.snapshot(t)) // nothing is left of the trial
			if _, err := s.ArchiveTenant(t.Context(), provision.ArchiveRequest{ID: "acme", File: file}); !errors.Is(err, os.ErrExist) {
				t.Errorf("a file was overwritten: %v", err)
			}
		})
	}
}

func TestATenantOfAHardenedDatabaseIsArchivedAndKeepsNoRight(t *testing.T) {
	needPrograms(t)
	s := newHardenedSite(t)
	s.create(t, "acme")
	before := s.snapshot(t)
	if result, err := s.ArchiveTenant(t.Context(), provision.ArchiveRequest{ID: "acme", File: filepath.Join(t.TempDir(), "f")}); err != nil || result.Tables != 11 {
		t.Fatalf("%+v: %v", result, err)
	}
	equal(t, before, s.snapshot(t))
	for _, catalog := range []string{"pg_shdescription", "pg_db_role_setting"} {
		refused(t, s.as(t, "tenant_acme"), "42501", "SELECT FROM "+catalog)
	}
}

func TestTheCodeOfATenantHasNoPowerWhileItsArchiveIsTried(t *testing.T) {
	needPrograms(t)
	s := newInitialisedSite(t)
	acme := s.create(t, "acme")
	execute(t, s.as(t, acme.Route.Role), `CREATE FUNCTION hostile(t text) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'CREATE ROLE mine SUPERUSER'; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;
		CREATE TABLE trap (t text CHECK (tenant_acme.hostile(t))); INSERT INTO trap VALUES ('x')`)
	if _, err := s.ArchiveTenant(t.Context(), provision.ArchiveRequest{ID: "acme", File: filepath.Join(t.TempDir(), "f")}); err != nil {
		t.Error(err)
	}
	if got := lines(t, s.conn, `SELECT rolname FROM pg_roles WHERE rolname = 'mine'`); len(got) > 0 {
		t.Error("a tenant's CHECK has become superuser")
	}
}

func TestAnArchiveThatWouldNotBeWholeIsNone(t *testing.T) {
	needPrograms(t)
	s := newInitialisedSite(t)
	acme := s.create(t, "acme")
	mine := s.as(t, acme.Route.Role)
	file := filepath.Join(t.TempDir(), "acme.dump")
	refused := func(what, want string) {
		t.Helper()
		before := s.snapshot(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.ArchiveTenant(ctx, provision.ArchiveRequest{ID: "acme", File: file})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the file is there: %v", what, err)
		}
		equal(t, before, s.snapshot(t))
	}
	execute(t, mine, "CREATE FUNCTION once() RETURNS boolean LANGUAGE sql AS 'SELECT current_database() !~ $$archive$$'; CREATE TABLE c (n int CHECK (tenant_acme.once())); INSERT INTO c VALUES (1)")
	refused("a table that cannot be restored", "does not restore")
	execute(t, mine, "DROP TABLE c; SELECT lo_create(0)")
	refused("large objects", "large objects")
	execute(t, mine, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
	execute(t, mine, "CREATE TABLE guarded (n int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; ALTER TABLE guarded FORCE ROW LEVEL SECURITY")
	refused("rows that its own owner cannot see", "row-level security")
	execute(t, mine, "DROP TABLE guarded")
	t.Setenv("PATH", t.TempDir())
	refused("no pg_dump", "pg_dump")
	old := t.TempDir()
	for _, name := range []string{"pg_dump", "pg_restore"} {
		if err := os.WriteFile(filepath.Join(old, name), []byte("#!/bin/sh\necho '"+name+" (PostgreSQL) 9.6.24'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", old)
	refused("an old pg_dump", "version 9")
}
