package provision_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func newHardenedSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	result, err := s.Init(t.Context(), provision.InitRequest{Harden: provision.HardenLight})
	if err != nil {
		t.Fatal(err)
	}
	if result.Hardening != provision.HardenLight || result.RightsTaken < 25 {
		t.Fatalf("got %+v", result)
	}
	return s
}

func TestHardeningHidesTheOthersFromATenant(t *testing.T) {
	s := newHardenedSite(t)
	s.create(t, "acme")
	conn := s.as(t, "tenant_acme")
	for _, view := range []string{
		"pg_stat_activity", "pg_db_role_setting", "pg_auth_members", "pg_largeobject_metadata", "pg_prepared_xacts",
		"pg_shdescription", "pg_stat_database", "pg_stat_ssl", "pg_stat_replication", "pg_stat_all_tables",
		"pg_stat_user_tables", "pg_stat_all_indexes", "pg_stat_user_indexes", "pg_statio_all_tables",
	} {
		refused(t, conn, "42501", "SELECT FROM "+view)
	}
	for _, call := range []string{
		"pg_stat_get_activity(NULL)", "pg_prepared_xact()", "pg_stat_get_backend_idset()", "pg_stat_get_live_tuples(1)",
		"pg_stat_get_tuples_inserted(1)", "pg_export_snapshot()", "pg_notify('c', '')", "pg_logical_emit_message(true, 'a', 'b')",
		"lo_creat(-1)", "lo_create(0)", "lo_from_bytea(0, '')",
	} {
		refused(t, conn, "42501", "SELECT "+call)
	}
}

// What psql, pg_dump, DocEX and the proxy ask is in the list because it is asked as the tenant.
func TestHardeningLeavesWhatATenantNeeds(t *testing.T) {
	s := newHardenedSite(t)
	s.create(t, "acme")
	conn := s.as(t, "tenant_acme")
	for _, sql := range []string{
		"INSERT INTO docbasket VALUES ('1', 'mine', NULL, '{}', 'active', now(), now())",
		"SELECT pg_advisory_lock(1)",
		"SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
		"SELECT FROM pg_settings, pg_listening_channels(), pg_cursors, pg_prepared_statements",
		"SELECT FROM information_schema.tables, information_schema.columns",
		"SELECT pg_get_indexdef(indexrelid) FROM pg_index",
		"LISTEN anything",
		"NOTIFY anything",
		"DISCARD ALL",
	} {
		execute(t, conn, sql)
	}
}

func TestHardeningCanRunAgainAndIsNotUndoneByAnInitWithoutIt(t *testing.T) {
	s := newHardenedSite(t)
	s.create(t, "acme")
	before := s.snapshot(t)
	for _, harden := range []provision.Hardening{provision.HardenLight, provision.HardenNone, ""} {
		result, err := s.Init(t.Context(), provision.InitRequest{Harden: harden})
		if err != nil {
			t.Fatal(err)
		}
		if result.Hardening != provision.HardenLight || result.RightsTaken != 0 {
			t.Errorf("%q: got %+v", harden, result)
		}
		equal(t, before, s.snapshot(t))
	}
}

func TestWithoutHardeningTheCatalogsStayAsTheyAre(t *testing.T) {
	s := newSite(t)
	result, err := s.Init(t.Context(), provision.InitRequest{})
	if err != nil || result.Hardening != provision.HardenNone || result.RightsTaken != 0 {
		t.Fatalf("got %+v, %v", result, err)
	}
	changed := lines(t, s.conn, `
SELECT oid::regclass::text FROM pg_class, aclexplode(relacl) AS a WHERE relnamespace = 'pg_catalog'::regnamespace AND a.grantee::regrole::text ~ '^docex'
UNION ALL
SELECT oid::regprocedure || ' to ' || a.grantee::regrole FROM pg_proc, aclexplode(proacl) AS a
 WHERE pronamespace = 'pg_catalog'::regnamespace AND a.grantee::regrole::text ~ '^docex'`)
	if want := []string{"pg_notify(text,text) to docex_owner"}; !slices.Equal(changed, want) {
		t.Errorf("granted %q, want %q", changed, want)
	}
	s.create(t, "acme")
	execute(t, s.as(t, "tenant_acme"), "SELECT FROM pg_stat_activity; SELECT pg_notify('c', '')")
}

