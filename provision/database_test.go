package provision_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

var ownDatabase = provision.TenantRequest{ID: "acme", Isolation: registry.IsolationDatabase}

// inside connects to a tenant's own database as a superuser.
func (s *site) inside(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	return connect(t, in(t, database, s.dsn))
}

func TestATenantWithItsOwnDatabaseHasItsTablesThere(t *testing.T) {
	s := newInitialisedSite(t)
	tenant := s.createAt(t, "acme", registry.IsolationDatabase)
	r := tenant.Route
	if tenant.IsolationStrategy != "schema" || tenant.SchemaName != "tenant_acme" || tenant.DatabasePath != "" ||
		r.Isolation != registry.IsolationDatabase || r.Database != "tenant_acme" || r.Role != "tenant_acme" {
		t.Errorf("got %+v, %+v", tenant, r)
	}
	stored, err := s.store(t).Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	stored.Route.UpdatedAt = r.UpdatedAt // the database's own clock
	if *stored.Route != *r {
		t.Errorf("stored   %+v\nreturned %+v", *stored.Route, *r)
	}
	compareCatalog(t, s.inside(t, "tenant_acme"), "tenant_acme", all)
	if here := lines(t, s.conn, `SELECT nspname::text FROM pg_namespace WHERE nspname = 'tenant_acme'`); len(here) > 0 {
		t.Error("the schema is in the registry's database too")
	}
	if marks := lines(t, s.conn, `SELECT description FROM pg_shdescription WHERE description ~ 'docex'`); len(marks) > 0 {
		t.Errorf("marks are left: %q", marks)
	}
	events := lines(t, s.conn, `SELECT detail::text FROM docex_system.tenant_event WHERE tenant_id = 'acme'`)
	want := `{"role": "tenant_acme", "schema": "tenant_acme", "server": "main", "database": "tenant_acme", "isolation": "database"}`
	if !slices.Equal(events, []string{want}) {
		t.Errorf("events %q", events)
	}
}

func TestATenantWithItsOwnDatabaseIsConfinedToIt(t *testing.T) {
	s := newInitialisedSite(t)
	s.createAt(t, "acme", registry.IsolationDatabase)
	s.createAt(t, "globex", registry.IsolationDatabase)
	s.create(t, "walled")
	login := s.login(t, "tenant_acme", s.key.Password("tenant_acme", 1))
	conn := connect(t, in(t, "tenant_acme", login))
	if got := lines(t, conn, `SELECT current_schema() || ' ' || current_setting('search_path')`); got[0] != `tenant_acme tenant_acme, ext, public` {
		t.Errorf("got %q", got)
	}
	execute(t, conn, `INSERT INTO docbasket VALUES ('1', 'mine', NULL, '{}', 'active', now(), now())`)
	execute(t, conn, `CREATE TABLE extra (id serial PRIMARY KEY); CREATE TEMPORARY TABLE t ()`)
	for _, sql := range []string{
		"CREATE SCHEMA mine", "CREATE TABLE public.mine ()", "CREATE TABLE ext.mine ()", "DROP SCHEMA tenant_acme CASCADE",
		"ALTER DATABASE tenant_acme RENAME TO mine", "DROP DATABASE tenant_acme", "COMMENT ON DATABASE tenant_acme IS 'mine'",
		"COMMENT ON ROLE tenant_acme IS 'mine'", "SET ROLE docex_owner", "SET ROLE tenant_globex", "CREATE EXTENSION hstore",
	} {
		_, err := conn.Exec(t.Context(), sql)
		if err == nil {
			t.Errorf("%s: done", sql)
		}
	}
	for _, database := range []string{"tenant_globex", s.conn.Config().Database} {
		other, err := pgx.Connect(t.Context(), in(t, database, login))
		if err == nil {
			_ = other.Close(t.Context())
			t.Errorf("the tenant may connect to %s", database)
		}
	}
	for _, role := range []string{"tenant_walled", provision.RegistryRole, provision.PoolRole} {
		other, err := pgx.Connect(t.Context(), in(t, "tenant_acme", s.login(t, role, s.key.Password(role, 1))))
		if err == nil {
			_ = other.Close(t.Context())
			t.Errorf("%s may connect to the tenant's database", role)
		}
	}
}

