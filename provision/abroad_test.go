package provision_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// twoServers is a site that has tenants on another server too, "eu".
type twoServers struct {
	*site
	eu *localpg.Cluster
}

func newTwoServers(t *testing.T) *twoServers {
	t.Helper()
	s := &twoServers{site: newInitialisedSite(t), eu: pgtest.SecondCluster(t)}
	t.Cleanup(func() { dropEverything(t, s.eu.DSN("postgres")) })
	s.Provisioner = s.reaching(s.key, s.eu.DSN("postgres"))
	return s
}

func (s *twoServers) reaching(key secret.Key, eu string) *provision.Provisioner {
	return provision.New(provision.Options{DSN: s.dsn, Key: key, Servers: map[string]string{"eu": eu}})
}

func inEurope(id registry.TenantID) provision.TenantRequest {
	return provision.TenantRequest{ID: id, Isolation: registry.IsolationDatabase, Server: "eu"}
}

// there is the DSN with which a tenant's role logs in to its database on the other server.
func (s *twoServers) there(t *testing.T, role string, generation int) string {
	t.Helper()
	return s.loginThere(t, role, role, s.key.Password(role, generation))
}

// maker is the other server's DSN for a role that may create roles and databases, and is no superuser.
func (s *twoServers) maker(t *testing.T) string {
	t.Helper()
	execute(t, connect(t, s.eu.DSN("postgres")), "CREATE ROLE maker LOGIN CREATEROLE CREATEDB PASSWORD 'secret'")
	return s.loginThere(t, "postgres", "maker", "secret")
}

