package provision_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestInitWritesTheSystemTenantAsDocEXDoes(t *testing.T) {
	s := newSite(t)
	result, err := s.Init(t.Context(), provision.InitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Created || !slices.Equal(result.RolesCreated, []string{"docex_owner", "docex_pool", "docex_registry"}) {
		t.Errorf("got %+v", result)
	}
	row := lines(t, s.conn, `SELECT concat_ws('|', tenant_id, display_name, is_system, isolation_strategy, schema_name,
	  coalesce(database_path, 'NULL'), created_by, coalesce(last_updated_by, 'NULL'), created_at = last_updated_at,
	  abs(extract(epoch FROM created_at - now() AT TIME ZONE 'UTC')) < 60) FROM docex_system.tenant_registry`)
	want := "_docex_system_|DocEX System|t|schema|docex_system|NULL|system|NULL|t|t"
	if len(row) != 1 || row[0] != want {
		t.Errorf("rows %q, want %q", row, want)
	}
	if routes := lines(t, s.conn, `SELECT tenant_id::text FROM docex_system.tenant_route`); len(routes) > 0 {
		t.Errorf("the system tenant has a route: %q", routes)
	}
}

func TestInitGivesTheSystemSchemaTheBusinessTablesToo(t *testing.T) {
	s := newInitialisedSite(t)
	compareCatalog(t, s.conn, "docex_system", func(table string) bool {
		return !strings.HasPrefix(table, "tenant_") && !strings.HasPrefix(table, "proxy_")
	})
}

func TestInitCanRunTwiceAndChangesNothingThen(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	before := s.snapshot(t)
	result, err := s.Init(t.Context(), provision.InitRequest{Actor: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	if result.Created || len(result.RolesCreated) > 0 || len(result.RolesRekeyed) > 0 {
		t.Errorf("got %+v", result)
	}
	equal(t, before, s.snapshot(t))
}

func TestInitCompletesWhatDocEXHasBegun(t *testing.T) {
	s := newSite(t)
	// As DocEX's ORM creates the table: without defaults.
	execute(t, s.conn, `CREATE SCHEMA docex_system;
	  CREATE TABLE docex_system.tenant_registry (tenant_id varchar(255) PRIMARY KEY, display_name varchar(255) NOT NULL,
	    is_system boolean NOT NULL, isolation_strategy varchar(50) NOT NULL, schema_name varchar(255), database_path varchar(500),
	    created_at timestamp NOT NULL, created_by varchar(255) NOT NULL, last_updated_at timestamp NOT NULL, last_updated_by varchar(255));
	  INSERT INTO docex_system.tenant_registry VALUES ('_docex_system_', 'DocEX System', true, 'schema', 'docex_system', NULL,
	    '2026-01-02 03:04:05', 'docex', '2026-01-02 03:04:05', NULL);
	  CREATE TABLE docex_system.docbasket (id varchar(36) PRIMARY KEY, name varchar(255) NOT NULL CONSTRAINT uq_docbasket_name UNIQUE,
	    description text, storage_config json NOT NULL, status varchar(50) NOT NULL, created_at timestamp NOT NULL, updated_at timestamp NOT NULL)`)
	result, err := s.Init(t.Context(), provision.InitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if result.Created {
		t.Error("Init claims to have created the system tenant")
	}
	if by := lines(t, s.conn, `SELECT created_by::text FROM docex_system.tenant_registry`); !slices.Equal(by, []string{"docex"}) {
		t.Errorf("created_by %q", by)
	}
	compareCatalog(t, s.conn, "docex_system", func(table string) bool {
		return !strings.HasPrefix(table, "tenant_") && !strings.HasPrefix(table, "proxy_")
	})
	s.create(t, "acme")
}

func TestInitRefusesAnotherKeyAndLeavesThePasswordsAlone(t *testing.T) {
	s := newInitialisedSite(t)
	before := s.snapshot(t)
	_, err := s.with(secret.New()).Init(t.Context(), provision.InitRequest{})
	if mismatch, ok := errors.AsType[*provision.KeyMismatchError](err); !ok || mismatch.Role != provision.PoolRole {
		t.Errorf("got %v", err)
	}
	_, err = s.Init(t.Context(), provision.InitRequest{NewKey: true})
	if _, ok := errors.AsType[*provision.KeyMismatchError](err); !ok {
		t.Errorf("a key just drawn cannot match: %v", err)
	}
	equal(t, before, s.snapshot(t))
}

func TestRekeyMovesTheRolesOfTenantsToTheNewKeyToo(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	old := s.key
	s.key = secret.New()
	result, err := s.with(s.key).Init(t.Context(), provision.InitRequest{Rekey: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"docex_pool", "docex_registry", "tenant_acme"}; !slices.Equal(result.RolesRekeyed, want) {
		t.Errorf("rekeyed %q, want %q", result.RolesRekeyed, want)
	}
	s.as(t, "tenant_acme")
	s.as(t, provision.RegistryRole)
	if conn, err := pgx.Connect(t.Context(), s.login(t, "tenant_acme", old.Password("tenant_acme", 1))); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the old key still lets in")
	}
}

func TestInitRefusesARoleOfThatNameWithMorePower(t *testing.T) {
	for _, attributes := range []string{"LOGIN SUPERUSER", "LOGIN CREATEROLE", "LOGIN BYPASSRLS", "NOLOGIN"} {
		t.Run(attributes, func(t *testing.T) {
			s := newSite(t)
			execute(t, s.conn, "CREATE ROLE docex_pool "+attributes)
			before := s.snapshot(t)
			_, err := s.Init(t.Context(), provision.InitRequest{})
			if conflict, ok := errors.AsType[*provision.ConflictError](err); !ok || conflict.Name != "docex_pool" {
				t.Errorf("got %v", err)
			}
			equal(t, before, s.snapshot(t))
		})
	}
}

func TestTheRegistryRoleReadsTheRegistryAndNothingElse(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	dsn := s.login(t, provision.RegistryRole, s.key.Password(provision.RegistryRole, 1))
	store, err := registry.OpenStore(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if tenant, err := store.Tenant(t.Context(), "acme"); err != nil || tenant.Route == nil {
		t.Errorf("got %+v, %v", tenant, err)
	}
	if _, err := store.Logins(t.Context()); err != nil {
		t.Error(err)
	}
	conn := connect(t, dsn)
	execute(t, conn, "LISTEN docex_registry")
	for _, sql := range []string{
		"SELECT FROM docex_system.tenant_event",
		"SELECT FROM docex_system.document",
		"SELECT FROM tenant_acme.document",
		"UPDATE docex_system.tenant_route SET status = 'active'",
		"DELETE FROM docex_system.proxy_login",
		"CREATE SCHEMA mine",
		"CREATE TABLE public.mine ()",
		"CREATE TEMPORARY TABLE mine ()",
		"SET ROLE docex_owner",
	} {
		refused(t, conn, "42501", sql)
	}
}

func TestThePoolRoleCannotEvenConnect(t *testing.T) {
	s := newInitialisedSite(t)
	conn, err := pgx.Connect(t.Context(), s.login(t, provision.PoolRole, s.key.Password(provision.PoolRole, 1)))
	if err == nil {
		_ = conn.Close(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("got %v", err)
	}
}

func TestInitNamesTheProxysRegistryConnection(t *testing.T) {
	s := newSite(t)
	result, err := s.Init(t.Context(), provision.InitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(s.dsn, "postgres://postgres@", "postgres://docex_registry@", 1)
	if result.RegistryDSN != want {
		t.Errorf("got %s, want %s", result.RegistryDSN, want)
	}
}

func TestADryRunShowsTheStatementsWithoutVerifiersAndChangesNothing(t *testing.T) {
	s := newSite(t)
	before := s.snapshot(t)
	var shown []string
	dry := func() *provision.Provisioner {
		return provision.New(provision.Options{DSN: s.dsn, Key: s.key, DryRun: func(sql string) { shown = append(shown, sql) }})
	}
	if _, err := dry().Init(t.Context(), provision.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	equal(t, before, s.snapshot(t))
	if _, err := s.Init(t.Context(), provision.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	before = s.snapshot(t)
	if _, err := dry().CreateTenant(t.Context(), provision.TenantRequest{ID: "acme", DisplayName: "O'Brien"}); err != nil {
		t.Fatal(err)
	}
	equal(t, before, s.snapshot(t))
	all := strings.Join(shown, "\n")
	for _, want := range []string{
		`CREATE ROLE "docex_registry"`, `CREATE TABLE IF NOT EXISTS docex_system.tenant_route`, `PASSWORD 'SCRAM-SHA-256$[redacted]'`,
		`CREATE SCHEMA "tenant_acme" AUTHORIZATION docex_owner`, `'O''Brien'`, `SET search_path = "tenant_acme", ext, public`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is missing from\n%s", want, all)
		}
	}
	if strings.Contains(all, "SCRAM-SHA-256$4096") {
		t.Error("a verifier was shown")
	}
}

func equal(tb testing.TB, before, after string) {
	tb.Helper()
	if before == after {
		return
	}
	had := strings.Split(before, "\n")
	for line := range strings.SplitSeq(after, "\n") {
		if !slices.Contains(had, line) {
			tb.Errorf("new: %s", line)
		}
	}
	has := strings.Split(after, "\n")
	for _, line := range had {
		if !slices.Contains(has, line) {
			tb.Errorf("gone: %s", line)
		}
	}
}
