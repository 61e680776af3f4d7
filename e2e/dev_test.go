package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// devPatience covers initdb and the provisioning of two tenants by a program that is slowed down by the race detector.
const devPatience = time.Minute

// devCredentials is credentials.json, as its readers know it.
type devCredentials struct {
	Proxy struct {
		Host string `json:"host"`
		Port int    `json:"port"`
		HTTP string `json:"http"`
	} `json:"proxy"`
	Postgres struct {
		Host      string `json:"host"`
		Port      int    `json:"port"`
		Database  string `json:"database"`
		Superuser string `json:"superuser"`
	} `json:"postgres"`
	Logins []struct {
		Tenant   string `json:"tenant"`
		Login    string `json:"login"`
		Password string `json:"password"`
		DSN      string `json:"dsn"`
	} `json:"logins"`
	AppLogin struct {
		Login    string `json:"login"`
		Password string `json:"password"`
	} `json:"app_login"`
	Admin struct {
		Login    string `json:"login"`
		Password string `json:"password"`
		DSN      string `json:"dsn"`
	} `json:"admin"`
}

// startDev runs docex-proxy dev in a directory until it says that it is ready.
func (s *site) startDev(t *testing.T, name, dir string, port, httpPort int) (*process, devCredentials) {
	t.Helper()
	p, err := launch(s.dir, name, s.program("docex-proxy"), nil, "dev", "--data-dir", dir,
		"--listen", fmt.Sprintf("127.0.0.1:%d", port), "--http", fmt.Sprintf("127.0.0.1:%d", httpPort))
	if err != nil {
		t.Fatal(err)
	}
	p.guard(t)
	eventually(t, devPatience, "a line that starts with ready", func() bool {
		if !p.alive() {
			t.Fatal("it has ended")
		}
		return strings.Contains("\n"+p.printed(), "\nready")
	})
	var credentials devCredentials
	file, err := os.Open(filepath.Join(dir, "credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&credentials); err != nil {
		t.Fatal(err)
	}
	return p, credentials
}

// passable makes a directory through which the account that runs Postgres can pass, unlike t.TempDir's.
func passable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-e2e-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func ports(t *testing.T) (clients, status int) {
	t.Helper()
	clients, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	if status, err = freePort(); err != nil {
		t.Fatal(err)
	}
	return clients, status
}

func TestDevServesItsTenantsAndStopsEverything(t *testing.T) {
	s := theSite(t)
	dir := passable(t)
	port, httpPort := ports(t)
	p, credentials := s.startDev(t, "dev1", dir, port, httpPort)
	t.Run("credentials.json says all that is needed", func(t *testing.T) { credentials.check(t, port, httpPort) })
	t.Run("each printed psql line reaches its schema", func(t *testing.T) { pasted(t, p.printed()) })
	t.Run("a tenant cannot read another's table", func(t *testing.T) {
		conn := dial(t, configure(t, credentials.Logins[0].DSN))
		if code := failure(t, conn, "SELECT * FROM tenant_globex.docbasket"); code != "42501" {
			t.Errorf("SQLSTATE %q", code)
		}
	})
	t.Run("the login of all tenants reaches each", func(t *testing.T) { credentials.everywhere(t) })
	t.Run("an unknown tenant is named as such", func(t *testing.T) {
		_, err := pgx.ConnectConfig(bounded(t), configure(t, credentials.Logins[0].DSN, as(credentials.AppLogin.Login+".nobody")))
		if code := sqlstate(err); code != "3D000" {
			t.Errorf("SQLSTATE %q, %v", code, err)
		}
	})
	stopDev(t, p, dir)

	again, kept := s.startDev(t, "dev2", dir, port, httpPort)
	if fmt.Sprint(kept.Logins, kept.AppLogin, kept.Admin) != fmt.Sprint(credentials.Logins, credentials.AppLogin, credentials.Admin) {
		t.Errorf("the credentials of the second start are %+v, of the first %+v", kept, credentials)
	}
	pasted(t, again.printed())
	stopDev(t, again, dir)
}

// check looks at every field of DESIGN's credentials.json.
func (c devCredentials) check(t *testing.T, port, httpPort int) {
	t.Helper()
	if c.Proxy.Host != "127.0.0.1" || c.Proxy.Port != port || c.Proxy.HTTP != fmt.Sprintf("127.0.0.1:%d", httpPort) {
		t.Errorf("proxy: %+v", c.Proxy)
	}
	if c.Postgres.Host == "" || c.Postgres.Port == 0 || c.Postgres.Database == "" || c.Postgres.Superuser == "" {
		t.Errorf("postgres: %+v", c.Postgres)
	}
	direct := dial(t, configure(t, fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", c.Postgres.Superuser, c.Postgres.Host, c.Postgres.Port, c.Postgres.Database)))
	expect(t, direct, "SELECT count(*) FROM docex_system.tenant_registry WHERE NOT is_system", "2")
	if len(c.Logins) != 2 || c.Logins[0].Tenant != "acme" || c.Logins[1].Tenant != "globex" {
		t.Errorf("logins: %+v", c.Logins)
	}
	for _, login := range c.Logins {
		if login.Login == "" || login.Password == "" {
			t.Errorf("login %+v", login)
		}
		expect(t, dial(t, configure(t, login.DSN)), "SELECT current_schema()", "tenant_"+login.Tenant)
	}
	if c.AppLogin.Login == "" || c.AppLogin.Password == "" || c.Admin.Login == "" || c.Admin.Password == "" || c.Admin.DSN == "" {
		t.Errorf("app_login %+v, admin %+v", c.AppLogin, c.Admin)
	}
}

// everywhere connects the application's login to every tenant, each named in options.
func (c devCredentials) everywhere(t *testing.T) {
	t.Helper()
	for _, login := range c.Logins {
		conn := dial(t, configure(t, login.DSN, as(c.AppLogin.Login), password(c.AppLogin.Password), with("options", "-c docex.tenant_id="+login.Tenant)))
		expect(t, conn, "SELECT current_schema()", "tenant_"+login.Tenant)
	}
}

// pasted runs each psql line as a person would, and expects to be in the schemas of acme and globex.
func pasted(t *testing.T, printed string) {
	t.Helper()
	need(t, "psql", "apt-get install postgresql-client")
	var schemas []string
	for line := range strings.Lines(printed) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "psql ") {
			continue
		}
		output, err := client(t, nil, "sh", "-c", line+" -Atc 'select current_schema()'")
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, output)
		}
		schemas = append(schemas, strings.TrimSpace(output))
	}
	if got := strings.Join(schemas, ", "); got != "tenant_acme, tenant_globex" {
		t.Errorf("the psql lines lead to %q", got)
	}
}

// stopDev presses Ctrl-C. Nothing of it may be left: no process, no listener.
func stopDev(t *testing.T, p *process, dir string) {
	t.Helper()
	postmaster, _, _ := strings.Cut(read(filepath.Join(dir, "postgres", "postmaster.pid")), "\n")
	if !running(postmaster) {
		t.Fatalf("no postmaster with the process id %q", postmaster)
	}
	if err := p.command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code, err := p.wait(stopPatience); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if running(postmaster) {
		t.Errorf("the postmaster %s still runs", postmaster)
	}
}

func running(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return pid != "" && err == nil
}

func TestDevSaysThatItsPortIsTaken(t *testing.T) {
	s := theSite(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := passable(t)
	output, code := s.docexProxy("dev", "--data-dir", dir, "--listen", taken.Addr().String())
	if code != 1 || !strings.Contains(output, "address already in use") {
		t.Errorf("exit code %d: %s", code, output)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
		t.Error("a cluster was made before the port was tried")
	}
}
