package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// Versions that are installed; the tests in -sources have to be of the same.
const (
	nodePostgresVersion = "8.23.0"
	postgresJSVersion   = "3.4.9"
)

// nodePostgresSuite runs node-postgres's integration tests. They are programs of their own, so a file is a test.
func nodePostgresSuite() suite {
	return suite{
		name: "node-postgres", tenant: "node_postgres", rights: "GRANT CREATE ON DATABASE node_postgres TO %[1]s",
		prepare: func(ctx context.Context, w *workshop) (string, error) {
			err := w.npm(ctx, "pg@"+nodePostgresVersion, "async@2.6.4", "bluebird@3.7.2", "co@4.6.0", "pg-copy-streams@0.3.0")
			if err != nil {
				return "", err
			}
			return nodePostgresVersion, w.checkout("node-postgres/packages/pg", "node_modules/pg", "test")
		},
		run: nodePostgres,
	}
}

func nodePostgres(ctx context.Context, w *workshop, at endpoint) (results, error) {
	root := filepath.Join(w.dir, "node_modules", "pg")
	found := make(results)
	err := filepath.WalkDir(filepath.Join(root, "test", "integration"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "-tests.js") {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		said, err := w.executeAs(ctx, at.name+"_"+strings.ReplaceAll(name, "/", "_"), root, append(at.libpq(), "TEST_TIMEOUT=20000"), "node", name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		found[name] = result{outcome: passed}
		if err != nil {
			found[name] = result{failed, fmt.Sprintf("%s%v\n", said, err)}
		}
		return nil
	})
	return found, err
}

// npm installs packages from npm into the workshop.
func (w *workshop) npm(ctx context.Context, packages ...string) error {
	_, err := program.Run(ctx, nil, "npm", append([]string{"install", "--no-audit", "--no-fund", "--silent", "--prefix", w.dir}, packages...)...)
	return err
}

// harness runs the tests of postgres.js one after the other, whatever becomes of those before, and says a line of JSON
// for each. The suite's own stops at the first that fails.
//
//go:embed testdata/postgresjs.mjs
var harness []byte

func postgresJSSuite() suite {
	return suite{
		name: "postgres.js", tenant: "postgres_js_test", rights: "GRANT CREATE ON DATABASE postgres_js_test TO %[1]s",
		prepare: func(ctx context.Context, w *workshop) (string, error) {
			if err := w.npm(ctx, "postgres@"+postgresJSVersion); err != nil {
				return "", err
			}
			if err := w.checkout("postgres.js", "node_modules/postgres", "tests"); err != nil {
				return "", err
			}
			return postgresJSVersion, adaptPostgresJS(filepath.Join(w.dir, "node_modules", "postgres", "tests"))
		},
		run: postgresJS,
	}
}

// adaptPostgresJS puts the harness where the suite has its own, does without the creation of databases and users, and
// makes the tests use the role and the schema that there are.
func adaptPostgresJS(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "index.js"))
	if err != nil {
		return err
	}
	own := strings.NewReplacer(
		"user: 'postgres_js_test'\n", "user: process.env.PGUSER\n",
		"user: 'postgres_js_test_scram',\n  pass: 'postgres_js_test_scram'", "user: process.env.PGUSER,\n  pass: process.env.PGPASSWORD",
		"sql('public')", "sql('tenant_postgres_js_test')", "sql('public.test')", "sql('tenant_postgres_js_test.test')",
	)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "index.js"), []byte(own.Replace(string(text))), 0o644),
		os.WriteFile(filepath.Join(dir, "test.js"), harness, 0o644),
		os.WriteFile(filepath.Join(dir, "bootstrap.js"), []byte("export function exec() {}\n"), 0o644),
	)
}

func postgresJS(ctx context.Context, w *workshop, at endpoint) (results, error) {
	root := filepath.Join(w.dir, "node_modules", "postgres")
	raw, err := w.execute(ctx, at, root, at.libpq(), "node", "tests/index.js")
	found := make(results)
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		var one struct{ Test, Error string }
		if json.Unmarshal(lines.Bytes(), &one) != nil || one.Test == "" {
			continue
		}
		found[one.Test] = result{outcome: passed}
		if one.Error != "" {
			found[one.Test] = result{failed, one.Error + "\n"}
		}
	}
	if len(found) == 0 {
		return nil, errors.Join(errors.New("no test ran"), err)
	}
	return found, nil
}
