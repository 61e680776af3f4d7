package localpg_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openDir is a fresh directory that the server's account may enter: those of testing.T are closed to others.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, o localpg.Options) *localpg.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster, err := localpg.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func query(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(values, ",")
}

func TestClusterAnswersOnTCPAndOnItsSocket(t *testing.T) {
	dir := filepath.Join(openDir(t), "data")
	cluster := start(t, localpg.Options{DataDir: dir, Settings: map[string]string{"application_name": `it's \ here`}})
	if got := query(t, cluster.DSN("postgres"), "SHOW server_encoding"); got != "UTF8" {
		t.Errorf("encoding %s", got)
	}
	if got := query(t, cluster.DSN("postgres"), "SELECT boot.setting FROM pg_file_settings boot WHERE name = 'application_name'"); got != `it's \ here` {
		t.Errorf("the setting arrived as %s", got)
	}
	socket := "host=" + cluster.SocketDir() + " user=postgres database=postgres port=" + query(t, cluster.DSN("postgres"), "SHOW port")
	if got := query(t, socket, "SELECT current_user::text"); got != "postgres" {
		t.Errorf("over the socket we are %s", got)
	}
}

func TestOnlyTheSuperuserIsTrusted(t *testing.T) {
	cluster := start(t, localpg.Options{DataDir: filepath.Join(openDir(t), "data")})
	query(t, cluster.DSN("postgres"), "CREATE ROLE tenant_acme LOGIN PASSWORD 'right'")
	for _, host := range []string{cluster.Host(), cluster.SocketDir()} {
		config, err := pgx.ParseConfig(cluster.DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		config.Host, config.User, config.Password = host, "tenant_acme", "wrong"
		_, err = pgx.ConnectConfig(t.Context(), config)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "28P01" {
			t.Errorf("%s: a wrong password gives %v", host, err)
		}
		config.Password = "right"
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		conn.Close(t.Context())
	}
}

func TestARestartKeepsData(t *testing.T) {
	dir := filepath.Join(openDir(t), "data")
	first := start(t, localpg.Options{DataDir: dir, Superuser: "owner"})
	query(t, first.DSN("postgres"), "CREATE TABLE kept AS SELECT 'here'::text AS word")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, localpg.Options{DataDir: dir, Superuser: "owner", Settings: map[string]string{"work_mem": "5MB"}})
	if got := query(t, second.DSN("postgres"), "SELECT word FROM kept"); got != "here" {
		t.Errorf("got %q", got)
	}
	if got := query(t, second.DSN("postgres"), "SHOW work_mem"); got != "5MB" {
		t.Errorf("a new setting is not in force: %s", got)
	}
}

func TestStopLeavesNeitherProcessNorListener(t *testing.T) {
	dir := filepath.Join(openDir(t), "data")
	cluster := start(t, localpg.Options{DataDir: dir})
	address := net.JoinHostPort(cluster.Host(), query(t, cluster.DSN("postgres"), "SHOW port"))
	for range 2 {
		if err := cluster.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("something still listens")
	}
	if _, err := os.Stat(filepath.Join(dir, "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the shutdown was not clean: %v", err)
	}
}

func TestADataDirTooLongForASocketGetsATemporaryOne(t *testing.T) {
	dir := filepath.Join(openDir(t), strings.Repeat("d", 100))
	cluster := start(t, localpg.Options{DataDir: dir})
	socketDir := cluster.SocketDir()
	if _, err := os.Stat(filepath.Join(socketDir, ".s.PGSQL."+query(t, cluster.DSN("postgres"), "SHOW port"))); err != nil {
		t.Error(err)
	}
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socketDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket directory is left: %v", err)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	dir := filepath.Join(openDir(t), "data")
	if err := start(t, localpg.Options{DataDir: dir}).Stop(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()

	for name, c := range map[string]struct {
		options localpg.Options
		want    string
	}{
		"no data directory":           {localpg.Options{}, "no data directory"},
		"a taken port":                {localpg.Options{DataDir: dir, Port: taken.Addr().(*net.TCPAddr).Port}, "could not bind"},
		"a setting Postgres rejects":  {localpg.Options{DataDir: dir, Settings: map[string]string{"max_connections": "none"}}, "max_connections"},
		"no programs where named":     {localpg.Options{DataDir: dir, BinDir: t.TempDir()}, "initdb and postgres"},
		"a socket directory too long": {localpg.Options{DataDir: dir, SocketDir: "/" + strings.Repeat("s", 100)}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := localpg.Start(t.Context(), c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := localpg.Start(ctx, localpg.Options{DataDir: filepath.Join(openDir(t), "data")})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestADataDirThatIsSomethingElseIsLeftAlone(t *testing.T) {
	dir := openDir(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("years"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := localpg.Start(t.Context(), localpg.Options{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "thesis.txt")); err != nil {
		t.Error(err)
	}
}
