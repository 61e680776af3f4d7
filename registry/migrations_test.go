package registry_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/registry"
)

// ownDDL is the table as DocEX creates it when it comes first (docex/db/connection.py).
const ownDDL = `
CREATE SCHEMA docex_system;
CREATE TABLE docex_system.tenant_registry (
    tenant_id VARCHAR(255) PRIMARY KEY, display_name VARCHAR(255) NOT NULL, is_system BOOLEAN NOT NULL DEFAULT FALSE,
    isolation_strategy VARCHAR(50) NOT NULL DEFAULT 'schema', schema_name VARCHAR(255), database_path VARCHAR(500),
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, created_by VARCHAR(255) NOT NULL,
    last_updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, last_updated_by VARCHAR(255));
INSERT INTO docex_system.tenant_registry VALUES
    ('_docex_system_', 'DocEX System', true, 'schema', 'docex_system', NULL, now(), 'system', now(), NULL)`

// ownUpsert is what DocEX's _register_tenant sends.
const ownUpsert = `
INSERT INTO tenant_registry (tenant_id, display_name, is_system, isolation_strategy, schema_name, database_path,
       created_at, created_by, last_updated_at, last_updated_by)
VALUES ('acme', 'Acme', false, 'schema', 'tenant_acme', NULL, '2026-01-01T00:00:00+00:00'::timestamptz, 'cli_user',
       '2026-01-01T00:00:00+00:00'::timestamptz, NULL)
ON CONFLICT (tenant_id) DO UPDATE SET display_name = EXCLUDED.display_name,
       isolation_strategy = EXCLUDED.isolation_strategy, schema_name = EXCLUDED.schema_name,
       database_path = EXCLUDED.database_path, last_updated_at = EXCLUDED.last_updated_at,
       last_updated_by = EXCLUDED.last_updated_by
RETURNING tenant_id, display_name, is_system, isolation_strategy, schema_name, database_path, created_at`

const describeRegistry = `
SELECT concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
  FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = 'docex_system.tenant_registry'::regclass AND a.attnum > 0
UNION ALL SELECT concat_ws(' ', conname, pg_get_constraintdef(oid)) FROM pg_constraint
 WHERE conrelid = 'docex_system.tenant_registry'::regclass
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'docex_system' AND tablename = 'tenant_registry'
 ORDER BY 1`

func texts(tb testing.TB, conn *pgx.Conn, query string) []string {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), query)
	if err != nil {
		tb.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

// notifications collects the payloads that the connection has been sent, up to a marker of its own.
func notifications(tb testing.TB, conn *pgx.Conn) (payloads []string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	exec(tb, conn, `SELECT pg_notify('docex_registry', 'marker')`)
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			tb.Fatal(err)
		}
		if n.Payload == "marker" {
			return payloads
		}
		payloads = append(payloads, n.Payload)
	}
}

func TestTheRegistryTableIsExactlyDocEXsOwn(t *testing.T) {
	_, ours := migrated(t)
	theirs := connect(t, pgtest.Database(t))
	exec(t, theirs, ownDDL)
	want := texts(t, theirs, describeRegistry)
	if got := texts(t, ours, describeRegistry); !slices.Equal(got, want) || len(want) != 12 {
		t.Errorf("ours:\n%q\ntheirs:\n%q", got, want)
	}
}

func TestMigrationsRunAgainAndOverATableThatDocEXHasMade(t *testing.T) {
	dsn := pgtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, ownDDL)
	migrate(t, conn)
	insertTenant(t, conn, tenantNamed("acme"))
	migrate(t, conn)
	tenants, err := openStore(t, dsn).Tenants(t.Context())
	if err != nil || len(tenants) != 2 {
		t.Errorf("%d tenants survive, want 2 (%v)", len(tenants), err)
	}
	exec(t, conn, `LISTEN docex_registry`)
	exec(t, conn, `UPDATE docex_system.tenant_registry SET display_name = 'Acme Corp' WHERE tenant_id = 'acme'`)
	if got := notifications(t, conn); !slices.Equal(got, []string{"acme"}) {
		t.Errorf("notified %q", got)
	}
}

func TestDocEXsOwnUpsertWorksAndNotifies(t *testing.T) {
	dsn, conn := migrated(t)
	exec(t, conn, `LISTEN docex_registry`)
	exec(t, conn, `SET search_path TO docex_system`)
	exec(t, conn, `SET timezone = 'UTC'`)
	for _, when := range []string{"insert", "update"} {
		exec(t, conn, ownUpsert)
		if got := notifications(t, conn); !slices.Equal(got, []string{"acme"}) {
			t.Errorf("%s notified %q", when, got)
		}
	}
	read, err := openStore(t, dsn).TenantBySchema(t.Context(), "tenant_acme")
	if err != nil || read.Route != nil || !read.CreatedAt.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("read %+v, %v", read, err)
	}
}

