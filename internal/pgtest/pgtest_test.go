package pgtest_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var value string
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestEachDatabaseIsFreshAndItsOwn(t *testing.T) {
	first, second := pgtest.Database(t), pgtest.Database(t)
	if first == second {
		t.Fatalf("both are %s", first)
	}
	for _, dsn := range []string{first, second} {
		if got := query(t, dsn, "SELECT count(*)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"); got != "0" {
			t.Errorf("%s has %s relations", dsn, got)
		}
	}
}

func TestADatabaseIsDroppedWithItsTest(t *testing.T) {
	t.Run("inner", func(t *testing.T) { pgtest.Database(t) })
	cluster := pgtest.Cluster(t)
	if got := query(t, cluster.DSN("postgres"), "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'test%'"); got != "0" {
		t.Errorf("%s databases are left", got)
	}
}

func TestTheClusterTradesDurabilityForSpeed(t *testing.T) {
	for setting, want := range map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"} {
		if got := query(t, pgtest.Cluster(t).DSN("postgres"), "SHOW "+setting); got != want {
			t.Errorf("%s = %s, want %s", setting, got, want)
		}
	}
}
