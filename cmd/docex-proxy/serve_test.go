package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/configs"
)

const patience = time.Minute

func testConfig() *configs.Config {
	config := configs.Default()
	config.Listen, config.HTTP = "127.0.0.1:0", ""
	return config
}

// output is a command's stream: it can be read while the command runs, and tells when it serves.
type output struct {
	mutex sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
}

func newOutput() *output { return &output{ready: make(chan struct{})} }

func (o *output) Write(text []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if bytes.HasPrefix(text, []byte("ready")) {
		close(o.ready)
	}
	return o.text.Write(text)
}

func (o *output) String() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.String()
}

// program is one command that serves.
type program struct {
	stdout, stderr *output
	interrupt      context.CancelFunc
	exited         chan int
}

// begin runs a command line until it serves. It is interrupted at the end of the test at the latest.
func begin(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, interrupt := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &program{stdout: newOutput(), stderr: newOutput(), interrupt: interrupt, exited: make(chan int, 1)}
	go func() { p.exited <- run(ctx, args, p.stdout, p.stderr) }()
	t.Cleanup(interrupt)
	select {
	case <-p.stdout.ready:
	case code := <-p.exited:
		t.Fatalf("exited with %d: %s", code, p.stderr)
	case <-time.After(patience):
		t.Fatalf("not ready: %s%s", p.stdout, p.stderr)
	}
	return p
}

// addresses are where it said that it serves.
func (p *program) addresses(t *testing.T) (clients, status string) {
	t.Helper()
	line := strings.ReplaceAll(p.stdout.String(), ",", "")
	if _, err := fmt.Sscanf(line, "ready: clients on %s http on %s", &clients, &status); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return clients, status
}

// end interrupts the program and returns its exit code.
func (p *program) end(t *testing.T) int {
	t.Helper()
	p.interrupt()
	select {
	case code := <-p.exited:
		return code
	case <-time.After(patience):
		t.Fatalf("it does not end: %s", p.stderr)
		return -1
	}
}

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

func httpGet(t *testing.T, address string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// openDir is a directory that the account which runs Postgres may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-proxy-test-")
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

func readCredentials(t *testing.T, dir string) credentials {
	t.Helper()
	path := filepath.Join(dir, "credentials.json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("credentials.json has mode %#o", info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c credentials
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDevServesItsTenants(t *testing.T) {
	dir := openDir(t)
	p := begin(t, "dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tenants", "acme,globex")
	c := readCredentials(t, dir)

	if len(c.Logins) != 2 || c.Logins[0].Tenant != "acme" || c.Logins[1].Tenant != "globex" {
		t.Fatalf("logins: %+v", c.Logins)
	}
	for _, login := range c.Logins {
		if got := query(t, login.DSN, "SELECT current_schema()::text"); got != "tenant_"+login.Tenant {
			t.Errorf("%s is in %s", login.Tenant, got)
		}
		if !strings.Contains(p.stdout.String(), "psql '"+login.DSN+"'\n") {
			t.Errorf("no psql line for %s", login.Tenant)
		}
	}
	app := strings.Replace(c.Logins[1].DSN, "globex_app.globex:"+c.Logins[1].Password, c.AppLogin.Login+".acme:"+c.AppLogin.Password, 1)
	if got := query(t, app, "SELECT current_schema()::text"); got != "tenant_acme" {
		t.Errorf("the login for all tenants is in %s", got)
	}
	if c.Admin.Login != "admin" || c.Admin.Password == "" || !strings.Contains(c.Admin.DSN, "/docex_admin") {
		t.Errorf("admin: %+v", c.Admin)
	}

	_, err := pgx.Connect(t.Context(), strings.Replace(app, ".acme:", ".nobody:", 1))
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "3D000" {
		t.Errorf("a tenant that is not there: %v", err)
	}
	eventually(t, "/readyz", func() bool { status, _ := httpGet(t, c.Proxy.HTTP+"/readyz"); return status == http.StatusOK })
	if _, text := httpGet(t, c.Proxy.HTTP+"/metrics"); !strings.Contains(text, `docex_proxy_server_connections{server="main",state="idle",tenant="acme"}`) {
		t.Error("the pools are not in the metrics")
	}

	if code := p.end(t); code != exitDone {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if strings.Contains(p.stderr.String(), c.AppLogin.Password) {
		t.Error("a password is in the log")
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres", "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Postgres is still there: %v", err)
	}

	again := begin(t, "dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--http", "", "--tenants", "acme,third")
	second := readCredentials(t, dir)
	if second.Logins[0].Password != c.Logins[0].Password || second.AppLogin != c.AppLogin {
		t.Error("the passwords have changed")
	}
	if second.Proxy.HTTP != "" {
		t.Errorf("HTTP is on: %s", second.Proxy.HTTP)
	}
	for _, login := range second.Logins {
		if got := query(t, login.DSN, "SELECT current_schema()::text"); got != "tenant_"+login.Tenant {
			t.Errorf("the second time %s is in %s", login.Tenant, got)
		}
	}
	if code := again.end(t); code != exitDone {
		t.Errorf("exit code %d: %s", code, again.stderr)
	}
}

func TestServeDrainsWhenItIsTold(t *testing.T) {
	dir := openDir(t)
	dev := begin(t, "dev", "--data-dir", dir, "--listen", "127.0.0.1:0", "--http", "", "--tenants", "acme")
	c := readCredentials(t, dir)
	config := writeFile(t, "config.yaml", strings.Join([]string{
		"listen: 127.0.0.1:0",
		"http: 127.0.0.1:0",
		fmt.Sprintf("registry: {dsn: postgres://%s:%d/%s}", c.Postgres.Host, c.Postgres.Port, c.Postgres.Database),
		"master_key_file: " + filepath.Join(dir, "master.key"),
	}, "\n"))
	p := begin(t, "serve", "--config", config)
	clients, status := p.addresses(t)
	dsn := strings.Replace(c.Logins[0].DSN, fmt.Sprintf("%s:%d", c.Proxy.Host, c.Proxy.Port), clients, 1)

	eventually(t, "/readyz", func() bool { code, _ := httpGet(t, status+"/readyz"); return code == http.StatusOK })
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.interrupt()
	eventually(t, "/readyz while draining", func() bool { code, _ := httpGet(t, status+"/readyz"); return code == http.StatusServiceUnavailable })
	if _, err := pgx.Connect(t.Context(), dsn); err == nil {
		t.Error("a client was let in during the shutdown")
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("the open transaction could not end: %v", err)
	}
	if code := p.end(t); code != exitDone {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if code := dev.end(t); code != exitDone {
		t.Errorf("dev's exit code %d: %s", code, dev.stderr)
	}
}

func TestServeWaitsForARegistryThatIsDown(t *testing.T) {
	config := writeFile(t, "config.yaml", "listen: 127.0.0.1:0\nhttp: 127.0.0.1:0\nregistry: {dsn: postgres://127.0.0.1:1/docex}\n")
	p := begin(t, "serve", "--config", config)
	_, status := p.addresses(t)
	if code, body := httpGet(t, status+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "registry") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code := p.end(t); code != exitDone {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}
