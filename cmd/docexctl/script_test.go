package main

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/internal/secret"
)

// withCluster lets testscript.Main, which turns this binary into docexctl where a script calls it, run the tests
// with a cluster.
type withCluster struct{ *testing.M }

func (w withCluster) Run() int { return pgtest.Main(w.M) }

func TestMain(m *testing.M) {
	testscript.Main(withCluster{m}, map[string]func(){"docexctl": main})
}

// TestScripts runs testdata/script/*.txtar. Besides testscript's own commands a script has:
//
//	exits CODE docexctl ARGUMENTS...   run it and demand its exit code
//	sql STATEMENT                      run SQL as the superuser; a query's first column goes to stdout
//	password LOGIN                     the password in stdout is the one whose verifier the registry holds
//	derived ROLE KEYFILE [DATABASE [GENERATION]]
//	                                   the role can log in with the password derived from the key
//
// and the variables DSN, HOST, PORT and DATABASE of a database of its own; scripts that are called move, place and slot have EU, the
// DSN of another server.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range scripts {
		// One after the other, each within a test that ends with it: roles belong to the cluster.
		name := strings.TrimSuffix(filepath.Base(script), ".txtar")
		t.Run(name, func(t *testing.T) {
			eu := ""
			if slices.Contains([]string{"move", "place", "slot"}, name) {
				eu = pgtest.SecondCluster(t).DSN("postgres")
				t.Cleanup(func() { dropEverything(t, eu) })
			}
			t.Cleanup(func() { dropEverything(t, pgtest.Cluster(t).DSN("postgres")) })
			dsn := pgtest.Database(t)
			testscript.Run(t, testscript.Params{
				Files:               []string{script},
				RequireExplicitExec: true,
				Setup:               func(env *testscript.Env) error { return setUp(env, dsn, eu) },
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits": exits, "sql": sql, "password": password, "derived": derived,
				},
			})
		})
	}
}

func setUp(env *testscript.Env, dsn, eu string) error {
	parsed, err := url.Parse(dsn)
	if err != nil {
		return err
	}
	env.Setenv("DSN", dsn)
	env.Setenv("EU", eu)
	env.Setenv("HOST", parsed.Hostname())
	env.Setenv("PORT", parsed.Port())
	env.Setenv("DATABASE", strings.TrimPrefix(parsed.Path, "/"))
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("COLUMNS", "200")
	return nil
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func sql(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sql STATEMENT")
	}
	conn, err := pgx.Connect(context.Background(), ts.Getenv("DSN"))
	ts.Check(err)
	defer conn.Close(context.Background())
	results, err := conn.PgConn().Exec(context.Background(), args[0]).ReadAll()
	ts.Check(err)
	for _, result := range results {
		for _, row := range result.Rows {
			_, err := ts.Stdout().Write(append(row[0], '\n'))
			ts.Check(err)
		}
	}
}

var passwordPattern = regexp.MustCompile(`(?i)"?password"?: +"?([A-Za-z0-9_-]+)`)

func password(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: password LOGIN")
	}
	printed := passwordPattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if printed == nil {
		ts.Fatalf("no password in stdout")
	}
	conn, err := pgx.Connect(context.Background(), ts.Getenv("DSN"))
	ts.Check(err)
	defer conn.Close(context.Background())
	var text string
	ts.Check(conn.QueryRow(context.Background(), `SELECT verifier FROM docex_system.proxy_login WHERE login = $1`, args[0]).Scan(&text))
	verifier, err := scram.ParseVerifier(text)
	ts.Check(err)
	if scram.DeriveVerifier(printed[1], verifier.Salt, verifier.Iterations).String() != text {
		ts.Fatalf("the registry holds the verifier of another password")
	}
}

func derived(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 4 {
		ts.Fatalf("usage: [!] derived ROLE KEYFILE [DATABASE [GENERATION]]")
	}
	generation := 1
	if len(args) == 4 {
		var err error
		generation, err = strconv.Atoi(args[3])
		ts.Check(err)
	}
	key, err := secret.Load(ts.MkAbs(args[1]))
	ts.Check(err)
	dsn, err := url.Parse(ts.Getenv("DSN"))
	ts.Check(err)
	dsn.User = url.UserPassword(args[0], key.Password(args[0], generation))
	if len(args) > 2 {
		dsn.Path = "/" + args[2]
	}
	conn, err := pgx.Connect(context.Background(), dsn.String())
	if err == nil {
		err = conn.Close(context.Background())
	}
	if (err != nil) != neg {
		ts.Fatalf("log in as %s: %v", args[0], err)
	}
}

// dropEverything drops the tenants' own databases and all roles but the cluster's own.
func dropEverything(t *testing.T, maintenance string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, maintenance)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `
SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE NOT datistemplate AND datname <> current_database()
UNION ALL SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname <> current_user AND rolname !~ '^pg_' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(statement, err)
		}
	}
}

func TestRunWritesToTheStreamsThatItIsGiven(t *testing.T) {
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"version"}, os.Stdin, &out, &errs); code != 0 || !strings.HasPrefix(out.String(), "docexctl ") || errs.Len() > 0 {
		t.Errorf("code %d, out %q, err %q", code, out.String(), errs.String())
	}
}
