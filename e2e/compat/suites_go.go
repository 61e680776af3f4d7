package main

import (
	"context"
	"maps"
	"path/filepath"
)

func pgxSuite() suite {
	return suite{
		name: "pgx", tenant: "pgx_test",
		rights: `CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext; GRANT CREATE ON DATABASE pgx_test TO %[1]s;
CREATE ROLE " tricky, ' } "" \\ test user "; SET ROLE %[1]s; CREATE DOMAIN %[1]s.uint64 AS numeric(20,0)`,
		prepare: func(ctx context.Context, w *workshop) (string, error) {
			return module(ctx, "github.com/jackc/pgx/v5@v5.12.0", filepath.Join(w.dir, "source"))
		},
		run: func(ctx context.Context, w *workshop, at endpoint) (results, error) {
			return goTest(ctx, w, at, []string{
				"PGX_TEST_DATABASE=" + at.dsn(), "PGX_TEST_TCP_CONN_STRING=" + at.dsn(), "PGX_TEST_SCRAM_PASSWORD_CONN_STRING=" + at.dsn(),
				"PGX_TEST_PGBOUNCER_CONN_STRING=" + at.dsn(),
			}, "./...")
		},
	}
}

func pqSuite() suite {
	return suite{
		name: "lib/pq", tenant: "pqgo",
		rights: "CREATE EXTENSION hstore SCHEMA ext; GRANT CREATE ON DATABASE pqgo TO %[1]s",
		prepare: func(ctx context.Context, w *workshop) (string, error) {
			return module(ctx, "github.com/lib/pq@v1.12.3", filepath.Join(w.dir, "source"))
		},
		run: func(ctx context.Context, w *workshop, at endpoint) (results, error) {
			// Tests of listeners panic, and take those after them along, when a login lasts longer than 100ms.
			others, err := goTest(ctx, w, at, at.libpq(), "-skip=^TestListener", "./...")
			if err != nil {
				return nil, err
			}
			at.name += ", listeners"
			listeners, err := goTest(ctx, w, at, at.libpq(), "-run=^TestListener", ".")
			maps.Copy(others, listeners)
			return others, err
		},
	}
}
