package provision_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// smallTemplate makes one table, which is soon done.
func smallTemplate(t *testing.T) provision.Template {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "0001_notes.sql"), []byte("CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY, text text)"), 0o600); err != nil {
		t.Fatal(err)
	}
	template, err := provision.LoadTemplate(dir)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// shared is a request for a tenant that shares a database on the other server.
func shared(t *testing.T, id registry.TenantID) provision.TenantRequest {
	return provision.TenantRequest{ID: id, Server: "eu", Template: smallTemplate(t)}
}

// inShared is the DSN with which a tenant's role logs in to the database that tenants share on the other server.
func (s *twoServers) inShared(t *testing.T, role string, generation int) string {
	t.Helper()
	return in(t, s.conn.Config().Database, s.there(t, role, generation))
}

func TestATenantCanShareADatabaseOnAnotherServer(t *testing.T) {
	s := newTwoServers(t)
	tenant, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", Server: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	database := s.conn.Config().Database
	if r := tenant.Route; r.Server != "eu" || r.Database != database || r.Role != "tenant_acme" || r.Isolation != registry.IsolationRole || r.Status != registry.StatusActive {
		t.Errorf("got %+v", r)
	}
	superuser := connect(t, in(t, database, s.eu.DSN("postgres")))
	compareCatalog(t, superuser, "tenant_acme", all)
	if got := s.remains(t); !slices.Equal(got, []string{"tenant_acme"}) {
		t.Errorf("there is %q", got)
	}
	if got := lines(t, s.conn, `SELECT rolname::text FROM pg_roles WHERE rolname ~ '^tenant_' UNION ALL SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_'`); len(got) > 0 {
		t.Errorf("the registry's server has %q", got)
	}
	if _, err := s.CreateTenant(t.Context(), provision.TenantRequest{ID: "globex", Server: "eu"}); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, s.inShared(t, "tenant_acme", 1))
	execute(t, conn, "INSERT INTO docbasket VALUES ('1', 'mine', NULL, '{}', 'active', now(), now())")
	refused(t, conn, "42501", "SELECT FROM tenant_globex.docbasket")
	refused(t, conn, "42501", "SET ROLE docex_owner")
	refused(t, conn, "42501", "CREATE TABLE public.mine ()")

	// What is done to tenants is done to this one too.
	if findings, err := s.VerifyTenants(t.Context(), provision.VerifyRequest{Key: &s.key}); err != nil || len(findings) > 0 {
		t.Errorf("%v, %v", findings, err)
	}
	if r, err := s.RotateTenant(t.Context(), provision.RotateRequest{ID: "acme"}); err != nil || r.Generation != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	connect(t, s.inShared(t, "tenant_acme", 2))
	for _, transition := range []provision.Transition{provision.Suspend, provision.Resume, provision.Delete} {
		if _, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Transition: transition}); err != nil {
			t.Error(transition, err)
		}
	}
	if r, err := s.ArchiveTenant(t.Context(), provision.ArchiveRequest{ID: "acme", File: filepath.Join(t.TempDir(), "acme.dump")}); err != nil || r.Rows != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme"}); err != nil {
		t.Error(err)
	}
	if got := s.remains(t); !slices.Equal(got, []string{"tenant_globex"}) {
		t.Errorf("after the purge there is %q", got)
	}
	if got := lines(t, superuser, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_'"); !slices.Equal(got, []string{"tenant_globex"}) {
		t.Errorf("after the purge there are the schemas %q", got)
	}
}

