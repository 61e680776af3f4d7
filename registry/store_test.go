package registry_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/registry"
)

// asInserted is the tenant with what the database itself sets taken over from what was read.
func asInserted(inserted, read *registry.Tenant) *registry.Tenant {
	want := *inserted
	if inserted.Route != nil && read.Route != nil {
		route := *inserted.Route
		route.Version, route.UpdatedAt = 1, read.Route.UpdatedAt
		want.Route = &route
	}
	return &want
}

func TestStoreReadsATenantAsItWasInserted(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	full := tenantNamed("acme")
	full.DatabasePath, full.LastUpdatedBy = "storage/tenant_acme/docex.db", "admin"
	full.LastUpdatedAt = full.CreatedAt.Add(time.Hour)
	full.Route.Limits = registry.Limits{MaxServerConnections: 4, MaxClients: 100}
	full.Route.Status, full.Route.Isolation = registry.StatusMoving, registry.IsolationDatabase
	full.Route.SecretGeneration, full.Route.SchemaVersion = 3, 7
	sqlite := &registry.Tenant{
		ID: "sqlite", DisplayName: "SQLite", IsolationStrategy: "database", DatabasePath: "storage/sqlite.db",
		CreatedAt: full.CreatedAt, CreatedBy: "x", LastUpdatedAt: full.CreatedAt,
	}
	system := &registry.Tenant{
		ID: registry.SystemTenantID, DisplayName: "DocEX System", IsSystem: true, IsolationStrategy: "schema",
		SchemaName: "docex_system", CreatedAt: full.CreatedAt, CreatedBy: "system", LastUpdatedAt: full.CreatedAt,
	}
	odd := tenantNamed(registry.TenantID(`Acme-"Corp'.é; ` + strings.Repeat("長", 200)))
	odd.SchemaName = "tenant_acme-corp"
	for _, tenant := range []*registry.Tenant{full, sqlite, system, odd} {
		insertTenant(t, conn, tenant)
		read, err := store.Tenant(t.Context(), tenant.ID)
		if err != nil {
			t.Fatal(err)
		}
		if want := asInserted(tenant, read); !reflect.DeepEqual(read, want) {
			t.Errorf("read %+v (route %+v), want %+v (route %+v)", read, read.Route, want, want.Route)
		}
	}
	exec(t, conn, `INSERT INTO docex_system.tenant_registry (tenant_id, display_name, created_by) VALUES ('', '', '')`)
	if empty, err := store.Tenant(t.Context(), ""); err != nil || empty.SchemaName != "" || empty.Route != nil {
		t.Errorf("the tenant with the empty id: %+v, %v", empty, err)
	}
}

func TestStoreReadsTheStatusesOfManyTenantsAtOnce(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	suspended := tenantNamed("acme")
	suspended.Route.Status = registry.StatusSuspended
	bare := tenantNamed("bare")
	bare.Route = nil
	for _, tenant := range []*registry.Tenant{suspended, tenantNamed("globex"), bare, tenantNamed("unasked")} {
		insertTenant(t, conn, tenant)
	}
	got, err := store.Statuses(t.Context(), []string{"acme", "globex", "bare", "gone", "a\x00b", "\xff"})
	want := map[string]registry.Status{"acme": registry.StatusSuspended, "globex": registry.StatusActive, "bare": ""}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStoreWritesNULLForWhatIsEmpty(t *testing.T) {
	_, conn := migrated(t)
	tenant := tenantNamed("acme")
	tenant.SchemaName, tenant.DatabasePath, tenant.LastUpdatedBy = "", "", ""
	insertTenant(t, conn, tenant)
	var nulls int
	err := conn.QueryRow(t.Context(),
		`SELECT num_nulls(schema_name, database_path, last_updated_by) FROM docex_system.tenant_registry`).Scan(&nulls)
	if err != nil || nulls != 3 {
		t.Errorf("%d columns are NULL, want 3 (%v)", nulls, err)
	}
}

func TestStoreKeepsTimestampsInUTCWhateverTheTimeZoneOfTheSession(t *testing.T) {
	dsn, conn := migrated(t)
	exec(t, conn, `SET timezone = 'America/New_York'`)
	tenant := tenantNamed("acme")
	want := tenant.CreatedAt
	tenant.CreatedAt = want.In(time.FixedZone("somewhere", 5*3600))
	insertTenant(t, conn, tenant)
	read, err := openStore(t, dsn).Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if !read.CreatedAt.Equal(want) || read.CreatedAt.Location() != time.UTC || read.Route.UpdatedAt.Location() != time.UTC {
		t.Errorf("created %v, want %v; route updated %v", read.CreatedAt, want, read.Route.UpdatedAt)
	}
}

func TestStoreFindsATenantByItsExactSchema(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	insertTenant(t, conn, tenantNamed("acme"))
	insertTenant(t, conn, tenantNamed("ACME"))
	for schema, want := range map[string]registry.TenantID{"tenant_acme": "acme", "tenant_ACME": "ACME"} {
		if read, err := store.TenantBySchema(t.Context(), schema); err != nil || read.ID != want {
			t.Errorf("schema %s belongs to %v, %v", schema, read, err)
		}
	}
	for _, schema := range []string{"tenant_Acme", "tenant_acm%", "tenant_acme ", "", "tenant_acme\x00", "\xff"} {
		if read, err := store.TenantBySchema(t.Context(), schema); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("schema %q belongs to %v, %v", schema, read, err)
		}
	}
}

