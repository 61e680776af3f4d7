package provision_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestCreateTenantRegistersWhatItReturns(t *testing.T) {
	s := newInitialisedSite(t)
	tenant, err := s.CreateTenant(t.Context(), provision.TenantRequest{
		ID: "Acme_1", DisplayName: "Acme Corp", CreatedBy: "admin", Server: "eu-1", Isolation: registry.IsolationRole,
	})
	if err != nil {
		t.Fatal(err)
	}
	if tenant.SchemaName != "tenant_Acme_1" || tenant.Route.Role != "tenant_Acme_1" || tenant.Route.Status != registry.StatusActive ||
		tenant.Route.Server != "eu-1" || tenant.IsolationStrategy != "schema" || tenant.CreatedBy != "admin" || tenant.DisplayName != "Acme Corp" {
		t.Errorf("got %+v, %+v", tenant, tenant.Route)
	}
	stored, err := s.store(t).Tenant(t.Context(), "Acme_1")
	if err != nil {
		t.Fatal(err)
	}
	stored.Route.UpdatedAt = tenant.Route.UpdatedAt // the database's own clock
	if got, want := fmt.Sprintf("%+v %+v", *stored.Route, withoutRoute(stored)), fmt.Sprintf("%+v %+v", *tenant.Route, withoutRoute(tenant)); got != want {
		t.Errorf("stored   %s\nreturned %s", got, want)
	}
	events := lines(t, s.conn, `SELECT concat_ws(' ', tenant_id, verb, actor, detail) FROM docex_system.tenant_event WHERE tenant_id <> '_docex_system_'`)
	want := `Acme_1 create admin {"role": "tenant_Acme_1", "schema": "tenant_Acme_1", "server": "eu-1", "isolation": "role"}`
	if !slices.Equal(events, []string{want}) {
		t.Errorf("events %q", events)
	}
}

func withoutRoute(t *registry.Tenant) registry.Tenant {
	plain := *t
	plain.Route = nil
	return plain
}

func TestDefaultsAreDocEXs(t *testing.T) {
	s := newInitialisedSite(t)
	tenant := s.create(t, "acme")
	if tenant.DisplayName != "acme" || tenant.CreatedBy != "cli_user" || tenant.Route.Server != "main" || tenant.Route.Isolation != registry.IsolationRole {
		t.Errorf("got %+v, %+v", tenant, tenant.Route)
	}
}

func TestATenantsRoleIsConfinedToItsSchema(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	s.create(t, "globex")
	conn := s.as(t, "tenant_acme")
	if got := lines(t, conn, `SELECT current_schema() || ' ' || current_setting('search_path')`); got[0] != `tenant_acme tenant_acme, ext, public` {
		t.Errorf("got %q", got)
	}
	execute(t, conn, `INSERT INTO docbasket VALUES ('1', 'mine', NULL, '{}', 'active', now(), now())`)
	execute(t, conn, `ALTER TABLE document ADD COLUMN embedding text; CREATE TABLE extra (id serial PRIMARY KEY); CREATE TEMPORARY TABLE t ()`)
	for _, sql := range []string{
		"SELECT FROM tenant_globex.docbasket",
		"INSERT INTO tenant_globex.docbasket VALUES ('1', 'mine', NULL, '{}', 'active', now(), now())",
		"SELECT FROM docex_system.tenant_registry",
		"SELECT FROM docex_system.proxy_login",
		"CREATE SCHEMA mine",
		"CREATE TABLE public.mine ()",
		"CREATE TABLE ext.mine ()",
		"DROP SCHEMA tenant_acme CASCADE",
		"ALTER SCHEMA tenant_acme RENAME TO mine",
		"SET ROLE tenant_globex",
		"SET ROLE docex_owner",
		"CREATE ROLE mine",
		"SELECT FROM pg_authid",
	} {
		refused(t, conn, "42501", sql)
	}
	attributes := lines(t, s.conn, `SELECT concat_ws(' ', rolcanlogin, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit)
	  FROM pg_roles WHERE rolname = 'tenant_acme'`)
	if !slices.Equal(attributes, []string{"t f f f f f f -1"}) {
		t.Errorf("attributes %q", attributes)
	}
	if members := lines(t, s.conn, `SELECT roleid::regrole || ' ' || member::regrole FROM pg_auth_members WHERE roleid::regrole::text !~ '^pg_'`); len(members) > 0 {
		t.Errorf("memberships %q", members)
	}
}

func TestNothingIsLeftWhenAStepFails(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	boom := errors.New("boom")
	for _, name := range provision.StepNames(registry.IsolationRole) {
		t.Run(name, func(t *testing.T) {
			failing := s.failAfter(name, func() error { return boom })
			if _, err := failing.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"}); !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
		})
		t.Run(name+", cancelled", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cancelled := s.with(s.key)
			cancelled.AfterStep(func(done string) error {
				if done == name {
					cancel()
				}
				return nil
			})
			if _, err := cancelled.CreateTenant(ctx, provision.TenantRequest{ID: "acme"}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
		})
	}
	s.create(t, "acme")
}

