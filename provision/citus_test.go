package provision_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// citusContract stands in for Citus, which these tests have no cluster of: functions with the names and arguments of Citus
// 12.1, by its documentation (https://docs.citusdata.com/en/v12.1/develop/api_udf.html), that write down by whom they are
// called, and on what. The real ones take the owner of the schema and of its tables, move in no transaction that has written,
// and refuse a schema that is not distributed.
const citusContract = `
CREATE SCHEMA citus;
CREATE TYPE citus.shard_transfer_mode AS ENUM ('auto', 'force_logical', 'block_writes');
CREATE TABLE citus.calls (id serial PRIMARY KEY, call text NOT NULL);
CREATE TABLE citus.schemas (name regnamespace PRIMARY KEY);
CREATE FUNCTION pg_catalog.citus_schema_distribute(schemaname regnamespace) RETURNS void LANGUAGE plpgsql STRICT AS $$
BEGIN
    IF schemaname::text = 'tenant_full' THEN
        RAISE EXCEPTION 'could not find any worker nodes';
    END IF;
    IF NOT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE oid = schemaname THEN
        RAISE EXCEPTION 'must be owner of schema %', schemaname USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO citus.schemas VALUES (schemaname);
    INSERT INTO citus.calls (call) SELECT format('distribute %s with %s tables of %s, superuser %s, in the transaction that made it %s', schemaname, count(*),
           string_agg(DISTINCT relowner::regrole::text, ' '), current_setting('is_superuser'), bool_and(n.xmin::text = txid_current()::text))
      FROM pg_namespace AS n JOIN pg_class ON relnamespace = n.oid AND relkind = 'r' WHERE n.oid = schemaname GROUP BY n.oid;
END $$;
CREATE FUNCTION pg_catalog.citus_schema_move(schema_id regnamespace, target_node_name text, target_node_port integer,
       shard_transfer_mode citus.shard_transfer_mode DEFAULT 'auto') RETURNS void LANGUAGE plpgsql STRICT AS $$
BEGIN
    IF txid_current_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'cannot move in a transaction that has written';
    END IF;
    IF NOT EXISTS (SELECT FROM citus.schemas WHERE name = schema_id) THEN
        RAISE EXCEPTION 'schema % is not a distributed schema', schema_id;
    END IF;
    INSERT INTO citus.calls (call) VALUES (format('move %s to %s:%s %s, superuser %s', schema_id, target_node_name, target_node_port, shard_transfer_mode, current_setting('is_superuser')));
END $$`

const (
	citusCalls = "SELECT call FROM citus.calls ORDER BY id"
	distribute = " with 1 tables of "
	complete   = ", superuser on, in the transaction that made it t"
)