func (s *twoServers) loginThere(t *testing.T, database, user, password string) string {
	t.Helper()
	dsn, err := url.Parse(s.eu.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(user, password)
	return dsn.String()
}

// shut demands that the tenant does not get in.
func (s *twoServers) shut(t *testing.T, role string) {
	t.Helper()
	if conn, err := pgx.Connect(t.Context(), s.there(t, role, 1)); err == nil {
		_ = conn.Close(t.Context())
		t.Errorf("%s gets in", role)
	}
}

// remains is what of tenants is on the other server.
func (s *twoServers) remains(t *testing.T) []string {
	t.Helper()
	return lines(t, connect(t, s.eu.DSN("postgres")), `
SELECT rolname::text FROM pg_roles WHERE rolname ~ '^tenant_' UNION ALL SELECT datname FROM pg_database WHERE datname ~ '^tenant_'
UNION ALL SELECT description FROM pg_shdescription WHERE description ~ 'docex' ORDER BY 1`)
}

func (s *twoServers) status(t *testing.T, id registry.TenantID) registry.Status {
	t.Helper()
	tenant, err := s.store(t).Tenant(t.Context(), id)
	if errors.Is(err, registry.ErrNotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return tenant.Route.Status
}

func TestATenantCanHaveItsDatabaseOnAnotherServer(t *testing.T) {
	s := newTwoServers(t)
	tenant, err := s.CreateTenant(t.Context(), inEurope("acme"))
	if err != nil {
		t.Fatal(err)
	}
	r := tenant.Route
	if r.Server != "eu" || r.Database != "tenant_acme" || r.Role != "tenant_acme" || r.Status != registry.StatusActive {
		t.Errorf("got %+v", r)
	}
	if got := s.status(t, "acme"); got != registry.StatusActive {
		t.Errorf("registered as %s", got)
	}
	compareCatalog(t, connect(t, s.eu.DSN("tenant_acme")), "tenant_acme", all)
	if got := s.remains(t); !slices.Equal(got, []string{"tenant_acme", "tenant_acme"}) {
		t.Errorf("there is %q", got)
	}
	here := lines(t, s.conn, `SELECT rolname::text FROM pg_roles WHERE rolname ~ '^tenant_' UNION ALL SELECT datname FROM pg_database WHERE datname ~ '^tenant_'`)
	if len(here) > 0 {
		t.Errorf("the registry's server has %q", here)
	}
	conn := connect(t, s.there(t, "tenant_acme", 1))
	execute(t, conn, "INSERT INTO docbasket VALUES ('1', 'mine', NULL, '{}', 'active', now(), now())")
	refused(t, conn, "42501", "SET ROLE docex_owner")
	if _, err := s.CreateTenant(t.Context(), inEurope("globex")); err != nil { // on a server that has docex_owner by now
		t.Fatal(err)
	}
	globex := in(t, "tenant_globex", s.there(t, "tenant_acme", 1))
	if other, err := pgx.Connect(t.Context(), globex); err == nil {
		_ = other.Close(t.Context())
		t.Error("a tenant gets into another's database")
	}
}

func TestOnAnotherServerEverythingIsThereOrNothing(t *testing.T) {
	s := newTwoServers(t)
	if _, err := s.CreateTenant(t.Context(), inEurope("first")); err != nil { // docex_owner is there then
		t.Fatal(err)
	}
	before, there := s.snapshot(t), s.remains(t)
	boom := errors.New("boom")
	for _, name := range provision.ForeignStepNames(registry.IsolationDatabase) {
		t.Run(name, func(t *testing.T) {
			p := s.Provisioner
			p.AfterStep(func(done string) error {
				if done == name {
					return boom
				}
				return nil
			})
			defer p.AfterStep(nil)
			if _, err := p.CreateTenant(t.Context(), inEurope("acme")); !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
			if got := s.remains(t); !slices.Equal(got, there) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestTheNextRunFinishesOnAnotherServerWhatAKilledOneHasBegun(t *testing.T) {
	s := newTwoServers(t)
	names := append(provision.ForeignStepNames(registry.IsolationDatabase), "open the database")
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			id := registry.TenantID(fmt.Sprintf("a%d", i))
			role := "tenant_" + string(id)
			s.kill(t, name, inEurope(id))
			if name == "open the database" {
				if got := s.status(t, id); got != registry.StatusProvisioning {
					t.Errorf("the status is %q", got)
				}
			} else {
				s.shut(t, role)
			}
			tenant, err := s.CreateTenant(t.Context(), inEurope(id))
			if err != nil || tenant.Route.Status != registry.StatusActive {
				t.Fatalf("%+v, %v", tenant, err)
			}
			execute(t, connect(t, s.there(t, role, 1)), "SELECT FROM docbasket")
			if _, err := s.CreateTenant(t.Context(), inEurope(id)); !errors.Is(err, provision.ErrExists) {
				t.Errorf("once more: %v", err)
			}
		})
	}
	if got := s.remains(t); len(got) != 2*len(names) {
		t.Errorf("there is %q", got)
	}
}

// kill ends a creation after a step as the end of the process would.
func (s *twoServers) kill(t *testing.T, step string, r provision.TenantRequest) {
	t.Helper()
	var run sync.WaitGroup
	completed := false
	run.Go(func() {
		p := s.reaching(s.key, s.eu.DSN("postgres"))
		p.AfterStep(func(done string) error {
			if done == step {
				runtime.Goexit()
			}
			return nil
		})
		_, _ = p.CreateTenant(t.Context(), r)
		completed = true
	})
	run.Wait()
	if completed {
		t.Fatalf("the creation has not been ended after %q", step)
	}
}

func TestATenantThatIsRegisteredButNotOpenedIsNotDropped(t *testing.T) {
	s := newTwoServers(t)
	boom := errors.New("boom")
	s.AfterStep(func(done string) error {
		if done == "open the database" {
			return boom
		}
		return nil
	})
	if _, err := s.CreateTenant(t.Context(), inEurope("acme")); !errors.Is(err, boom) || !strings.Contains(err.Error(), "create it again") {
		t.Errorf("got %v", err)
	}
	s.AfterStep(nil)
	if got := s.status(t, "acme"); got != registry.StatusProvisioning {
		t.Errorf("the status is %q", got)
	}
	elsewhere := provision.TenantRequest{ID: "acme"}
	if _, err := s.CreateTenant(t.Context(), elsewhere); !errors.Is(err, provision.ErrExists) || !strings.Contains(err.Error(), `"eu"`) {
		t.Errorf("at home: %v", err)
	}
	request := inEurope("acme")
	request.Database = "elsewhere" // the registry knows better
	if _, err := s.CreateTenant(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	connect(t, s.there(t, "tenant_acme", 1))
}

func TestOfTwoThatCreateATenantOnAnotherServerOneSucceeds(t *testing.T) {
	s := newTwoServers(t)
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			_, err := s.reaching(s.key, s.eu.DSN("postgres")).CreateTenant(context.WithoutCancel(t.Context()), inEurope("acme"))
			errs <- err
		}()
	}
	created := 0
	for range cap(errs) {
		switch err := <-errs; {
		case err == nil:
			created++
		case !errors.Is(err, provision.ErrExists):
			t.Error(err)
		}
	}
	if created != 1 {
		t.Errorf("%d have created it", created)
	}
	connect(t, s.there(t, "tenant_acme", 1))
}

func TestWhatStandsOnAnotherServerIsNotTakenOver(t *testing.T) {
	s := newTwoServers(t)
	there := connect(t, s.eu.DSN("postgres"))
	execute(t, there, "CREATE ROLE tenant_acme LOGIN")
	execute(t, there, "CREATE DATABASE tenant_globex TEMPLATE template0")
	for _, id := range []registry.TenantID{"acme", "globex"} {
		_, err := s.CreateTenant(t.Context(), inEurope(id))
		if _, ok := errors.AsType[*provision.ConflictError](err); !ok {
			t.Errorf("%s: %v", id, err)
		}
		if got := s.status(t, id); got != "" {
			t.Errorf("%s is registered", id)
		}
	}
	request := inEurope("other")
	request.Isolation = registry.IsolationTrusted
	_, err := s.CreateTenant(t.Context(), request)
	if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
		t.Errorf("at level trusted: %v", err)
	}
	unreachable := s.reaching(s.key, "postgres://postgres@127.0.0.1:1/postgres")
	if _, err := unreachable.CreateTenant(t.Context(), inEurope("acme")); err == nil || !strings.Contains(err.Error(), `server "eu"`) {
		t.Errorf("unreachable: %v", err)
	}
}

func TestWhoMayCreateRolesAndDatabasesCanDoSoOnAnotherServer(t *testing.T) {
	s := newTwoServers(t)
	maker := s.maker(t)
	for _, id := range []registry.TenantID{"acme", "globex"} {
		if _, err := s.reaching(s.key, maker).CreateTenant(t.Context(), inEurope(id)); err != nil {
			t.Fatal(err)
		}
		connect(t, s.there(t, "tenant_"+string(id), 1))
	}
}

func TestTheRoleOfATenantOnAnotherServerIsRotatedThere(t *testing.T) {
	s := newTwoServers(t)
	if _, err := s.CreateTenant(t.Context(), inEurope("acme")); err != nil {
		t.Fatal(err)
	}
	request := provision.RotateRequest{ID: "acme"}
	// Another registry's tenant may have a role of the same name here.
	execute(t, s.conn, "CREATE ROLE tenant_acme LOGIN")
	_, err := s.with(s.key).RotateTenant(t.Context(), request)
	if _, ok := errors.AsType[*provision.ConflictError](err); !ok || !strings.Contains(err.Error(), `"eu"`) {
		t.Errorf("by one who does not know the server: %v", err)
	}
	connect(t, s.there(t, "tenant_acme", 1))
	result, err := s.RotateTenant(t.Context(), request)
	if err != nil || result.Generation != 2 {
		t.Fatalf("%+v, %v", result, err)
	}
	connect(t, s.there(t, "tenant_acme", 2))
	s.shut(t, "tenant_acme")
	if got := lines(t, s.conn, "SELECT rolpassword FROM pg_authid WHERE rolname = 'tenant_acme' AND rolpassword IS NOT NULL"); len(got) > 0 {
		t.Error("the role on the registry's server has got a password")
	}
}

func TestADryRunForAnotherServerShowsItsStatementsAndTouchesNothing(t *testing.T) {
	s := newTwoServers(t)
	var shown []string
	p := provision.New(provision.Options{
		DSN: s.dsn, Key: s.key, Servers: map[string]string{"eu": "postgres://127.0.0.1:1/none"},
		DryRun: func(statement string) { shown = append(shown, statement) },
	})
	before := s.snapshot(t)
	if _, err := p.CreateTenant(t.Context(), inEurope("acme")); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(shown, "\n")
	for _, part := range []string{`-- on server "eu"`, `CREATE DATABASE "tenant_acme"`, "tenant_route"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not shown in\n%s", part, text)
		}
	}
	equal(t, before, s.snapshot(t))
}
