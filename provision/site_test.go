package provision_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// site is a database of a test's own with a Provisioner for it. The cluster's roles are dropped at its end, so tests
// do not run in parallel.
type site struct {
	*provision.Provisioner
	dsn  string
	key  secret.Key
	conn *pgx.Conn // the superuser's
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	maintenance := pgtest.Cluster(tb).DSN("postgres")
	tb.Cleanup(func() { dropEverything(tb, maintenance) }) // registered first, runs last: the test's database is gone then
	s := &site{dsn: pgtest.Database(tb), key: secret.New()}
	s.Provisioner = s.with(s.key)
	s.conn = connect(tb, s.dsn)
	return s
}

// newInitialisedSite is a site where Init has run.
func newInitialisedSite(tb testing.TB) *site {
	tb.Helper()
	s := newSite(tb)
	if _, err := s.Init(tb.Context(), provision.InitRequest{}); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (s *site) with(key secret.Key) *provision.Provisioner {
	return provision.New(provision.Options{DSN: s.dsn, Key: key})
}

func (s *site) create(tb testing.TB, id registry.TenantID) *registry.Tenant {
	tb.Helper()
	return s.createAt(tb, id, registry.IsolationRole)
}

func (s *site) createAt(tb testing.TB, id registry.TenantID, level registry.Isolation) *registry.Tenant {
	tb.Helper()
	tenant, err := s.CreateTenant(tb.Context(), provision.TenantRequest{ID: id, Isolation: level})
	if err != nil {
		tb.Fatal(err)
	}
	return tenant
}

// store reads the registry as the proxy does.
func (s *site) store(tb testing.TB) *registry.Store {
	tb.Helper()
	store, err := registry.OpenStore(tb.Context(), s.dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(store.Close)
	return store
}

// login returns the DSN with which a role reaches the site's database by password.
func (s *site) login(tb testing.TB, role, password string) string {
	tb.Helper()
	dsn, err := url.Parse(s.dsn)
	if err != nil {
		tb.Fatal(err)
	}
	dsn.User = url.UserPassword(role, password)
	return dsn.String()
}

// in returns a DSN with another database.
func in(tb testing.TB, database, dsn string) string {
	tb.Helper()
	parsed, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	parsed.Path = "/" + database
	return parsed.String()
}

// provisioner is a role that is no superuser and may do what the documentation says it needs.
func (s *site) provisioner(tb testing.TB, attributes string) *provision.Provisioner {
	tb.Helper()
	execute(tb, s.conn, "CREATE ROLE provisioner LOGIN CREATEROLE "+attributes+" PASSWORD 'secret'; GRANT docex_owner TO provisioner WITH ADMIN OPTION")
	execute(tb, s.conn, "GRANT CONNECT ON DATABASE "+s.conn.Config().Database+" TO provisioner")
	return provision.New(provision.Options{DSN: s.login(tb, "provisioner", "secret"), Key: s.key})
}

// as connects as a role with the password that is derived from the site's key.
func (s *site) as(tb testing.TB, role string) *pgx.Conn {
	tb.Helper()
	return connect(tb, s.login(tb, role, s.key.Password(role, 1)))
}

func connect(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(tb testing.TB, conn *pgx.Conn, sql string) {
	tb.Helper()
	if _, err := conn.Exec(tb.Context(), sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// lines runs a query of one text column.
func lines(tb testing.TB, conn *pgx.Conn, sql string, args ...any) []string {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), sql, args...)
	if err != nil {
		tb.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return found
}

// refused demands that the statement fails with the SQLSTATE.
func refused(tb testing.TB, conn *pgx.Conn, code, sql string) {
	tb.Helper()
	_, err := conn.Exec(tb.Context(), sql)
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != code {
		tb.Errorf("%s: want SQLSTATE %s, got %v", sql, code, err)
	}
}

// snapshot is everything that provisioning could leave behind.
func (s *site) snapshot(tb testing.TB) string {
	tb.Helper()
	queries := []string{
		`SELECT rolname || ' ' || coalesce(rolpassword, '-') || ' ' || rolcanlogin FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1`,
		`SELECT roleid::regrole || ' to ' || member::regrole FROM pg_auth_members ORDER BY 1`,
		`SELECT setdatabase || ' ' || setrole || ' ' || setconfig::text FROM pg_db_role_setting ORDER BY 1`,
		`SELECT nspname || ' ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '-') FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1`,
		`SELECT relnamespace::regnamespace || '.' || relname || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '-') FROM pg_class
		  WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY 1`,
		`SELECT datname || ' ' || datdba::regrole || ' ' || datconnlimit || ' ' || coalesce(datacl::text, '-') FROM pg_database ORDER BY 1`,
		`SELECT classoid::regclass || ' ' || objoid || ' ' || description FROM pg_shdescription ORDER BY 1`,
		`SELECT oid::regclass || ' ' || coalesce(relacl::text, '-') FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace ORDER BY 1`,
		`SELECT oid::regprocedure || ' ' || proowner::regrole || ' ' || prosecdef || ' ' || coalesce(proacl::text, '-') FROM pg_proc
		  WHERE pronamespace = 'pg_catalog'::regnamespace AND proacl IS NOT NULL OR pronamespace::regnamespace::text = 'docex_system' ORDER BY 1`,
	}
	if len(lines(tb, s.conn, `SELECT 'x' WHERE to_regclass('docex_system.tenant_event') IS NOT NULL`)) > 0 {
		for _, table := range []string{"tenant_registry", "tenant_route", "proxy_login", "proxy_login_tenant", "tenant_event"} {
			queries = append(queries, `SELECT t::text FROM docex_system.`+table+` AS t ORDER BY 1`)
		}
	}
	var all []string
	for _, query := range queries {
		all = append(all, lines(tb, s.conn, query)...)
	}
	return strings.Join(all, "\n")
}

// dropEverything drops the tenants' own databases and all roles but the cluster's own. Locks and sessions of the test
// are gone by then.
func dropEverything(tb testing.TB, maintenance string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, maintenance)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `
SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE NOT datistemplate AND datname <> current_database()
UNION ALL SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname <> current_user AND rolname !~ '^pg_' ORDER BY 1`)
	if err != nil {
		tb.Fatal(err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatal(err)
	}
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			tb.Fatal(sql, err)
		}
	}
}
