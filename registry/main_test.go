package registry_test

import (
	"context"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/registry"
)

const patience = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// migrated gives a fresh database with the registry's tables, and a connection to it.
func migrated(tb testing.TB) (dsn string, conn *pgx.Conn) {
	tb.Helper()
	dsn = pgtest.Database(tb)
	conn = connect(tb, dsn)
	migrate(tb, conn)
	return dsn, conn
}

func connect(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := conn.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return conn
}

// migrate runs each file as provision does: one transaction, simple protocol.
func migrate(tb testing.TB, conn *pgx.Conn) {
	tb.Helper()
	names, err := fs.Glob(registry.Migrations, "migrations/*.sql")
	if err != nil || len(names) == 0 {
		tb.Fatalf("migrations: %v, %v", names, err)
	}
	for _, name := range names {
		text, err := registry.Migrations.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		inTx(tb, conn, func(tx pgx.Tx) error {
			_, err := tx.Conn().PgConn().Exec(tb.Context(), string(text)).ReadAll()
			return err
		})
	}
}

func inTx(tb testing.TB, conn *pgx.Conn, do func(tx pgx.Tx) error) {
	tb.Helper()
	if err := pgx.BeginFunc(tb.Context(), conn, do); err != nil {
		tb.Fatal(err)
	}
}

func exec(tb testing.TB, conn *pgx.Conn, sql string, args ...any) {
	tb.Helper()
	if _, err := conn.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func openStore(tb testing.TB, dsn string) *registry.Store {
	tb.Helper()
	store, err := registry.OpenStore(tb.Context(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(store.Close)
	return store
}

// tenantNamed is a tenant as docexctl makes one.
func tenantNamed(id registry.TenantID) *registry.Tenant {
	created := time.Date(2026, 3, 29, 1, 30, 0, 123456000, time.UTC)
	return &registry.Tenant{
		ID: id, DisplayName: "Tenant " + string(id), IsolationStrategy: "schema", SchemaName: "tenant_" + string(id),
		CreatedAt: created, CreatedBy: "cli_user", LastUpdatedAt: created,
		Route: &registry.Route{
			Status: registry.StatusActive, Isolation: registry.IsolationRole, Server: "main", Database: "docex",
			Role: "tenant_" + string(id), SecretGeneration: 1,
		},
	}
}

func insertTenant(tb testing.TB, conn *pgx.Conn, t *registry.Tenant) {
	tb.Helper()
	inTx(tb, conn, func(tx pgx.Tx) error { return registry.InsertTenant(tb.Context(), tx, t) })
}