func TestOfTenantsWithOneSchemaTheStorePrefersTheSystemTenantThenOneThatIsNotDeleted(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	deleted, current := tenantNamed("former"), tenantNamed("current")
	deleted.Route.Status = registry.StatusDeleted
	deleted.SchemaName, current.SchemaName = "shared", "shared"
	current.CreatedAt = deleted.CreatedAt.Add(time.Hour)
	insertTenant(t, conn, deleted)
	if read, err := store.TenantBySchema(t.Context(), "shared"); err != nil || read.ID != "former" {
		t.Errorf("alone, the deleted tenant is not found: %v, %v", read, err)
	}
	insertTenant(t, conn, current)
	if read, err := store.TenantBySchema(t.Context(), "shared"); err != nil || read.ID != "current" {
		t.Errorf("got %v, %v", read, err)
	}
	system := tenantNamed(registry.SystemTenantID)
	system.SchemaName, system.IsSystem, system.Route = "shared", true, nil
	system.CreatedAt = current.CreatedAt.Add(time.Hour)
	insertTenant(t, conn, system)
	if read, err := store.TenantBySchema(t.Context(), "shared"); err != nil || !read.IsSystem {
		t.Errorf("got %v, %v", read, err)
	}
}

func TestStoreListsTenantsByAge(t *testing.T) {
	dsn, conn := migrated(t)
	for i, id := range []registry.TenantID{"c", "a", "b"} {
		tenant := tenantNamed(id)
		tenant.CreatedAt = tenant.CreatedAt.Add(time.Duration(i) * time.Minute)
		insertTenant(t, conn, tenant)
	}
	tenants, err := openStore(t, dsn).Tenants(t.Context())
	if err != nil || len(tenants) != 3 {
		t.Fatalf("%v, %v", tenants, err)
	}
	if tenants[0].ID != "c" || tenants[1].ID != "a" || tenants[2].ID != "b" {
		t.Errorf("order is %s %s %s", tenants[0].ID, tenants[1].ID, tenants[2].ID)
	}
}

func TestStoreReadsLoginsAsTheyWereInserted(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	insertTenant(t, conn, tenantNamed("acme"))
	insertTenant(t, conn, tenantNamed("globex"))
	logins := []*registry.Login{
		{Name: "app", Verifier: "v1", AllTenants: true, Tenants: []registry.TenantID{}},
		{
			Name: "Zoë/x", Verifier: "v2", ValidUntil: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
			Tenants: []registry.TenantID{"acme", "globex"},
		},
	}
	inTx(t, conn, func(tx pgx.Tx) error {
		return errors.Join(registry.InsertLogin(t.Context(), tx, logins[0]), registry.InsertLogin(t.Context(), tx, logins[1]))
	})
	for _, want := range logins {
		if read, err := store.Login(t.Context(), want.Name); err != nil || !reflect.DeepEqual(read, want) {
			t.Errorf("read %+v, %v, want %+v", read, err, want)
		}
	}
	if all, err := store.Logins(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("Logins: %v, %v", all, err)
	}
	if _, err := store.Login(t.Context(), "zoë/x"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("another case: %v", err)
	}
	exec(t, conn, `UPDATE docex_system.proxy_login SET valid_until = 'infinity'`)
	if read, err := store.Login(t.Context(), "app"); err != nil || !read.ValidUntil.IsZero() {
		t.Errorf("a login that is valid for ever: %+v, %v", read, err)
	}
	exec(t, conn, `DELETE FROM docex_system.tenant_registry WHERE tenant_id = 'acme'`)
	if read, err := store.Login(t.Context(), "Zoë/x"); err != nil || read.Permits("acme") || !read.Permits("globex") {
		t.Errorf("after the tenant's end: %+v, %v", read, err)
	}
}

