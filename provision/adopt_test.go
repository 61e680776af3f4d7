package provision_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// docexMakes creates a tenant as DocEX does: by its own login, which owns everything, and without a route.
func (s *site) docexMakes(t *testing.T, id, schema string) {
	t.Helper()
	template, err := os.ReadFile("template/0001_docex.sql")
	if err != nil {
		t.Fatal(err)
	}
	if len(lines(t, s.conn, `SELECT 'x' FROM pg_roles WHERE rolname = 'DocEX'`)) == 0 {
		execute(t, s.conn, `CREATE ROLE "DocEX" LOGIN PASSWORD 'docex'; GRANT CONNECT, CREATE ON DATABASE `+s.conn.Config().Database+` TO "DocEX"`)
	}
	docex := connect(t, s.login(t, "DocEX", "docex"))
	execute(t, docex, "CREATE SCHEMA "+schema+"; SET search_path = "+schema+";"+string(template))
	execute(t, docex, `CREATE SEQUENCE numbers; CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN short AS text; CREATE VIEW seen AS SELECT * FROM document;
		CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * n'; CREATE TABLE counted (n serial, t text); INSERT INTO counted (t) VALUES ('kept')`)
	docex.Close(t.Context())
	if _, err := s.conn.Exec(t.Context(), `INSERT INTO docex_system.tenant_registry VALUES ($1, $1, false, 'schema', $2, NULL, '2026-01-01', 'docex', '2026-01-01', NULL)`, id, schema); err != nil {
		t.Fatal(err)
	}
}

func TestATenantThatDocEXMadeIsAdopted(t *testing.T) {
	for _, level := range []registry.Isolation{"", registry.IsolationSlot, registry.IsolationTrusted} {
		t.Run(string(level), func(t *testing.T) {
			s := newInitialisedSite(t)
			s.docexMakes(t, "wild", "tenant_wild")
			tenant, err := s.AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild", Actor: "admin", Isolation: level, KeepAccess: true})
			if err != nil {
				t.Fatal(err)
			}
			if tenant.Route == nil || tenant.Route.Status != registry.StatusActive || tenant.Route.SchemaVersion != 1 || tenant.CreatedBy != "docex" || tenant.LastUpdatedBy != "admin" {
				t.Errorf("%+v, %+v", tenant, tenant.Route)
			}
			mine := s.as(t, "tenant_wild")
			execute(t, mine, "INSERT INTO counted (t) SELECT 'mine'; SELECT * FROM seen; SELECT nextval('numbers'), twice(1); CREATE TABLE more (n int); DROP TABLE counted; DROP TYPE mood")
			refused(t, mine, "42501", "DROP SCHEMA tenant_wild CASCADE")
			execute(t, connect(t, s.login(t, "DocEX", "docex")), "SELECT * FROM tenant_wild.document")
			if _, err := s.AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild"}); !errors.Is(err, provision.ErrExists) {
				t.Errorf("adopted twice: %v", err)
			}
			if got := lines(t, s.conn, `SELECT verb || detail::text FROM docex_system.tenant_event WHERE tenant_id = 'wild'`); len(got) != 1 || !strings.Contains(got[0], `"former_owners": ["\"DocEX\""]`) {
				t.Errorf("events %q", got)
			}
			s.transition(t, "wild", provision.Delete)
			s.purge(t, s.Provisioner, "wild")
		})
	}
}

func TestAdoptionTakesTheFormerOwnersAccess(t *testing.T) {
	s := newInitialisedSite(t)
	s.docexMakes(t, "wild", "tenant_wild")
	if _, err := s.AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild"}); err != nil {
		t.Fatal(err)
	}
	refused(t, connect(t, s.login(t, "DocEX", "docex")), "42501", "SELECT * FROM tenant_wild.document")
	foreign := lines(t, s.conn, `SELECT relname::text FROM pg_class WHERE relnamespace = 'tenant_wild'::regnamespace AND relowner <> 'tenant_wild'::regrole`)
	if len(foreign) > 0 {
		t.Errorf("not the tenant's: %q", foreign)
	}
}

func TestWhatCannotBeAdoptedStaysAsItIs(t *testing.T) {
	s := newInitialisedSite(t)
	s.docexMakes(t, "wild", "tenant_wild")
	s.docexMakes(t, "taken", "tenant_taken")
	s.docexMakes(t, "shared", "tenant_shared")
	s.create(t, "acme")
	execute(t, s.conn, `CREATE ROLE tenant_taken;
		INSERT INTO docex_system.tenant_registry VALUES ('twin', 'Twin', false, 'schema', 'tenant_shared', NULL, now(), 'docex', now(), NULL),
			('lite', 'Lite', false, 'database', NULL, '/var/docex.db', now(), 'docex', now(), NULL),
			('lost', 'Lost', false, 'schema', 'tenant_lost', NULL, now(), 'docex', now(), NULL),
			('grabby', 'Grabby', false, 'schema', 'docex_system', NULL, now(), 'docex', now(), NULL)`)
	before := s.snapshot(t)
	for id, want := range map[registry.TenantID]func(error) bool{
		"nobody": func(err error) bool { return errors.Is(err, provision.ErrNotFound) },
		"acme":   func(err error) bool { return errors.Is(err, provision.ErrExists) },
		"taken":  isConflict, "shared": isConflict, "lite": isConflict, "lost": isConflict, "grabby": isConflict,
	} {
		if _, err := s.AdoptTenant(t.Context(), provision.AdoptRequest{ID: id}); !want(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild", Isolation: registry.IsolationDatabase}); err == nil {
		t.Error("adopted into a database of its own")
	}
	boom := errors.New("boom")
	for _, name := range provision.AdoptStepNames() {
		if _, err := s.failAfter(name, func() error { return boom }).AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild"}); !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var shown []string
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, DryRun: func(sql string) { shown = append(shown, sql) }})
	if _, err := dry.AdoptTenant(t.Context(), provision.AdoptRequest{ID: "wild"}); err != nil || !slices.ContainsFunc(shown, func(sql string) bool {
		return strings.Contains(sql, `ALTER TABLE tenant_wild.document OWNER TO "tenant_wild"`)
	}) {
		t.Errorf("dry run: %v, %q", err, shown)
	}
	equal(t, before, s.snapshot(t))
}