func TestNothingIsLeftWhenInitFails(t *testing.T) {
	s := newSite(t)
	before := s.snapshot(t)
	boom := errors.New("boom")
	failing := s.with(s.key)
	failing.AfterStep(func(done string) error {
		if strings.Contains(done, "audit") {
			return boom
		}
		return nil
	})
	if _, err := failing.Init(t.Context(), provision.InitRequest{}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestOfTwoThatCreateOneTenantOneSucceeds(t *testing.T) {
	s := newInitialisedSite(t)
	errs := s.createAtOnce(t, "acme", "acme", "acme")
	created := 0
	for _, err := range errs {
		switch {
		case err == nil:
			created++
		case !errors.Is(err, provision.ErrExists):
			t.Errorf("the loser got %v", err)
		}
	}
	if created != 1 {
		t.Errorf("%d succeeded", created)
	}
}

func TestDifferentTenantsAreCreatedSideBySide(t *testing.T) {
	s := newInitialisedSite(t)
	ids := []registry.TenantID{"a1", "a2", "a3", "a4", "a5", "a6"}
	for i, err := range s.createAtOnce(t, ids...) {
		if err != nil {
			t.Errorf("%s: %v", ids[i], err)
		}
	}
	for _, id := range ids {
		s.as(t, "tenant_"+string(id))
	}
}

// createAtOnce returns what each of several concurrent creations returned.
func (s *site) createAtOnce(t *testing.T, ids ...registry.TenantID) []error {
	t.Helper()
	errs := make([]error, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() { _, errs[i] = s.CreateTenant(t.Context(), provision.TenantRequest{ID: id}) })
	}
	all.Wait()
	return errs
}

func TestInitWaitsForATenantThatIsBeingCreated(t *testing.T) {
	s := newInitialisedSite(t)
	slow := s.with(s.key)
	initialised := make(chan error, 1)
	slow.AfterStep(func(done string) error {
		if done == "register the tenant" {
			go func() { _, err := s.Init(t.Context(), provision.InitRequest{}); initialised <- err }()
			for len(lines(t, s.conn, `SELECT 'x' FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`)) == 0 {
				time.Sleep(time.Millisecond) // the barrier is Postgres' own list of those who wait
			}
		}
		return nil
	})
	if _, err := slow.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"}); err != nil {
		t.Error(err)
	}
	if err := <-initialised; err != nil {
		t.Error(err)
	}
}

func TestIfNotExistsAnswersWithTheTenantThatIsThere(t *testing.T) {
	s := newInitialisedSite(t)
	first := s.create(t, "acme")
	before := s.snapshot(t)
	second, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", DisplayName: "another", IfNotExists: true})
	if err != nil {
		t.Fatal(err)
	}
	if second.DisplayName != "acme" || !second.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("got %+v", second)
	}
	_, err = s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"})
	if !errors.Is(err, provision.ErrExists) {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestIfNotExistsDoesNotHideATenantThatCannotBeUsed(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "gone")
	execute(t, s.conn, `UPDATE docex_system.tenant_route SET status = 'deleted';
	  INSERT INTO docex_system.tenant_registry VALUES ('theirs', 'Theirs', false, 'schema', 'tenant_theirs', NULL, now(), 'docex', now(), NULL)`)
	for _, id := range []registry.TenantID{"gone", "theirs"} {
		_, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: id, IfNotExists: true})
		if !errors.Is(err, provision.ErrExists) {
			t.Errorf("%s: got %v", id, err)
		}
	}
}

func TestWhatStandsInTheWayIsNamedAndNotAdopted(t *testing.T) {
	s := newInitialisedSite(t)
	for _, c := range []struct{ sql, id, object, name string }{
		{`CREATE SCHEMA tenant_a`, "a", "schema", "tenant_a"},
		{`CREATE ROLE tenant_b`, "b", "role", "tenant_b"},
		{`INSERT INTO docex_system.tenant_registry VALUES ('old-c', 'C', false, 'schema', 'tenant_c', NULL, now(), 'docex', now(), NULL)`,
			"c", "schema", "tenant_c"},
	} {
		execute(t, s.conn, c.sql)
		before := s.snapshot(t)
		_, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: registry.TenantID(c.id)})
		conflict, ok := errors.AsType[*provision.ConflictError](err)
		if !ok || conflict.Object != c.object || conflict.Name != c.name {
			t.Errorf("%s: got %v", c.sql, err)
		}
		equal(t, before, s.snapshot(t))
	}
}

func TestATemplateThatEndsAtOneOfOurOwnNamesIsAConflict(t *testing.T) {
	s := newInitialisedSite(t)
	for _, id := range []registry.TenantID{"docex_system", "docex_owner", "docex_registry", "public", "ext", "postgres"} {
		_, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: id, SchemaTemplate: "{tenant_id}"})
		if _, ok := errors.AsType[*provision.ConflictError](err); !ok {
			t.Errorf("%s: got %v", id, err)
		}
	}
}

