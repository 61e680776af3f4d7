package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// startPatience covers a build, initdb and the provisioning of the tenants.
const startPatience = 3 * time.Minute

// site is a running docex-proxy dev.
type site struct {
	command     *exec.Cmd
	dir         string
	made        credentials
	interrupted bool
}

// credentials is what dev writes down.
type credentials struct {
	Proxy    struct{ HTTP string }
	Postgres struct {
		Host, Database, Superuser string
		Port                      int
	}
	Logins   []struct{ Tenant, DSN string }
	AppLogin struct{ Login, Password string } `json:"app_login"`
	Admin    struct{ DSN string }
}

func startSite(t *testing.T, tenants string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-browser-") // Postgres may run as somebody else, who cannot pass t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), startPatience)
	defer stop()
	if err := program.Build(ctx, dir); err != nil {
		t.Fatal(err)
	}
	s := &site{dir: dir, command: exec.Command(filepath.Join(dir, "docex-proxy"), "dev", "--data-dir", filepath.Join(dir, "dev"),
		"--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tenants", tenants)}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.command.Stdout, s.command.Stderr, s.command.Env = out, out, program.Environment()
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop(t) })
	for !strings.Contains("\n"+s.said(), "\nready") {
		if ctx.Err() != nil || syscall.Kill(s.command.Process.Pid, 0) != nil {
			t.Fatalf("not ready: %s", s.said())
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, err := os.ReadFile(filepath.Join(dir, "dev", "credentials.json"))
	if err == nil {
		err = json.Unmarshal(text, &s.made)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) said() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "out"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// interrupt is Ctrl-C, once: a second one would end it at once.
func (s *site) interrupt() {
	if !s.interrupted {
		s.command.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended, which Wait says
		s.interrupted = true
	}
}

// stop ends it, once.
func (s *site) stop(t *testing.T) {
	if s.command.ProcessState != nil {
		return
	}
	s.interrupt()
	if err := s.command.Wait(); err != nil {
		t.Errorf("docex-proxy dev: %v: %s", err, s.said())
	}
}

// page is where the status page is.
func (s *site) page() string { return "http://" + s.made.Proxy.HTTP }

// get asks for a path under a name.
func (s *site) get(t *testing.T, path, host string) (status int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.page()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// dsn is a tenant's.
func (s *site) dsn(t *testing.T, tenant string) string {
	t.Helper()
	for _, login := range s.made.Logins {
		if login.Tenant == tenant {
			return login.DSN
		}
	}
	t.Fatalf("no login of %s", tenant)
	return ""
}

// connect opens a connection that stays until the test ends.
func connect(t *testing.T, dsn string, changes ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(config)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // the test's own context has ended
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string, arguments ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, arguments...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// superuser is past the proxy.
func (s *site) superuser(t *testing.T) *pgx.Conn {
	t.Helper()
	p := s.made.Postgres
	return connect(t, fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", p.Superuser, p.Host, p.Port, p.Database))
}

// load has a tenant run a statement over and over, on some connections, until the test ends.
func load(t *testing.T, dsn, sql string, connections int, pause time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{}, connections)
	for range connections {
		conn := connect(t, dsn)
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				conn.Exec(ctx, sql) //nolint:errcheck // the proxy may be stopped
				time.Sleep(pause)
			}
		}()
	}
	t.Cleanup(func() {
		stop()
		for range connections {
			<-done
		}
	})
}

// docexctl runs a verb on the site's database.
func (s *site) docexctl(t *testing.T, arguments ...string) {
	t.Helper()
	p := s.made.Postgres
	command := exec.Command(filepath.Join(s.dir, "docexctl"), arguments...)
	command.Env = append(program.Environment(), fmt.Sprintf("DOCEX_DSN=postgres://%s@%s:%d/%s?sslmode=disable", p.Superuser, p.Host, p.Port, p.Database),
		"DOCEX_MASTER_KEY_FILE="+filepath.Join(s.dir, "dev", "master.key"))
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Fatalf("docexctl %s: %v: %s", strings.Join(arguments, " "), err, &out)
	}
}