func TestOnAHardenedDatabaseAProvisionerAndDocEXStillNotifyTheProxies(t *testing.T) {
	s := newHardenedSite(t)
	p := s.provisioner(t, "NOINHERIT")
	listener := s.as(t, provision.RegistryRole)
	execute(t, listener, "LISTEN docex_registry")
	if _, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateLogin(t.Context(), provision.LoginRequest{Name: "app", Tenants: []registry.TenantID{"acme"}}); err != nil {
		t.Fatal(err)
	}
	// As DocEX does, with a login that may write its own table and nothing else.
	execute(t, s.conn, `CREATE ROLE docex_app LOGIN PASSWORD 'secret'; GRANT CONNECT ON DATABASE `+s.conn.Config().Database+` TO docex_app;
	  GRANT USAGE ON SCHEMA docex_system TO docex_app; GRANT INSERT ON docex_system.tenant_registry TO docex_app`)
	app := connect(t, s.login(t, "docex_app", "secret"))
	refused(t, app, "42501", "SELECT pg_notify('docex_registry', 'x')")
	execute(t, app, `INSERT INTO docex_system.tenant_registry VALUES ('theirs', 'Theirs', false, 'schema', 'tenant_theirs', NULL, now(), 'docex', now(), NULL)`)
	execute(t, s.conn, `TRUNCATE docex_system.tenant_registry CASCADE`)
	var payloads []string
	for len(payloads) == 0 || payloads[len(payloads)-1] != "*" {
		notification, err := listener.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		payloads = append(payloads, notification.Payload)
	}
	for _, want := range []string{"acme", "login/app", "theirs"} {
		if !slices.Contains(payloads, want) {
			t.Errorf("%s is missing from %q", want, payloads)
		}
	}
}

func TestATenantsDatabaseIsHardenedWithTheRegistrysOrNotMade(t *testing.T) {
	s := newHardenedSite(t)
	execute(t, s.conn, "GRANT SELECT ON pg_stat_ssl TO PUBLIC") // somebody's exception, for this database
	s.createAt(t, "acme", registry.IsolationDatabase)
	conn := connect(t, in(t, "tenant_acme", s.login(t, "tenant_acme", s.key.Password("tenant_acme", 1))))
	refused(t, conn, "42501", "SELECT FROM pg_stat_activity")
	refused(t, conn, "42501", "SELECT FROM pg_stat_ssl")

	p := s.provisioner(t, "CREATEDB")
	before := s.snapshot(t)
	_, err := p.CreateTenant(t.Context(), provision.TenantRequest{ID: "globex", Isolation: registry.IsolationDatabase})
	if err == nil || !strings.Contains(err.Error(), "only a superuser can harden") {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestAHardeningThatDoesNotExistIsRefused(t *testing.T) {
	nowhere := provision.New(provision.Options{DSN: "postgres://postgres@127.0.0.1:1/none"})
	_, err := nowhere.Init(t.Context(), provision.InitRequest{Harden: "heavy"})
	if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestADryRunOfHardeningNamesEveryRightAndTakesNone(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	var shown strings.Builder
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Now: time.Now, DryRun: func(sql string) { shown.WriteString(sql + "\n") }})
	if _, err := dry.Init(t.Context(), provision.InitRequest{Harden: provision.HardenLight}); err != nil {
		t.Fatal(err)
	}
	equal(t, before, s.snapshot(t))
	for _, want := range []string{
		"REVOKE SELECT ON pg_catalog.pg_stat_activity FROM PUBLIC;",
		"REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text,text) FROM PUBLIC;",
	} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("%s is missing from\n%s", want, shown.String())
		}
	}
}
