package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
	"github.com/docex-proxy/docex-proxy/internal/pgtest"
)

// database is where the registry and all tenants are.
const database = "docex_e2e"

// budget is the number of server connections of the shared proxy.
const budget = 20

// shared is the site of this test binary: nothing that testing hands on from test to test could carry it.
var shared *site

// site is what all tests have in common. Use theSite to get it, running.
type site struct {
	dir string // holds both programs, and whatever is written

	startOnce sync.Once
	startErr  error
	cluster   *localpg.Cluster
	dsn       string // of the superuser, without the proxy
	key       string // path of the master key
	config    string // path of the proxies' configuration

	bossPassword string // of the login "boss", an administrator
	proxy        *proxy
	runAs        *syscall.SysProcAttr // of the proxies; nil: as the tests

	mutex    sync.Mutex // guards what follows
	accounts map[string]account
	proxies  int
}

// account is a tenant with a login that may use this tenant only.
type account struct{ tenant, login, password, schema string }

// theSite starts the site if it does not run yet. When the test fails, it shows what the shared proxy said meanwhile.
func theSite(t *testing.T) *site {
	t.Helper()
	cluster := pgtest.Cluster(t)
	shared.startOnce.Do(func() { shared.startErr = shared.start(t.Context(), cluster) })
	if shared.startErr != nil {
		t.Fatal(shared.startErr)
	}
	seen := len(shared.proxy.logged())
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		if log := shared.proxy.logged(); len(log) > seen {
			t.Logf("the shared proxy said:\n%s", lastLines(remarkable(log[seen:]), 20))
		}
	})
	return shared
}

// remarkable leaves out the sessions that ended as clients wanted them to.
func remarkable(log string) string {
	var kept strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "reason=client_closed") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func (s *site) start(ctx context.Context, cluster *localpg.Cluster) error {
	s.cluster, s.dsn, s.key = cluster, cluster.DSN(database), filepath.Join(s.dir, "master.key")
	conn, err := pgx.Connect(ctx, cluster.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+database+" TEMPLATE template0"); err != nil {
		return err
	}
	output, code := s.docexctl("init", "-o", "json")
	var initialised struct {
		RegistryDSN string `json:"registry_dsn"`
	}
	if err := json.Unmarshal([]byte(output), &initialised); err != nil || code != 0 {
		return fmt.Errorf("docexctl init: exit code %d, %w: %s", code, err, output)
	}
	if err := s.configure(initialised.RegistryDSN); err != nil {
		return err
	}
	var boss struct{ Password string }
	output, code = s.docexctl("login", "create", "boss", "--all-tenants", "-o", "json")
	if err := json.Unmarshal([]byte(output), &boss); err != nil || code != 0 {
		return fmt.Errorf("docexctl login create: exit code %d, %w: %s", code, err, output)
	}
	s.bossPassword = boss.Password
	s.proxy, err = s.launchProxy("shared", s.config, nil)
	return err
}

func (s *site) configure(registryDSN string) error {
	s.config = filepath.Join(s.dir, "docex-proxy.yaml")
	return os.WriteFile(s.config, []byte(fmt.Sprintf(`
registry:
  dsn: %s
master_key_file: %s
servers:
  main: {host: %s, port: %d, sslmode: disable, max_connections: %d}
auth: {admins: [boss]}
timeouts: {drain: 5s}
`, registryDSN, s.key, s.cluster.Host(), s.cluster.Port(), budget)), 0o600)
}

// stop ends the shared proxy. It may run after the cluster has stopped.
func (s *site) stop() error {
	if s.proxy == nil {
		return nil
	}
	return s.proxy.stop()
}

func (s *site) program(name string) string { return filepath.Join(s.dir, name) }

// docexctl runs one verb on the site's database and returns what it printed, or what it complained about, with its
// exit code.
func (s *site) docexctl(arguments ...string) (output string, code int) {
	command := exec.Command(s.program("docexctl"), arguments...)
	command.Env = append(cleanEnvironment(), "DOCEX_DSN="+s.dsn, "DOCEX_MASTER_KEY_FILE="+s.key)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return fmt.Sprintf("%s%s (%v)", stdout.String(), stderr.String(), err), max(1, command.ProcessState.ExitCode())
	}
	return stdout.String(), 0
}

// mustDocexctl is docexctl for a verb that has to succeed; what it printed, as JSON, is decoded into result.
func (s *site) mustDocexctl(t *testing.T, result any, arguments ...string) {
	t.Helper()
	output, code := s.docexctl(append(arguments, "-o", "json")...)
	if code != 0 {
		t.Fatalf("docexctl %s: exit code %d: %s", strings.Join(arguments, " "), code, output)
	}
	if err := json.Unmarshal([]byte(output), result); err != nil {
		t.Fatalf("docexctl %s: %v: %s", strings.Join(arguments, " "), err, output)
	}
}

// tenant returns the account of a tenant, which is created, with further flags, when the site has none of this id.
func (s *site) tenant(t *testing.T, id string, flags ...string) account {
	t.Helper()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known, ok := s.accounts[id]; ok {
		return known
	}
	var created struct {
		Schema string `json:"schema_name"`
		Login  struct{ Login, Password string }
	}
	s.mustDocexctl(t, &created, append([]string{"tenant", "create", id, "--display-name", "Tenant " + id, "--created-by", "e2e", "--login", id + "_app"}, flags...)...)
	a := account{tenant: id, login: created.Login.Login, password: created.Login.Password, schema: created.Schema}
	s.accounts[id] = a
	return a
}

// login creates a login beside those of the tenants and returns its password.
func (s *site) login(t *testing.T, name string, flags ...string) string {
	t.Helper()
	var created struct{ Password string }
	s.mustDocexctl(t, &created, append([]string{"login", "create", name}, flags...)...)
	return created.Password
}