func TestASchemaOnACitusServerIsDistributedAndMovedByCitus(t *testing.T) {
	s := newTwoServers(t)
	eu := s.eu.DSN("postgres")
	p := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Servers: map[string]string{"eu": eu}, Citus: []string{"eu"}})
	maintenance, database := connect(t, eu), s.conn.Config().Database

	// Without Citus nothing is made.
	before, roles := s.snapshot(t), lines(t, maintenance, "SELECT rolname FROM pg_roles ORDER BY 1")
	unprepared := func(reason string) {
		t.Helper()
		if _, err := p.CreateTenant(t.Context(), shared(t, "acme")); !isConflict(err) || !strings.Contains(err.Error(), `server "eu" is marked as Citus, and `+reason) {
			t.Errorf("%s: %v", reason, err)
		}
		equal(t, before, s.snapshot(t))
	}
	unprepared("has no database")
	if got := lines(t, maintenance, "SELECT rolname FROM pg_roles ORDER BY 1"); !slices.Equal(got, roles) {
		t.Errorf("there are the roles %q", got)
	}
	execute(t, maintenance, "CREATE ROLE docex_owner NOINHERIT")
	execute(t, maintenance, "CREATE DATABASE "+database+" OWNER docex_owner")
	unprepared("has no function citus_schema_distribute()")

	there := connect(t, in(t, database, eu))
	execute(t, there, citusContract)
	for _, level := range []registry.Isolation{registry.IsolationDatabase, registry.IsolationTrusted} {
		request := shared(t, "acme")
		if request.Isolation = level; !isInvalid(creating(t, p, request)) {
			t.Errorf("level %s is not refused", level)
		}
	}
	if err := creating(t, p, shared(t, "acme")); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, there, citusCalls); !slices.Equal(got, []string{"distribute tenant_acme" + distribute + "tenant_acme" + complete}) {
		t.Errorf("Citus has been called: %q", got)
	}
	execute(t, connect(t, s.inShared(t, "tenant_acme", 1)), "SELECT FROM notes")

	// What Citus refuses is taken back.
	before, remains := s.snapshot(t), s.remains(t)
	if err := creating(t, p, shared(t, "full")); err == nil || !strings.Contains(err.Error(), "could not find any worker nodes") {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
	if got := s.remains(t); !slices.Equal(got, remains) || len(lines(t, there, "SELECT nspname FROM pg_namespace WHERE nspname = 'tenant_full'")) > 0 {
		t.Errorf("there is %q", got)
	}

	// Citus moves it, between its nodes; nothing else does.
	execute(t, there, "TRUNCATE citus.calls")
	server, err := p.MoveWithinCitus(t.Context(), provision.CitusMoveRequest{ID: "acme", Node: "worker-2.internal:5432", Actor: "admin"})
	if err != nil || server != "eu" {
		t.Errorf("%q, %v", server, err)
	}
	if got := lines(t, there, citusCalls); !slices.Equal(got, []string{"move tenant_acme to worker-2.internal:5432 auto, superuser on"}) {
		t.Errorf("Citus has been called: %q", got)
	}
	event := lines(t, s.conn, "SELECT actor || ' ' || detail FROM docex_system.tenant_event WHERE verb = 'citus_move'")
	if !slices.Equal(event, []string{`admin {"node": "worker-2.internal:5432", "server": "eu"}`}) {
		t.Errorf("the audit trail has %q", event)
	}
	s.create(t, "home")
	for _, r := range []provision.CitusMoveRequest{{ID: "acme", Node: "worker-2"}, {ID: "acme", Node: ":5432"}, {ID: "acme", Node: "worker-2:port"}, {ID: "home", Node: "worker-2:5432"}} {
		if _, err := p.MoveWithinCitus(t.Context(), r); !isInvalid(err) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []provision.MoveRequest{{ID: "acme", To: "main"}, {ID: "home", To: "eu"}} {
		if _, err := p.MoveTenant(t.Context(), r); !isInvalid(err) || !strings.Contains(err.Error(), `server "eu" is marked as Citus`) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := s.CreateTenant(t.Context(), shared(t, "plain")); err != nil { // by one who does not know that it is Citus
		t.Fatal(err)
	}
	if _, err := p.MoveWithinCitus(t.Context(), provision.CitusMoveRequest{ID: "plain", Node: "worker-2:5432"}); err == nil || !strings.Contains(err.Error(), "not a distributed schema") {
		t.Errorf("got %v", err)
	}
}

func creating(t *testing.T, p *provision.Provisioner, r provision.TenantRequest) error {
	_, err := p.CreateTenant(t.Context(), r)
	return err
}

func TestTheRegistrysServerCanBeCitus(t *testing.T) {
	s := newInitialisedSite(t)
	var shown []string
	p := func(dsn string) *provision.Provisioner {
		return provision.New(provision.Options{DSN: dsn, Key: s.key, Citus: []string{"main"}})
	}
	request := provision.TenantRequest{ID: "acme", Template: smallTemplate(t)}
	if err := creating(t, p(s.dsn), request); !isConflict(err) {
		t.Errorf("without Citus: %v", err)
	}
	execute(t, s.conn, citusContract)
	s.provisioner(t, "") // who is no superuser
	if err := creating(t, p(s.login(t, "provisioner", "secret")), request); !isConflict(err) || !strings.Contains(err.Error(), `a superuser, which role "provisioner" is not`) {
		t.Errorf("without a superuser: %v", err)
	}
	dry := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Citus: []string{"main"}, DryRun: func(sql string) { shown = append(shown, sql) }})
	if err := creating(t, dry, request); err != nil || !slices.Contains(shown, `SELECT citus_schema_distribute('"tenant_acme"'::regnamespace);`) {
		t.Errorf("a dry run shows %q, %v", shown, err)
	}
	if err := creating(t, p(s.dsn), request); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, s.conn, citusCalls); !slices.Equal(got, []string{"distribute tenant_acme" + distribute + "tenant_acme" + complete}) {
		t.Errorf("Citus has been called: %q", got)
	}
	before := s.snapshot(t)
	request.ID = "full"
	if err := creating(t, p(s.dsn), request); err == nil || !strings.Contains(err.Error(), "could not find any worker nodes") {
		t.Errorf("got %v", err)
	}
	equal(t, before, s.snapshot(t))
}