func TestInsertTenantReportsADuplicateAsAUniqueViolation(t *testing.T) {
	_, conn := migrated(t)
	insertTenant(t, conn, tenantNamed("acme"))
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		return registry.InsertTenant(t.Context(), tx, tenantNamed("acme"))
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "23505" {
		t.Errorf("got %v", err)
	}
}

func TestEventsStayWhenTheirTenantIsGone(t *testing.T) {
	_, conn := migrated(t)
	insertTenant(t, conn, tenantNamed("acme"))
	inTx(t, conn, func(tx pgx.Tx) error {
		return errors.Join(
			registry.InsertEvent(t.Context(), tx, "acme", "create", "admin", map[string]any{"server": "main"}),
			registry.InsertEvent(t.Context(), tx, "acme", "suspend", "admin", nil),
		)
	})
	exec(t, conn, `DELETE FROM docex_system.tenant_registry`)
	var trail string
	err := conn.QueryRow(t.Context(),
		`SELECT string_agg(concat_ws(' ', tenant_id, verb, actor, detail), '; ' ORDER BY id) FROM docex_system.tenant_event`).Scan(&trail)
	if want := `acme create admin {"server": "main"}; acme suspend admin {}`; err != nil || trail != want {
		t.Errorf("got %q, %v, want %q", trail, err, want)
	}
}

func TestStoreSaysHowToCreateARegistryThatIsMissing(t *testing.T) {
	dsn := pgtest.Database(t)
	store := openStore(t, dsn)
	expect := func(when string) {
		t.Helper()
		_, err := store.Tenant(t.Context(), "acme")
		if _, ok := errors.AsType[*registry.UnavailableError](err); !ok || !strings.Contains(err.Error(), "docexctl init") {
			t.Errorf("%s: %v", when, err)
		}
	}
	expect("empty database")
	conn := connect(t, dsn)
	migrate(t, conn)
	exec(t, conn, `DROP TABLE docex_system.tenant_route`)
	expect("a registry that only DocEX has used")
}

func TestStoreOpensWhileTheServerIsDownAndReportsItUnavailable(t *testing.T) {
	store := openStore(t, "postgres://nobody:sesame@127.0.0.1:1/docex?sslmode=disable")
	_, err := store.Tenant(t.Context(), "acme")
	if _, ok := errors.AsType[*registry.UnavailableError](err); !ok {
		t.Errorf("got %v", err)
	}
	if _, err = store.Logins(t.Context()); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("got %v", err)
	}
	if _, err := registry.OpenStore(t.Context(), "postgres://x:sesame@h:port/"); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a malformed DSN: %v", err)
	}
}

func TestStoreConnectionsAreNamedAndBounded(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	lock, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	exec(t, conn, `LOCK TABLE docex_system.proxy_login IN ACCESS EXCLUSIVE MODE`)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error)
	const readers = 12
	for range readers {
		go func() {
			_, err := store.Logins(ctx)
			results <- err
		}()
	}
	watcher := connect(t, dsn)
	blocked := func() (n int) {
		err := watcher.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'docex-proxy' AND wait_event_type = 'Lock'`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for deadline := time.Now().Add(patience); blocked() < 4; {
		if time.Now().After(deadline) {
			t.Fatal("the store's connections are not seen")
		}
	}
	var named int
	err = watcher.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'docex-proxy'`).Scan(&named)
	if err != nil || named != 4 {
		t.Errorf("%d connections, %v, want 4", named, err)
	}
	cancel()
	for range readers {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("a read that was given up returned %v", err)
		}
	}
}