func TestInASharedDatabaseEverythingIsThereOrNothing(t *testing.T) {
	s := newTwoServers(t)
	if _, err := s.Init(t.Context(), provision.InitRequest{Harden: provision.HardenLight}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateTenant(t.Context(), shared(t, "first")); err != nil {
		t.Fatal(err)
	}
	refused(t, connect(t, s.inShared(t, "tenant_first", 1)), "42501", "SELECT FROM pg_stat_activity") // hardened, as the registry's
	there := connect(t, in(t, s.conn.Config().Database, s.eu.DSN("postgres")))
	schemas := func() string {
		return strings.Join(lines(t, there, "SELECT nspname FROM pg_namespace ORDER BY 1"), " ")
	}
	before, remains, namespaces := s.snapshot(t), s.remains(t), schemas()
	boom := errors.New("boom")
	for _, name := range provision.ForeignStepNames(registry.IsolationRole) {
		s.AfterStep(func(done string) error {
			if done == name {
				return boom
			}
			return nil
		})
		if _, err := s.CreateTenant(t.Context(), shared(t, "acme")); !errors.Is(err, boom) {
			t.Errorf("%s: got %v", name, err)
		}
		equal(t, before, s.snapshot(t))
		equal(t, namespaces, schemas())
		if got := s.remains(t); !slices.Equal(got, remains) {
			t.Errorf("%s: there is %q", name, got)
		}
	}
	s.AfterStep(nil)
	execute(t, there, "CREATE SCHEMA tenant_acme; CREATE ROLE tenant_globex")
	for _, id := range []registry.TenantID{"acme", "globex"} {
		if _, err := s.CreateTenant(t.Context(), shared(t, id)); !isConflict(err) {
			t.Errorf("%s: %v", id, err)
		}
		if got := s.status(t, id); got != "" {
			t.Errorf("%s is registered", id)
		}
	}
	if got := lines(t, there, "SELECT nspname FROM pg_namespace WHERE nspname = 'tenant_acme'"); len(got) != 1 {
		t.Error("somebody's schema has been dropped")
	}
}

func TestTheNextRunFinishesInASharedDatabaseWhatAKilledOneHasBegun(t *testing.T) {
	s := newTwoServers(t)
	names := append(provision.ForeignStepNames(registry.IsolationRole), "open the database")
	for i, name := range names[slices.Index(names, "see to the shared database"):] { // before it nothing is made
		id := registry.TenantID(fmt.Sprintf("a%d", i))
		role := "tenant_" + string(id)
		s.kill(t, name, shared(t, id))
		s.shut(t, role)
		if _, err := s.CreateTenant(t.Context(), shared(t, id)); err != nil {
			t.Fatal(name, err)
		}
		if got := s.status(t, id); got != registry.StatusActive {
			t.Errorf("%s: the status is %q", name, got)
		}
		execute(t, connect(t, s.inShared(t, role, 1)), "SELECT FROM notes")
	}
	// Of a run for a database of its own, too.
	s.kill(t, "mark the database", inEurope("b"))
	if _, err := s.CreateTenant(t.Context(), shared(t, "b")); err != nil {
		t.Fatal(err)
	}
	if got := s.remains(t); slices.ContainsFunc(got, func(what string) bool { return strings.Contains(what, "provisioning") }) ||
		slices.Index(got, "tenant_b") != len(got)-1 {
		t.Errorf("there is %q", got)
	}
}

func TestSeveralAtOnceMakeOneSharedDatabase(t *testing.T) {
	s := newTwoServers(t)
	maker := s.maker(t)
	errs := make(chan error, 4)
	for i := range cap(errs) {
		request := shared(t, registry.TenantID(fmt.Sprintf("a%d", i)))
		go func() {
			_, err := s.reaching(s.key, maker).CreateTenant(context.WithoutCancel(t.Context()), request)
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i := range cap(errs) {
		execute(t, connect(t, s.inShared(t, fmt.Sprintf("tenant_a%d", i), 1)), "SELECT FROM notes")
	}
	if _, err := s.CreateTenant(t.Context(), shared(t, "later")); err != nil { // a superuser
		t.Error(err)
	}
	execute(t, connect(t, s.eu.DSN("postgres")), "REVOKE CONNECT ON DATABASE "+s.conn.Config().Database+" FROM maker")
	if _, err := s.reaching(s.key, maker).CreateTenant(t.Context(), shared(t, "again")); err != nil { // it lets itself in
		t.Error(err)
	}
}
