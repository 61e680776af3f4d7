//go:build unix

package e2e_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// abroad is a second Postgres server, "eu" for the proxies, whose tenants are in the site's registry.
type abroad struct {
	*site
	cluster *localpg.Cluster
	options localpg.Options // to start it again
}

func startAbroad(t *testing.T, s *site) *abroad {
	t.Helper()
	dir := openDir(t)
	options := localpg.Options{DataDir: filepath.Join(dir, "data")}
	cluster := runCluster(t, options)
	options.Port = cluster.Port()
	return &abroad{site: s, cluster: cluster, options: options}
}

// reached are the settings of a proxy that knows the server, with so many connections.
func (e *abroad) reached(connections int) settings {
	return settings{
		"servers.eu.host": e.cluster.Host(), "servers.eu.port": strconv.Itoa(e.cluster.Port()), "servers.eu.sslmode": "disable",
		"servers.eu.max_connections": strconv.Itoa(connections),
	}
}

// settle makes a tenant whose data is on the server, in a database of the given name that is made where it is missing.
func (e *abroad) settle(t *testing.T, id, isolation, databaseName string) account {
	t.Helper()
	a := e.register(t, id, isolation, "eu", databaseName)
	there := dial(t, configure(t, e.cluster.DSN("postgres")))
	if query(t, there, "SELECT count(*) FROM pg_database WHERE datname = '"+databaseName+"'") == "0" {
		execute(t, there, "CREATE DATABASE "+databaseName+" TEMPLATE template0")
	}
	execute(t, there, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", a.schema, e.secret(t, a.schema, 1)))
	execute(t, dial(t, configure(t, e.cluster.DSN(databaseName))), "CREATE SCHEMA "+a.schema+" AUTHORIZATION "+a.schema)
	return a
}

// create has docexctl make a tenant with a database of its own on the server.
func (e *abroad) create(t *testing.T, id string) account {
	t.Helper()
	var created struct {
		Schema string `json:"schema_name"`
		Login  struct{ Login, Password string }
	}
	e.mustDocexctl(t, &created, "tenant", "create", id, "--isolation", "database", "--server", "eu",
		"--server-dsn", "eu="+e.cluster.DSN("postgres"), "--login", id+"_app")
	return account{tenant: id, login: created.Login.Login, password: created.Login.Password, schema: created.Schema}
}

// register enters a tenant of another server in the registry, with a login. Nothing of it is made on any server.
func (s *site) register(t *testing.T, id, isolation, server, databaseName string) account {
	t.Helper()
	a := account{tenant: id, login: id + "_app", schema: "tenant_" + id}
	execute(t, s.direct(t),
		fmt.Sprintf(`INSERT INTO docex_system.tenant_registry (tenant_id, display_name, schema_name, created_by)
		VALUES ('%s', 'Tenant %[1]s', '%s', 'e2e')`, id, a.schema),
		fmt.Sprintf(`INSERT INTO docex_system.tenant_route (tenant_id, status, isolation, server, database_name, role_name)
		VALUES ('%s', 'active', '%s', '%s', '%s', '%s')`, id, isolation, server, databaseName, a.schema))
	a.password = s.login(t, a.login, "--tenant", id)
	return a
}

// anyDatabase leaves it to the proxy which database a tenant is in.
func anyDatabase(c *pgx.ConnConfig) { c.Database = "" }

func TestTenantsOfAnotherServerAreServedFromThere(t *testing.T) {
	s := theSite(t)
	eu := startAbroad(t, s)
	home, role, own := s.tenant(t, "home"), eu.settle(t, "eu_role", "role", "docex_eu"), eu.create(t, "eu_own")
	p := s.startProxy(t, eu.reached(5))
	const where = "SELECT inet_server_port() || ' ' || current_database() || ' ' || current_user || ' ' || current_schema()"
	for _, c := range []struct {
		account
		port     int
		database string
	}{
		{home, s.cluster.Port(), database},
		{role, eu.cluster.Port(), "docex_eu"},
		{own, eu.cluster.Port(), "tenant_eu_own"},
	} {
		session := p.connect(t, c.account, anyDatabase)
		expect(t, session, where, fmt.Sprintf("%d %s %s %s", c.port, c.database, c.schema, c.schema))
		execute(t, session, "CREATE TABLE whoami AS SELECT '"+c.tenant+"' AS name")
		expect(t, session, "SELECT name FROM "+c.schema+".whoami", c.tenant)
	}
	// Rotated there, it goes on; docexctl does not take a role of the registry's server for it.
	session := p.connect(t, own, anyDatabase)
	if output, code := s.docexctl("tenant", "rotate", "eu_own"); code != 4 {
		t.Errorf("rotated without a word about the server: exit code %d: %s", code, output)
	}
	var rotated struct {
		Generation int `json:"secret_generation"`
	}
	s.mustDocexctl(t, &rotated, "tenant", "rotate", "eu_own", "--server-dsn", "eu="+eu.cluster.DSN("postgres"))
	if rotated.Generation != 2 {
		t.Errorf("generation %d", rotated.Generation)
	}
	expect(t, session, "SELECT name FROM whoami", "eu_own")
	// The walls are the servers' own: neither sees what the other has.
	euRole := p.connect(t, role, anyDatabase)
	for _, foreign := range []account{home, own} {
		if code := failure(t, euRole, "SELECT * FROM "+foreign.schema+".whoami"); code != "42P01" {
			t.Errorf("%s's table seen from another place: %q", foreign.tenant, code)
		}
	}
}

func TestEachServerHasABudgetOfItsOwn(t *testing.T) {
	s := theSite(t)
	eu := startAbroad(t, s)
	home, there := s.tenant(t, "home"), eu.settle(t, "eu_budget", "role", "docex_eu")
	changed := eu.reached(1)
	changed["servers.main.max_connections"], changed["timeouts.queue_wait"] = "1", "300ms"
	p := s.startProxy(t, changed)
	holder, waiter, athome := p.connect(t, there, anyDatabase), p.connect(t, there, anyDatabase), p.connect(t, home)
	occupy(t, holder)
	if code := failure(t, waiter, "SELECT 1"); code != "53300" {
		t.Errorf("past the budget of its server: %q", code)
	}
	occupy(t, athome) // the other server's only connection
	execute(t, holder, "COMMIT")
	expect(t, waiter, "SELECT 'served'", "served")
}

func TestAServerThatIsNotConfiguredIsNamed(t *testing.T) {
	s := theSite(t)
	lost := s.register(t, "lost", "role", "atlantis", database)
	p := s.startProxy(t, nil)
	if refusal := p.refused(t, lost); refusal.Code != "08006" || !strings.Contains(refusal.Message, `"atlantis"`) {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
	if line := logLine(p, "server=atlantis"); !strings.Contains(line, "tenant=lost") {
		t.Errorf("logged %q", line)
	}
}

func TestAServerThatIsDownDoesNotTouchTheTenantsOfAnother(t *testing.T) {
	s := theSite(t)
	eu := startAbroad(t, s)
	home, there := s.tenant(t, "home"), eu.settle(t, "eu_down", "role", "docex_eu")
	p := s.startProxy(t, eu.reached(2))
	abroad := p.connect(t, there, anyDatabase)
	expect(t, abroad, "SELECT 'up'", "up")
	atHome := p.load(t, home, 4)

	if err := eu.cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	for range 20 { // each asks for a connection; the first may find the old one dead
		if code := failure(t, abroad, "SELECT 1"); code != "08006" {
			t.Fatalf("while the server is down: %q", code)
		}
	}
	newcomer := p.connect(t, there, anyDatabase) // whose login needs no server: what it would say is known
	if _, err := newcomer.Exec(bounded(t), "SELECT 1"); sqlstate(err) != "08006" || !strings.Contains(err.Error(), `"eu"`) {
		t.Errorf("a new session: %v", err)
	}
	before, began := atHome.transactions.Load(), time.Now()
	eventually(t, patience, "the others go on", func() bool { return atHome.transactions.Load() > before+50 })
	t.Logf("50 transactions at home in %s", time.Since(began).Round(time.Millisecond))
	atHome.end(t)
	if line := logLine(p, "cannot connect to a server"); !strings.Contains(line, "server=eu") || !strings.Contains(line, "tenant=eu_down") {
		t.Errorf("logged %q", line)
	}

	eu.cluster = runCluster(t, eu.options)
	expect(t, abroad, "SELECT 'up again'", "up again")
}
