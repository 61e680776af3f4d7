package provision_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// docex2Makes creates a tenant's schema as DocEX 2 did, with what has changed since, and a row in it.
func (s *site) docex2Makes(t *testing.T, schema string) {
	t.Helper()
	template, err := os.ReadFile("template/0001_docex.sql")
	if err != nil {
		t.Fatal(err)
	}
	execute(t, s.conn, fmt.Sprintf("CREATE SCHEMA %q; SET search_path = %[1]q; %s", schema, template))
	execute(t, s.conn, `CREATE TYPE transporttype AS ENUM ('local', 'sftp'); ALTER TABLE document_metadata DROP coordination_id;
		ALTER TABLE transport_routes ALTER protocol DROP DEFAULT, ALTER protocol TYPE transporttype USING protocol::transporttype, ALTER protocol SET DEFAULT 'local';
		DROP INDEX idx_document_basket_name; INSERT INTO docbasket VALUES ('1', 'kept', NULL, '{}', 'active', now(), now()); RESET search_path`)
}

func (s *site) planned(t *testing.T, r provision.MigrateRequest) map[string]string {
	t.Helper()
	steps, err := s.PlanMigration(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	plan := make(map[string]string)
	for _, step := range steps {
		plan[step.Schema] = fmt.Sprint(step.Action, " ", step.ID)
	}
	return plan
}

func TestTheTenantsOfDocEX2AreFoundAndToldFromStrays(t *testing.T) {
	s := newInitialisedSite(t)
	long := strings.Repeat("x", 40)
	for _, schema := range []string{"tenant_acme", "tenant_Upper", "tenant_my-shop", "tenant_" + long, "tenant_1st", "tenant_docex_first_tenant", "other_name", "tenant__docex_x_"} {
		s.docex2Makes(t, schema)
	}
	s.create(t, "done")
	s.docexMakes(t, "wild", "tenant_wild")
	execute(t, s.conn, `CREATE SCHEMA tenant_stray; CREATE TABLE tenant_stray.document (); CREATE SCHEMA plain;
		TRUNCATE tenant_docex_first_tenant.docbasket CASCADE`)
	before := s.snapshot(t)
	want := map[string]string{
		"tenant_acme": "migrate acme", "tenant_Upper": "migrate Upper", "tenant_my-shop": "refuse ", "tenant_" + long: "refuse ", "tenant_1st": "refuse ",
		"tenant_docex_first_tenant": "skip ", "other_name": "skip ", "tenant__docex_x_": "refuse ", "tenant_done": "nothing done", "tenant_wild": "migrate wild", "tenant_stray": "skip ",
	}
	if got := s.planned(t, provision.MigrateRequest{}); !maps.Equal(got, want) {
		t.Errorf("plan %v", got)
	}
	want["tenant_my-shop"], want["tenant_1st"] = "migrate my_shop", "migrate t1st"
	want["tenant_"+long] = "migrate " + long[:21] + "_ce58c62a"
	got := s.planned(t, provision.MigrateRequest{Rename: true})
	want["tenant_"+long] = "migrate " + long[:21] + got["tenant_"+long][len("migrate ")+21:] // and a hash
	if !maps.Equal(got, want) || len(got["tenant_"+long]) != len("migrate ")+30 {
		t.Errorf("plan %v, want %v", got, want)
	}
	equal(t, before, s.snapshot(t))
	s.docex2Makes(t, "tenant_my_shop")
	if got := s.planned(t, provision.MigrateRequest{Rename: true}); got["tenant_my-shop"] != "refuse " || got["tenant_my_shop"] != "migrate my_shop" {
		t.Errorf("two tenants of one id: %v", got)
	}
	if got := s.planned(t, provision.MigrateRequest{SchemaTemplate: "other_{tenant_id}"}); got["other_name"] != "migrate name" {
		t.Errorf("another template: %v", got)
	}
}

func TestMigratedTenantsAreAsIfTheyHadBeenCreated(t *testing.T) {
	s := newInitialisedSite(t)
	for _, schema := range []string{"tenant_acme", "tenant_my-shop", "tenant_old"} {
		s.docex2Makes(t, schema)
	}
	execute(t, s.conn, `CREATE TABLE public.tenant_registry (LIKE docex_system.tenant_registry);
		INSERT INTO public.tenant_registry VALUES ('old', 'Old Corp', false, 'schema', 'tenant_old', NULL, '2024-01-02', 'alice', now(), NULL),
			('gone', 'Gone', false, 'schema', 'tenant_gone', NULL, now(), 'alice', now(), NULL)`)
	request := provision.MigrateRequest{Rename: true, Isolation: registry.IsolationSlot}
	steps, err := s.PlanMigration(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		if err := s.MigrateTenant(t.Context(), request, step); err != nil {
			t.Fatal(step, err)
		}
	}
	if found := s.findings(t); len(found) > 0 {
		t.Errorf("%q", found)
	}
	if got := lines(t, s.conn, `SELECT tenant_id || ', ' || display_name || ', ' || created_by || ', ' || status || ', ' || isolation || ', ' || schema_name
		FROM docex_system.tenant_registry JOIN docex_system.tenant_route USING (tenant_id) ORDER BY 1`); !slices.Equal(got, []string{
		"acme, acme, migration, active, slot, tenant_acme", "my_shop, my-shop, migration, active, slot, tenant_my_shop", "old, Old Corp, alice, active, slot, tenant_old",
	}) {
		t.Errorf("%q", got)
	}
	if got := lines(t, s.conn, `SELECT name::text FROM tenant_my_shop.docbasket UNION ALL SELECT tenant_id FROM public.tenant_registry`); !slices.Equal(got, []string{"kept", "gone"}) {
		t.Errorf("%q", got)
	}
	if got := s.planned(t, request); got["tenant_acme"] != "nothing acme" || got["tenant_my_shop"] != "nothing my_shop" {
		t.Errorf("there is more to do: %v", got)
	}
}

func TestAMigrationThatIsEndedIsFinishedByTheNext(t *testing.T) {
	s := newInitialisedSite(t)
	boom := errors.New("boom")
	for i, name := range []string{"rename the schema", "register the tenant", "take the schema over", "check the result", "run the file", "change the registry"} {
		schema := fmt.Sprintf("tenant_t%d", i)
		s.docex2Makes(t, schema)
		migrate := func(p *provision.Provisioner) error {
			steps, err := p.PlanMigration(t.Context(), provision.MigrateRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range steps {
				if step.Schema == schema {
					return p.MigrateTenant(t.Context(), provision.MigrateRequest{}, step)
				}
			}
			t.Fatalf("%s is not in %v", schema, steps)
			return nil
		}
		if err := migrate(s.failAfter(name, func() error { return boom })); !errors.Is(err, boom) {
			t.Fatal(name, err)
		}
		if err := migrate(s.Provisioner); err != nil {
			t.Fatal(name, err)
		}
	}
	if found := s.findings(t); len(found) > 0 {
		t.Errorf("%q", found)
	}
	if got := lines(t, s.conn, `SELECT DISTINCT status || schema_version FROM docex_system.tenant_route`); !slices.Equal(got, []string{"active1"}) {
		t.Errorf("%q", got)
	}
}