func TestATenantsDatabaseCanBeNamed(t *testing.T) {
	s := newInitialisedSite(t)
	r := ownDatabase
	r.Database = `Acme's "own"`
	tenant, err := s.CreateTenant(t.Context(), r)
	if err != nil || tenant.Route.Database != r.Database {
		t.Fatalf("got %+v, %v", tenant, err)
	}
	connect(t, in(t, r.Database, s.login(t, "tenant_acme", s.key.Password("tenant_acme", 1))))
}

// failAfter has a provisioner fail after a step.
func (s *site) failAfter(step string, fail func() error) *provision.Provisioner {
	p := s.with(s.key)
	p.AfterStep(func(done string) error {
		if done == step {
			return fail()
		}
		return nil
	})
	return p
}

func TestNoDatabaseIsLeftWhenAStepFails(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	boom := errors.New("boom")
	for _, name := range provision.StepNames(registry.IsolationDatabase) {
		t.Run(name, func(t *testing.T) {
			if _, err := s.failAfter(name, func() error { return boom }).CreateTenant(t.Context(), ownDatabase); !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
		})
	}
	for _, name := range []string{"create the database", "fill the database", "open the database"} {
		t.Run(name+", cancelled", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := s.failAfter(name, func() error { cancel(); return nil })
			if _, err := p.CreateTenant(ctx, ownDatabase); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
		})
	}
	s.createAt(t, "acme", registry.IsolationDatabase)
}

// kill ends a creation after a step as the end of the process would: its connections close and nothing is cleaned
// up. Deferred calls still run, which close the connections.
func (s *site) kill(t *testing.T, step string, r provision.TenantRequest) {
	t.Helper()
	var run sync.WaitGroup
	completed := false
	run.Go(func() {
		p := s.failAfter(step, func() error { runtime.Goexit(); return nil })
		_, _ = p.CreateTenant(t.Context(), r)
		completed = true
	})
	run.Wait()
	if completed {
		t.Fatalf("the creation has not been ended after %q", step)
	}
}

func TestTheNextRunClearsAwayWhatAKilledOneHasLeft(t *testing.T) {
	s := newInitialisedSite(t)
	for i, name := range provision.StepNames(registry.IsolationDatabase) {
		t.Run(name, func(t *testing.T) {
			r := ownDatabase
			r.ID = registry.TenantID(fmt.Sprintf("a%d", i))
			role := "tenant_" + string(r.ID)
			s.kill(t, name, r)
			if _, err := s.store(t).Tenant(t.Context(), r.ID); !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("registered: %v", err)
			}
			dsn := in(t, role, s.login(t, role, s.key.Password(role, 1)))
			if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
				_ = conn.Close(t.Context())
				t.Error("the tenant gets in before it is registered")
			}
			if _, err := s.CreateTenant(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			execute(t, connect(t, dsn), "SELECT FROM docbasket")
		})
	}
}

