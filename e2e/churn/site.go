package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

const (
	database = "docex_churn"
	appLogin = "churn_app"
	rows     = 20 // of each tenant's table
)

// site is Postgres, the tenants and a proxy.
type site struct {
	dir, version string
	cluster      *localpg.Cluster
	address      string // of the proxy
	page         string // its HTTP side
	proxy        *exec.Cmd
	exited       chan error
	tenants      []*tenant
}

// tenant is one, with what has become of it.
type tenant struct {
	name string // t007
	// losing is set before the tenant loses its role or schema, gone after.
	losing, gone atomic.Bool
}

func newSite(ctx context.Context, dir string, o options) (_ *site, err error) {
	s := &site{dir: dir, exited: make(chan error, 1)}
	if err := os.Chmod(dir, 0o711); err != nil { // for root, Postgres runs as somebody else
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "github.com/docex-proxy/docex-proxy/cmd/docex-proxy",
		"github.com/docex-proxy/docex-proxy/cmd/docexctl")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building: %w: %s", err, output)
	}
	s.cluster, err = localpg.Start(ctx, localpg.Options{
		BinDir: o.binDir, DataDir: filepath.Join(dir, "pg"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "60"},
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.provision(ctx, o), s.serve(ctx, o)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// provision makes the tenants and their rows.
func (s *site) provision(ctx context.Context, o options) error {
	maintenance, err := pgconn.Connect(ctx, s.cluster.DSN("postgres"))
	if err != nil {
		return err
	}
	defer maintenance.Close(ctx)
	s.version = maintenance.ParameterStatus("server_version")
	if _, err := maintenance.Exec(ctx, "CREATE DATABASE "+database+" TEMPLATE template0").ReadAll(); err != nil {
		return err
	}
	initialised, err := s.docexctl(ctx, "init", "-o", "json")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "init.json"), initialised, 0o600); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(3)
	for i := range o.tenants {
		name := fmt.Sprintf("t%03d", i+1)
		s.tenants = append(s.tenants, &tenant{name: name})
		if i == 0 { // the first may make what all of them need
			if err := s.create(ctx, name, o.level); err != nil {
				return err
			}
			continue
		}
		group.Go(func() error { return s.create(ctx, name, o.level) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = s.docexctl(ctx, "login", "create", appLogin, "--all-tenants", "-o", "json")
	return err
}

func (s *site) create(ctx context.Context, name, level string) error {
	if _, err := s.docexctl(ctx, "tenant", "create", name, "--isolation", level, "-o", "json"); err != nil {
		return err
	}
	return s.admin(ctx, fmt.Sprintf(`SET ROLE tenant_%[1]s; SET search_path = tenant_%[1]s;
CREATE TABLE mine AS SELECT 'own-%[1]s'::text AS tenant, n FROM generate_series(1, %[2]d) AS n; CREATE TABLE sink (tenant text)`, name, rows))
}

// admin runs SQL as the superuser, past the proxy.
func (s *site) admin(ctx context.Context, sql string) error {
	conn, err := pgconn.Connect(ctx, s.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql).ReadAll()
	return err
}

func (s *site) docexctl(ctx context.Context, arguments ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, filepath.Join(s.dir, "docexctl"), arguments...)
	command.Env = append(os.Environ(), "DOCEX_DSN="+s.cluster.DSN(database), "DOCEX_MASTER_KEY_FILE="+filepath.Join(s.dir, "master.key"))
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("docexctl %s: %w: %s", strings.Join(arguments, " "), err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// serve starts the proxy. The login needs no password: thousands of logins are not about SCRAM here.
func (s *site) serve(ctx context.Context, o options) error {
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "init.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &initialised); err != nil {
		return err
	}
	if s.address, err = freeAddress(); err != nil {
		return err
	}
	if s.page, err = freeAddress(); err != nil {
		return err
	}
	config := filepath.Join(s.dir, "proxy.yaml")
	err = os.WriteFile(config, fmt.Appendf(nil, `
listen: %s
http: %s
registry: {dsn: %q}
master_key_file: %q
servers: {main: {host: %s, port: %d, sslmode: disable, max_connections: %d}}
auth: {allow_trusted: true, trust: [%s]}
timeouts: {queue_wait: 60s}
limits: {login_failures: 0}
`, s.address, s.page, initialised.RegistryDSN, filepath.Join(s.dir, "master.key"), s.cluster.Host(), s.cluster.Port(), o.connections, appLogin), 0o600)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "proxy.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.proxy = exec.Command(filepath.Join(s.dir, "docex-proxy"), "serve", "--config", config)
	s.proxy.Stdout, s.proxy.Stderr = log, log
	s.proxy.Env = append(os.Environ(), "DOCEX_PROXY_IO="+o.io)
	if err := s.proxy.Start(); err != nil {
		return err
	}
	go func() { s.exited <- s.proxy.Wait() }()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if response, err := http.Get("http://" + s.page + "/readyz"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	return fmt.Errorf("the proxy is not ready: %s", s.said())
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// said is the end of the proxy's log.
func (s *site) said() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "proxy.log"))
	return string(text[max(0, len(text)-3000):])
}

var telling = regexp.MustCompile(`(?m)^docex_proxy_((?:tenant_switch_seconds_count|session_pins_total|server_connect_seconds_count)\{[^}]*\}) ([0-9]+)`)

// metrics are those of the proxy that say how much was tried.
func (s *site) metrics() map[string]int {
	response, err := http.Get("http://" + s.page + "/metrics")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	page, _ := io.ReadAll(response.Body)
	values := make(map[string]int)
	for _, found := range telling.FindAllSubmatch(page, -1) {
		values[string(found[1])], _ = strconv.Atoi(string(found[2]))
	}
	return values
}

// lost counts the tenants that have lost what -drop takes.
func (s *site) lost() (n int) {
	for _, t := range s.tenants {
		if t.gone.Load() {
			n++
		}
	}
	return n
}

func (s *site) close() {
	if s.proxy != nil && s.proxy.Process != nil {
		_ = s.proxy.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(10 * time.Second):
			_ = s.proxy.Process.Kill()
		}
	}
	if s.cluster != nil {
		_ = s.cluster.Stop()
	}
}