func TestEveryChangeNotifiesTheTenantOrLoginThatItConcerns(t *testing.T) {
	_, conn := migrated(t)
	exec(t, conn, `LISTEN docex_registry`)
	for _, step := range []struct {
		sql  string
		want []string
	}{
		{`INSERT INTO docex_system.tenant_registry (tenant_id, display_name, created_by) VALUES ('acme', 'a', 'x'), ('globex', 'g', 'x')`, []string{"acme", "globex"}},
		{`INSERT INTO docex_system.tenant_route (tenant_id, database_name, role_name) VALUES ('acme', 'd', 'r')`, []string{"acme"}},
		{`UPDATE docex_system.tenant_route SET status = 'suspended'`, []string{"acme"}},
		{`INSERT INTO docex_system.proxy_login (login, verifier) VALUES ('app', 'v')`, []string{"login/app"}},
		{`INSERT INTO docex_system.proxy_login_tenant VALUES ('app', 'acme')`, []string{"login/app"}},
		{`UPDATE docex_system.proxy_login SET verifier = 'w'`, []string{"login/app"}},
		{`UPDATE docex_system.proxy_login_tenant SET tenant_id = 'globex'`, []string{"login/app"}},
		{`UPDATE docex_system.tenant_registry SET tenant_id = 'initech' WHERE tenant_id = 'acme' AND false`, nil},
		{`DELETE FROM docex_system.tenant_route`, []string{"acme"}},
		{`UPDATE docex_system.tenant_registry SET tenant_id = 'initech' WHERE tenant_id = 'acme'`, []string{"acme", "initech"}},
		{`DELETE FROM docex_system.tenant_registry WHERE tenant_id = 'globex'`, []string{"globex", "login/app"}},
		{`TRUNCATE docex_system.proxy_login_tenant`, []string{"*"}},
		{`TRUNCATE docex_system.tenant_route`, []string{"*"}},
		{`TRUNCATE docex_system.proxy_login CASCADE`, []string{"*"}},
		{`TRUNCATE docex_system.tenant_registry CASCADE`, []string{"*"}},
	} {
		exec(t, conn, step.sql)
		got := notifications(t, conn)
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("%s notified %q, want %q", step.sql, got, step.want)
		}
	}
}

func TestTheTriggersTrustNoFunctionOfTheSearchPath(t *testing.T) {
	_, conn := migrated(t)
	exec(t, conn, `CREATE SCHEMA evil`)
	exec(t, conn, `CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$evil$$; END'`)
	exec(t, conn, `SET search_path TO evil, pg_catalog`)
	insertTenant(t, conn, tenantNamed("acme"))
}

func TestEveryUpdateOfARouteRaisesItsVersion(t *testing.T) {
	dsn, conn := migrated(t)
	store := openStore(t, dsn)
	insertTenant(t, conn, tenantNamed("acme"))
	before, err := store.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `UPDATE docex_system.tenant_route SET status = 'suspended', version = 1, updated_at = 'epoch'`)
	after, err := store.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if before.Route.Version != 1 || after.Route.Version != 2 || !after.Route.UpdatedAt.After(before.Route.UpdatedAt) {
		t.Errorf("version %d at %v, then %d at %v", before.Route.Version, before.Route.UpdatedAt, after.Route.Version, after.Route.UpdatedAt)
	}
}

func TestTheTablesRefuseWhatNoReaderCouldUnderstand(t *testing.T) {
	_, conn := migrated(t)
	insertTenant(t, conn, tenantNamed("acme"))
	insertTenant(t, conn, &registry.Tenant{ID: "globex", IsolationStrategy: "schema"})
	for sql, code := range map[string]string{
		`UPDATE docex_system.tenant_route SET status = 'asleep'`:                                                                  "23514",
		`UPDATE docex_system.tenant_route SET isolation = 'none'`:                                                                 "23514",
		`UPDATE docex_system.tenant_route SET limits = '[]'`:                                                                      "23514",
		`UPDATE docex_system.tenant_route SET secret_generation = 0`:                                                              "23514",
		`INSERT INTO docex_system.tenant_route (tenant_id, database_name, role_name) VALUES ('globex', 'docex', 'tenant_acme')`:   "23505",
		`INSERT INTO docex_system.tenant_route (tenant_id, database_name, role_name) VALUES ('nobody', 'docex', 'tenant_nobody')`: "23503",
		`INSERT INTO docex_system.proxy_login_tenant VALUES ('nobody', 'acme')`:                                                   "23503",
		`INSERT INTO docex_system.proxy_login (login, verifier) VALUES ('', 'v')`:                                                 "23514",
	} {
		_, err := conn.Exec(t.Context(), sql)
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != code {
			t.Errorf("%s: %v, want SQLSTATE %s", sql, err, code)
		}
	}
}