func TestWhatAKilledRunHasLeftIsClearedByARunThatAsksForSomethingElse(t *testing.T) {
	s := newInitialisedSite(t)
	for i, another := range []provision.TenantRequest{
		{Isolation: registry.IsolationRole},
		{Isolation: registry.IsolationDatabase, Database: "elsewhere"},
		{Isolation: registry.IsolationDatabase, SchemaTemplate: "t_{tenant_id}"},
	} {
		for j, step := range []string{"create the database", "mark the database"} {
			r := another
			r.ID = registry.TenantID(fmt.Sprintf("x%d%d", i, j))
			if r.Database != "" {
				r.Database += string(r.ID)
			}
			t.Run(fmt.Sprintf("%s %s, %s", r.Isolation, r.Database, step), func(t *testing.T) {
				s.kill(t, step, provision.TenantRequest{ID: r.ID, Isolation: registry.IsolationDatabase})
				tenant, err := s.CreateTenant(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				left := lines(t, s.conn, `
SELECT datname::text FROM pg_database WHERE datname ~ $1 AND datname <> $2
UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ $1 AND rolname <> $3`, string(r.ID), tenant.Route.Database, tenant.Route.Role)
				if len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			})
		}
	}
}

// Each of these looks a little like what a killed run leaves.
func TestADatabaseThatIsNotOursIsNeverDropped(t *testing.T) {
	s := newInitialisedSite(t)
	registryName := s.conn.Config().Database
	for name, sql := range map[string][]string{
		"somebody's":               {`CREATE DATABASE tenant_acme`},
		"docex_owner's":            {`CREATE DATABASE tenant_acme OWNER docex_owner`},
		"closed, nobody's mark":    {`CREATE DATABASE tenant_acme OWNER docex_owner CONNECTION LIMIT 0`},
		"with another comment":     {`CREATE DATABASE tenant_acme OWNER docex_owner CONNECTION LIMIT 0`, `COMMENT ON DATABASE tenant_acme IS 'mine'`},
		"of another tenant's mark": {`CREATE DATABASE tenant_acme`, `COMMENT ON DATABASE tenant_acme IS 'docex-proxy: tenant acm of registry ` + registryName + `, provisioning'`},
		"of another registry":      {`CREATE DATABASE tenant_acme`, `COMMENT ON DATABASE tenant_acme IS 'docex-proxy: tenant acme of registry another, provisioning'`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, statement := range sql {
				execute(t, s.conn, statement)
			}
			before := s.snapshot(t)
			_, err := s.CreateTenant(t.Context(), ownDatabase)
			if conflict, ok := errors.AsType[*provision.ConflictError](err); !ok || conflict.Object != "database" || conflict.Name != "tenant_acme" {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
			execute(t, s.conn, `DROP DATABASE tenant_acme`)
		})
	}
}

func TestADatabaseThatBearsOurMarkIsReplaced(t *testing.T) {
	s := newInitialisedSite(t)
	execute(t, s.conn, `CREATE DATABASE tenant_acme OWNER docex_owner`)
	execute(t, s.conn, `COMMENT ON DATABASE tenant_acme IS 'docex-proxy: tenant acme of registry `+s.conn.Config().Database+`, provisioning'`)
	s.createAt(t, "acme", registry.IsolationDatabase)
	compareCatalog(t, s.inside(t, "tenant_acme"), "tenant_acme", all)
}

func TestADatabaseThatAppearsMeanwhileIsAConflictAndStays(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.with(s.key)
	var before string
	p.AfterStep(func(done string) error {
		if done == "look for what exists" {
			execute(t, s.conn, `CREATE DATABASE tenant_acme OWNER docex_owner`)
			before = s.snapshot(t)
		}
		return nil
	})
	_, err := p.CreateTenant(t.Context(), ownDatabase)
	if conflict, ok := errors.AsType[*provision.ConflictError](err); !ok || conflict.Object != "database" {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestOfSeveralThatCreateOneDatabaseOneSucceeds(t *testing.T) {
	s := newInitialisedSite(t)
	errs := make([]error, 3)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = s.CreateTenant(t.Context(), ownDatabase) })
	}
	all.Wait()
	created := 0
	for _, err := range errs {
		if err == nil {
			created++
		} else if !errors.Is(err, provision.ErrExists) {
			t.Errorf("the loser got %v", err)
		}
	}
	if created != 1 {
		t.Errorf("%d succeeded", created)
	}
}

