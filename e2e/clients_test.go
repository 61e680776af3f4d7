package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
)

func TestPsqlWorks(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "clients")
	psql := need(t, "psql", "apt-get install postgresql-client")
	run := func(arguments ...string) string {
		t.Helper()
		output, err := client(t, nil, psql, append([]string{"-X", "-At", "-v", "ON_ERROR_STOP=1", s.proxy.dsn(a)}, arguments...)...)
		if err != nil {
			t.Errorf("psql %q: %v\n%s", arguments, err, output)
		}
		return strings.TrimSpace(output)
	}
	if got := run("-c", "SELECT current_schema()"); got != a.schema {
		t.Errorf("in schema %q", got)
	}
	if got := run("-c", `\dt`); !strings.Contains(got, "docbasket") {
		t.Errorf(`\dt shows %q`, got)
	}
	if got := run("-c", `\d docbasket`); !strings.Contains(got, "id|") {
		t.Errorf(`\d docbasket shows %q`, got)
	}
	script := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(script, []byte(`
BEGIN;
CREATE TABLE psql_rows (n int, name text);
COPY psql_rows FROM STDIN;
1	one
2	two
\.
COMMIT;
SELECT sum(n) FROM psql_rows \gset
PREPARE twice AS SELECT 2 * $1::int;
EXECUTE twice(:sum);
SET work_mem = '3MB';
SHOW work_mem;
DROP TABLE psql_rows;
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run("-q", "-f", script); got != "6\n3MB" {
		t.Errorf("the script says %q", got)
	}
}

func TestPgxWorksInEveryQueryMode(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "clients")
	execute(t, s.proxy.connect(t, a), "CREATE TABLE IF NOT EXISTS pgx_rows (mode text, worker int, n int, at timestamptz DEFAULT now())")
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			config, err := pgxpool.ParseConfig(s.proxy.dsn(a))
			if err != nil {
				t.Fatal(err)
			}
			config.ConnConfig.DefaultQueryExecMode, config.MaxConns = mode, 10
			pool, err := pgxpool.NewWithConfig(bounded(t), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			var group sync.WaitGroup
			for worker := range 30 {
				group.Go(func() {
					if err := workOnce(bounded(t), pool, mode.String(), worker); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			var rows int
			if err := pool.QueryRow(bounded(t), "SELECT count(*) FROM pgx_rows WHERE mode = $1", mode.String()).Scan(&rows); err != nil || rows != 30*6 {
				t.Errorf("%d rows, %v", rows, err)
			}
		})
	}
}

// workOnce does what applications do: a transaction with several statements, one that fails, a batch.
func workOnce(ctx context.Context, pool *pgxpool.Pool, mode string, worker int) error {
	const insert = "INSERT INTO pgx_rows (mode, worker, n) VALUES ($1, $2, $3)"
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		for n := range 3 {
			if _, err := tx.Exec(ctx, insert, mode, worker, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	if _, err := pool.Exec(ctx, "SELECT 1/$1::int", 0); sqlstate(err) != "22012" {
		return fmt.Errorf("a division by zero: %w", err)
	}
	batch := &pgx.Batch{}
	for n := range 3 {
		batch.Queue(insert, mode, worker, n)
	}
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

func TestDatabaseSQLWorks(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "clients")
	db, err := sql.Open("pgx", s.proxy.dsn(a))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(10)
	ctx := bounded(t)
	statement, err := db.PrepareContext(ctx, "SELECT current_schema(), $1::int")
	if err != nil {
		t.Fatal(err)
	}
	defer statement.Close()
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			var schema string
			var n int
			if err := statement.QueryRowContext(ctx, i).Scan(&schema, &n); err != nil || schema != a.schema || n != i {
				t.Errorf("%q, %d of %d, %v", schema, n, i, err)
			}
		})
	}
	group.Wait()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "CREATE TABLE never (x int)"); sqlstate(err) != "25006" {
		t.Errorf("in a read-only transaction: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}

func TestPsycopg2WorksAsDocEXUsesIt(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "clients")
	const python = "/usr/bin/python3" // the system's, which has the distribution's psycopg2
	if output, err := client(t, nil, python, "-c", "import psycopg2"); err != nil {
		t.Fatalf("psycopg2 is missing; install it with: apt-get install python3-psycopg2\n%s", output)
	}
	output, err := client(t, s.clientEnvironment(a), python, "testdata/docex.py")
	if err != nil || !strings.HasSuffix(output, "ok\n") {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestNodePostgresWorks(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "clients")
	node := need(t, "node", "apt-get install nodejs npm")
	npm := need(t, "npm", "apt-get install npm")
	dir := t.TempDir()
	if output, err := client(t, nil, npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "--silent", "--prefix", dir, "pg@8"); err != nil {
		t.Fatalf("node-postgres is missing; install it with: npm install pg@8\n%v\n%s", err, output)
	}
	script := filepath.Join(dir, "client.mjs") // where node finds the package
	if err := os.WriteFile(script, []byte(read("testdata/client.mjs")), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := client(t, s.clientEnvironment(a), node, script)
	if err != nil || !strings.HasSuffix(output, "ok\n") {
		t.Errorf("%v\n%s", err, output)
	}
}

// clientEnvironment tells a script where it has to work.
func (s *site) clientEnvironment(a account) []string {
	return []string{
		"E2E_HOST=" + s.proxy.host, fmt.Sprintf("E2E_PORT=%d", s.proxy.port), "E2E_DATABASE=" + database,
		"E2E_LOGIN=" + a.login, "E2E_PASSWORD=" + a.password, "E2E_TENANT=" + a.tenant, "E2E_SCHEMA=" + a.schema,
	}
}