func TestRequestsThatCannotBeMetAreRefusedBeforeAnythingHappens(t *testing.T) {
	nowhere := provision.New(provision.Options{DSN: "postgres://postgres@127.0.0.1:1/none", Key: secret.New()})
	for _, r := range []provision.TenantRequest{
		{ID: "acme", Isolation: registry.IsolationSlot, Database: "acme"},
		{ID: "acme", Isolation: "sideways"},
		{ID: "acme", Database: "acme"},
		{ID: "acme", Isolation: registry.IsolationTrusted, Database: "acme"},
		{ID: "acme", Isolation: registry.IsolationDatabase, Database: strings.Repeat("x", 64)},
		{ID: "acme", Isolation: registry.IsolationDatabase, Database: "a\x00b"},
		{ID: "acme", SchemaTemplate: "tenant"},
		{ID: "acme", SchemaTemplate: "tenant-{tenant_id}"},
		{ID: "acme", SchemaTemplate: "1_{tenant_id}"},
		{ID: "acme", SchemaTemplate: "pg_{tenant_id}"},
		{ID: "acme", SchemaTemplate: "{tenant_id}_{other}"},
		{ID: "acme", SchemaTemplate: strings.Repeat("x", 60) + "{tenant_id}"},
		{ID: "acme", DisplayName: strings.Repeat("é", 256)},
		{ID: "acme", CreatedBy: "a\x00b"},
	} {
		_, err := nowhere.CreateTenant(t.Context(), r)
		if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
			t.Errorf("%+v: got %v", r, err)
		}
	}
	for _, id := range []registry.TenantID{"", "acme-corp", "_docex_x_", registry.SystemTenantID, "1a", registry.TenantID(strings.Repeat("a", 31))} {
		_, err := nowhere.CreateTenant(t.Context(), provision.TenantRequest{ID: id})
		if _, ok := errors.AsType[*registry.InvalidTenantIDError](err); !ok {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

func TestALongTemplateUsesAllOfAName(t *testing.T) {
	s := newInitialisedSite(t)
	template := strings.Repeat("x", 59) + "{tenant_id}"
	tenant, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", SchemaTemplate: template})
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(t, s.as(t, tenant.Route.Role), "SELECT current_schema()::text"); got[0] != tenant.SchemaName || len(got[0]) != 63 {
		t.Errorf("got %q", got)
	}
}

func TestADatabaseWithoutInitIsNamedAsSuch(t *testing.T) {
	s := newSite(t)
	if _, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"}); !errors.Is(err, provision.ErrNotInitialised) {
		t.Errorf("got %v", err)
	}
	_, err := s.CreateLogin(t.Context(), provision.LoginRequest{Name: "app", AllTenants: true})
	if !errors.Is(err, provision.ErrNotInitialised) {
		t.Errorf("got %v", err)
	}
}

func TestATenantIsNotCreatedWithAKeyThatTheProxyDoesNotHave(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	_, err := s.with(secret.New()).CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"})
	if _, ok := errors.AsType[*provision.KeyMismatchError](err); !ok {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestARoleWithCreateroleAndDocexOwnerCanProvision(t *testing.T) {
	s := newInitialisedSite(t)
	execute(t, s.conn, `CREATE ROLE provisioner LOGIN CREATEROLE PASSWORD 'secret'; GRANT docex_owner TO provisioner WITH ADMIN OPTION`)
	p := provision.New(provision.Options{DSN: s.login(t, "provisioner", "secret"), Key: s.key})
	if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	compareCatalog(t, s.conn, "tenant_acme", all)
	conn := s.as(t, "tenant_acme")
	execute(t, conn, "SELECT FROM document")
	if members := lines(t, s.conn, `SELECT member::regrole::text FROM pg_auth_members WHERE roleid = 'tenant_acme'::regrole AND NOT admin_option`); len(members) > 0 {
		t.Errorf("the tenant's role still has members: %q", members)
	}
	_, err := p.CreateLogin(t.Context(), provision.LoginRequest{Name: "app", Tenants: []registry.TenantID{"acme"}})
	if err != nil {
		t.Error(err)
	}
}

func TestATenantAnnouncesItself(t *testing.T) {
	s := newInitialisedSite(t)
	listener := connect(t, s.dsn)
	execute(t, listener, "LISTEN docex_registry")
	s.create(t, "acme")
	notification, err := listener.WaitForNotification(t.Context())
	if err != nil || notification.Payload != "acme" {
		t.Errorf("got %+v, %v", notification, err)
	}
}

func BenchmarkCreateTwentyTenants(b *testing.B) {
	s := newInitialisedSite(b)
	n := 0
	for b.Loop() {
		for range 20 {
			n++
			s.create(b, registry.TenantID(fmt.Sprintf("t%d", n)))
		}
	}
}