func TestDifferentDatabasesAreCreatedSideBySide(t *testing.T) {
	s := newInitialisedSite(t)
	errs := make([]error, 4)
	var all sync.WaitGroup
	for i := range errs {
		r := ownDatabase
		r.ID = registry.TenantID(fmt.Sprintf("a%d", i))
		all.Go(func() { _, errs[i] = s.CreateTenant(t.Context(), r) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestAProvisionerWithCreatedbCanCreateADatabase(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "CREATEDB NOINHERIT")
	before := s.snapshot(t)
	boom := errors.New("boom")
	p.AfterStep(func(done string) error {
		if done == "open the database" {
			return boom
		}
		return nil
	})
	if _, err := p.CreateTenant(t.Context(), ownDatabase); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
	p.AfterStep(nil)
	if _, err := p.CreateTenant(t.Context(), ownDatabase); err != nil {
		t.Fatal(err)
	}
	compareCatalog(t, s.inside(t, "tenant_acme"), "tenant_acme", all)
	connect(t, in(t, "tenant_acme", s.login(t, "tenant_acme", s.key.Password("tenant_acme", 1))))
	left := lines(t, s.conn, `
SELECT 'member ' || member::regrole FROM pg_auth_members WHERE roleid = 'tenant_acme'::regrole AND NOT admin_option
UNION ALL SELECT 'may connect' FROM pg_database, aclexplode(datacl) WHERE datname = 'tenant_acme' AND grantee = 'provisioner'::regrole`)
	if len(left) > 0 {
		t.Errorf("the provisioner keeps: %q", left)
	}
}

func TestAProvisionerWithoutCreatedbLeavesNothing(t *testing.T) {
	s := newInitialisedSite(t)
	p := s.provisioner(t, "")
	before := s.snapshot(t)
	if _, err := p.CreateTenant(t.Context(), ownDatabase); err == nil || !strings.Contains(err.Error(), "create the database") {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestADryRunOfADatabaseShowsWhereEachStatementBelongs(t *testing.T) {
	s := newInitialisedSite(t)
	s.kill(t, "fill the database", ownDatabase)
	before := s.snapshot(t)
	var shown []string
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, DryRun: func(sql string) { shown = append(shown, sql) }})
	if _, err := dry.CreateTenant(t.Context(), ownDatabase); err != nil {
		t.Fatal(err)
	}
	equal(t, before, s.snapshot(t))
	all := strings.Join(shown, "\n")
	if strings.Contains(all, "UNION ALL") {
		t.Error("a query was shown")
	}
	for _, want := range []string{
		`DROP DATABASE "tenant_acme";`, `DROP ROLE "tenant_acme";`, `CREATE ROLE "tenant_acme" `, `PASSWORD 'SCRAM-SHA-256$[redacted]'`,
		`CREATE DATABASE "tenant_acme" TEMPLATE template0 OWNER docex_owner`, `REVOKE ALL ON DATABASE "tenant_acme" FROM PUBLIC`,
		`\connect "tenant_acme"`, `REVOKE ALL ON SCHEMA public FROM PUBLIC`, `CREATE SCHEMA "tenant_acme" AUTHORIZATION docex_owner`,
		`CREATE TABLE IF NOT EXISTS docbasket`, `ALTER ROLE "tenant_acme" IN DATABASE "tenant_acme" SET search_path`,
		`\connect "` + s.conn.Config().Database + `"`, `INSERT INTO docex_system.tenant_registry`, `ALTER ROLE "tenant_acme" LOGIN`,
	} {
		_, after, found := strings.Cut(all, want)
		if !found {
			t.Fatalf("%s is missing, or not there in its turn, in\n%s", want, all)
		}
		all = after
	}
	if strings.Contains(strings.Join(shown, "\n"), "SCRAM-SHA-256$4096") {
		t.Error("a verifier was shown")
	}
}

func TestIfNotExistsRefusesATenantAtAnotherLevelOrElsewhere(t *testing.T) {
	s := newInitialisedSite(t)
	s.createAt(t, "acme", registry.IsolationDatabase)
	for _, c := range []struct {
		r  provision.TenantRequest
		ok bool
	}{
		{provision.TenantRequest{ID: "acme"}, true},
		{provision.TenantRequest{ID: "acme", Isolation: registry.IsolationDatabase}, true},
		{provision.TenantRequest{ID: "acme", Isolation: registry.IsolationDatabase, Database: "tenant_acme"}, true},
		{provision.TenantRequest{ID: "acme", Isolation: registry.IsolationRole}, false},
		{provision.TenantRequest{ID: "acme", Isolation: registry.IsolationDatabase, Database: "other"}, false},
	} {
		c.r.IfNotExists = true
		tenant, err := s.CreateTenant(t.Context(), c.r)
		if c.ok && (err != nil || tenant.Route.Isolation != registry.IsolationDatabase) || !c.ok && !errors.Is(err, provision.ErrExists) {
			t.Errorf("%+v: got %v", c.r, err)
		}
	}
}
