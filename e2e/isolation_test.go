package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// secret is what acme must never see.
const secret = "GLOBEX-SECRET"

// victim makes globex own something worth having, and returns a session of it whose server connection has the
// process id pid.
func (s *site) victim(t *testing.T) (conn *pgx.Conn, pid, largeObject string) {
	t.Helper()
	conn = s.proxy.connect(t, s.tenant(t, "globex"))
	execute(t, conn,
		"DROP TABLE IF EXISTS canary; CREATE TABLE canary (id serial PRIMARY KEY, secret text)",
		"INSERT INTO canary (secret) VALUES ('"+secret+"')",
		"CREATE OR REPLACE FUNCTION owned() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT secret FROM tenant_globex.canary'")
	largeObject = query(t, conn, "SELECT lo_from_bytea(0, '"+secret+"')")
	return conn, occupy(t, conn), largeObject
}

// attacks are statements of acme against globex ($PID, $LO), the registry and the server, each with the SQLSTATE that
// it has to fail with.
var attacks = []struct{ sentence, sql, want string }{
	{"reads a table of another tenant", "SELECT * FROM tenant_globex.canary", "42501"},
	{"reads a DocEX table of another tenant", "SELECT * FROM tenant_globex.docbasket", "42501"},
	{"writes into another tenant", "INSERT INTO tenant_globex.canary (secret) VALUES ('x')", "42501"},
	{"updates another tenant", "UPDATE tenant_globex.canary SET secret = 'x'", "42501"},
	{"deletes from another tenant", "DELETE FROM tenant_globex.canary", "42501"},
	{"truncates a table of another tenant", "TRUNCATE tenant_globex.canary", "42501"},
	{"locks a table of another tenant", "BEGIN; LOCK TABLE tenant_globex.canary", "42501"},
	{"drops a table of another tenant", "DROP TABLE tenant_globex.canary", "42501"},
	{"creates a table in another tenant", "CREATE TABLE tenant_globex.mine (x int)", "42501"},
	{"copies a table of another tenant out", "COPY tenant_globex.canary TO STDOUT", "42501"},
	{"calls a function of another tenant", "SELECT tenant_globex.owned()", "42501"},
	{"makes a view of another tenant's table", "CREATE VIEW spy AS SELECT * FROM tenant_globex.canary", "42501"},
	{"inherits from another tenant's table", "CREATE TABLE spy () INHERITS (tenant_globex.canary)", "42501"},
	{"refers to another tenant's table", "CREATE TABLE spy (id int REFERENCES tenant_globex.canary)", "42501"},
	{"reads another tenant through XML", "SELECT query_to_xml('SELECT * FROM tenant_globex.canary', true, false, '')", "42501"},
	{"reads another tenant through ts_stat", "SELECT * FROM ts_stat('SELECT to_tsvector(secret) FROM tenant_globex.canary')", "42501"},
	{"sets a sequence of another tenant by its OID", `SELECT setval((SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE nspname = 'tenant_globex' AND relname = 'canary_id_seq')::regclass, 1000)`, "42501"},
	{"reads a large object of another tenant", "SELECT lo_get($LO)", "42501"},
	{"unlinks a large object of another tenant", "SELECT lo_unlink($LO)", "42501"},

	{"walks over by SET search_path", "SET search_path = tenant_globex; SELECT * FROM canary", "42P01"},
	{"walks over by set_config", "SELECT set_config('search_path', 'tenant_globex', false); SELECT * FROM canary", "42P01"},
	{"walks over by pg_settings", "UPDATE pg_settings SET setting = 'tenant_globex' WHERE name = 'search_path'; SELECT * FROM canary", "42P01"},
	{"walks over by a function's search_path", `CREATE FUNCTION pg_temp.spy() RETURNS SETOF text LANGUAGE plpgsql SET search_path = tenant_globex
		AS 'BEGIN RETURN QUERY SELECT secret FROM canary; END'; SELECT pg_temp.spy()`, "42P01"},

	{"becomes another tenant", "SET ROLE tenant_globex", "42501"},
	{"becomes another tenant for a transaction", "BEGIN; SET LOCAL ROLE tenant_globex", "42501"},
	{"becomes another tenant by set_config", "SELECT set_config('role', 'tenant_globex', false)", "42501"},
	{"becomes another tenant in a DO block", "DO $$BEGIN EXECUTE 'SET ROLE tenant_globex'; END$$", "42501"},
	{"becomes another tenant in a function", "CREATE FUNCTION pg_temp.spy() RETURNS int LANGUAGE sql SET role = tenant_globex AS 'SELECT 1'; SELECT pg_temp.spy()", "42501"},
	{"goes back to a role before its own", "RESET ROLE; SELECT * FROM tenant_globex.canary", "42501"},
	{"is no role at all", "SET ROLE NONE; SELECT * FROM tenant_globex.canary", "42501"},
	{"becomes the owner of all schemas", "SET ROLE docex_owner", "42501"},
	{"becomes the superuser", "SET ROLE postgres", "42501"},
	{"takes another tenant's session", "SET SESSION AUTHORIZATION tenant_globex", "42501"},
	{"takes the superuser's session", "SET SESSION AUTHORIZATION postgres", "42501"},
	{"resets its session's authorization", "RESET SESSION AUTHORIZATION; SELECT * FROM tenant_globex.canary", "42501"},
	{"grants itself another tenant", "GRANT tenant_globex TO tenant_acme", "42501"},
	{"sets another tenant's password", "ALTER ROLE tenant_globex PASSWORD 'x'", "42501"},
	{"takes what another tenant owns", "REASSIGN OWNED BY tenant_globex TO tenant_acme", "42501"},
	{"drops what another tenant owns", "DROP OWNED BY tenant_globex", "42501"},
	{"sets another tenant's default privileges", "ALTER DEFAULT PRIVILEGES FOR ROLE tenant_globex GRANT SELECT ON TABLES TO tenant_acme", "42501"},

	{"reads the registry", "SELECT * FROM docex_system.tenant_registry", "42501"},
	{"reads the routes", "SELECT * FROM docex_system.tenant_route", "42501"},
	{"reads the logins' verifiers", "SELECT * FROM docex_system.proxy_login", "42501"},
	{"reads the system tenant's documents", "SELECT * FROM docex_system.docbasket", "42501"},
	{"resumes a tenant", "UPDATE docex_system.tenant_route SET status = 'active'", "42501"},
	{"reads the roles' verifiers", "SELECT * FROM pg_authid", "42501"},
	{"reads the roles' verifiers in a view", "SELECT * FROM pg_shadow", "42501"},

	{"cancels another tenant's query", "SELECT pg_cancel_backend($PID)", "42501"},
	{"terminates another tenant's session", "SELECT pg_terminate_backend($PID)", "42501"},

	{"drops its own schema", "DROP SCHEMA tenant_acme CASCADE", "42501"},
	{"renames its own schema", "ALTER SCHEMA tenant_acme RENAME TO tenant_other", "42501"},
	{"gives its own schema away", "ALTER SCHEMA tenant_acme OWNER TO tenant_globex", "42501"},
	{"creates a schema", "CREATE SCHEMA mine", "42501"},
	{"creates a table in public", "CREATE TABLE public.mine (x int)", "42501"},
	{"creates a table in ext", "CREATE TABLE ext.mine (x int)", "42501"},
	{"creates a table in the registry", "CREATE TABLE docex_system.mine (x int)", "42501"},
	{"creates an extension", "CREATE EXTENSION hstore", "42501"},
	{"creates a role", "CREATE ROLE mine", "42501"},
	{"creates a database", "CREATE DATABASE mine", "42501"},
	{"creates a publication", "CREATE PUBLICATION mine FOR ALL TABLES", "42501"},
	{"creates a subscription", "CREATE SUBSCRIPTION mine CONNECTION 'host=127.0.0.1' PUBLICATION x WITH (connect = false)", "42501"},
	{"creates an event trigger", "CREATE FUNCTION pg_temp.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION pg_temp.e()", "42501"},
	{"creates a cast between types that are not its own", "CREATE CAST (text AS int) WITH INOUT AS IMPLICIT", "42501"},
	{"creates a function in C", "CREATE FUNCTION spy() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'", "42501"},
	{"creates an internal function", "CREATE FUNCTION spy(oid) RETURNS int LANGUAGE internal AS 'pg_backend_pid'", "42501"},
	{"loads a library", "LOAD 'auto_explain'", "42501"},
	{"runs a program", "COPY (SELECT 1) TO PROGRAM 'id'", "42501"},
	{"writes a file", "COPY (SELECT 1) TO '/tmp/mine'", "42501"},
	{"copies a file in", "CREATE TEMP TABLE f (x text); COPY f FROM '/etc/passwd'", "42501"},
	{"reads a file", "SELECT pg_read_file('/etc/passwd')", "42501"},
	{"lists a directory", "SELECT pg_ls_dir('/')", "42501"},
	{"imports a file", "SELECT lo_import('/etc/passwd')", "42501"},
	{"changes the server's configuration", "ALTER SYSTEM SET work_mem = '1GB'", "42501"},
	{"reloads the server", "SELECT pg_reload_conf()", "42501"},
	{"makes triggers sleep", "SET session_replication_role = replica", "42501"},
	{"creates a replication slot", "SELECT pg_create_physical_replication_slot('mine')", "42501"},
}

func TestAHostileTenantGetsNowhere(t *testing.T) {
	s := theSite(t)
	acme := s.tenant(t, "acme")
	globex, pid, largeObject := s.victim(t)
	s.beAttacked(t, acme, globex, pid, largeObject)
}

// TestAHostileTenantOnASlotGetsNowhere is the same where both share the server connections. More is tried, and raced, by
// the program in e2e/isolation.
func TestAHostileTenantOnASlotGetsNowhere(t *testing.T) {
	s := theSite(t)
	acme, victim := s.slotTenant(t, "acme_slot"), s.slotTenant(t, "globex_slot")
	globex := s.proxy.connect(t, victim)
	execute(t, globex, "CREATE TABLE canary (id serial PRIMARY KEY, secret text)", "INSERT INTO canary (secret) VALUES ('"+secret+"')",
		"CREATE FUNCTION owned() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT secret FROM tenant_globex_slot.canary'")
	largeObject := query(t, globex, "SELECT lo_from_bytea(0, '"+secret+"')")
	pid := occupy(t, globex)
	s.beAttacked(t, acme, globex, pid, largeObject, "tenant_acme", acme.schema, "tenant_globex", victim.schema)
}

// slotTenant creates a tenant at level slot.
func (s *site) slotTenant(t *testing.T, id string) account {
	t.Helper()
	var created struct {
		Schema string `json:"schema_name"`
		Login  struct{ Login, Password string }
	}
	s.mustDocexctl(t, &created, "tenant", "create", id, "--display-name", id, "--created-by", "e2e", "--login", id+"_app", "--isolation", "slot")
	return account{tenant: id, login: created.Login.Login, password: created.Login.Password, schema: created.Schema}
}

// beAttacked has acme try everything while globex is in a transaction, on the server connection with the process id pid.
// Where the two are not called acme and globex, renamed is what each name of theirs is, by pairs.
func (s *site) beAttacked(t *testing.T, acme account, globex *pgx.Conn, pid, largeObject string, renamed ...string) {
	t.Helper()
	fill := strings.NewReplacer(append([]string{"$PID", pid, "$LO", largeObject}, renamed...)...)
	for _, attack := range attacks {
		t.Run(attack.sentence, func(t *testing.T) {
			conn := s.proxy.connect(t, acme)
			defer hangUp(conn)
			if got := failure(t, conn, fill.Replace(attack.sql)); got != attack.want {
				t.Errorf("%s: SQLSTATE %q, want %s", attack.sql, got, attack.want)
			}
		})
	}
	expect(t, globex, "SELECT string_agg(secret, ',') FROM canary", secret)
	expect(t, globex, "SELECT convert_from(lo_get("+largeObject+"), 'UTF8')", secret)
	expect(t, globex, "SELECT pg_backend_pid()", pid)
	execute(t, globex, "ROLLBACK")
}

func TestAHostileStartupGetsNowhere(t *testing.T) {
	s := theSite(t)
	acme := s.tenant(t, "acme")
	s.tenant(t, "globex")
	for _, attack := range []struct {
		sentence string
		change   change
		want     string
	}{
		{"asks for another tenant's role", with("role", "tenant_globex"), "42501"},
		{"asks for another tenant's role in options", with("options", "-c role=tenant_globex"), "42501"},
		{"asks for another tenant's role in capitals", with("options", "--ROLE=tenant_globex"), "42501"},
		{"asks for the superuser's session", with("session_authorization", "postgres"), "42501"},
		{"asks for a library", with("options", "-c local_preload_libraries=auto_explain"), "42501"},
		{"asks for a setting of superusers", with("session_replication_role", "replica"), "42501"},
		{"asks for replication", with("replication", "true"), "0A000"},
		{"asks for another database", func(c *pgx.ConnConfig) { c.Database = "template1" }, "3D000"},
		{"puts SQL into a setting's name", with("application_name';DROP TABLE docbasket;--", "x"), "42501"},
	} {
		t.Run(attack.sentence, func(t *testing.T) {
			if refusal := s.proxy.refused(t, acme, attack.change); refusal.Code != attack.want {
				t.Errorf("%s %s, want %s", refusal.Code, refusal.Message, attack.want)
			}
		})
	}
	for _, value := range []string{"'; DROP TABLE docbasket; --", `\'; DROP TABLE docbasket; --`, "x\\"} {
		conn := s.proxy.connect(t, acme, with("application_name", value))
		expect(t, conn, "SELECT current_setting('application_name')", value)
		expect(t, conn, "SELECT to_regclass('docbasket')", "docbasket")
	}
}

// TestAHostileFunctionCallGetsNowhere calls set_config by the protocol's own message, which no filter of SQL sees.
func TestAHostileFunctionCallGetsNowhere(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "acme")))
	s.tenant(t, "globex")
	const setConfig = 2078
	w.say(&pgproto3.FunctionCall{Function: setConfig, Arguments: [][]byte{[]byte("role"), []byte("tenant_globex"), []byte("f")}})
	if said := w.answers(1); !strings.Contains(said[0], "ErrorResponse ERROR 42501") {
		t.Errorf("got %q", said)
	}
}

func TestAnotherTenantsQueriesAreNotSeen(t *testing.T) {
	s := theSite(t)
	globex, pid, _ := s.victim(t)
	execute(t, globex, "SELECT '"+secret+"'")
	acme := s.proxy.connect(t, s.tenant(t, "acme"))
	expect(t, acme, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%GLOBEX%' AND usename <> current_user", "0")
	expect(t, acme, "SELECT coalesce(max(query), '<insufficient privilege>') FROM pg_stat_activity WHERE pid = "+pid, "<insufficient privilege>")
	execute(t, globex, "ROLLBACK")
}

func TestAGrantOfItsOwnSchemaGivesNothingAway(t *testing.T) {
	s := theSite(t)
	acme := s.proxy.connect(t, s.tenant(t, "acme"))
	execute(t, acme, "GRANT ALL ON SCHEMA tenant_acme TO PUBLIC", "CREATE TABLE IF NOT EXISTS shared (x int)", "GRANT ALL ON shared TO PUBLIC")
	globex := s.proxy.connect(t, s.tenant(t, "globex"))
	if code := failure(t, globex, "SELECT * FROM tenant_acme.shared"); code != "42501" {
		t.Errorf("SQLSTATE %q", code)
	}
}

func TestWhatATenantSetsOnItsRoleDoesNotLeadItElsewhere(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "rolesetter")
	execute(t, s.proxy.connect(t, a), "ALTER ROLE tenant_rolesetter SET search_path = public; ALTER ROLE tenant_rolesetter IN DATABASE "+database+" SET search_path = public")
	execute(t, s.direct(t), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tenant_rolesetter'")
	eventually(t, patience, "a session on a new server connection", func() bool {
		conn, err := pgx.Connect(bounded(t), s.proxy.dsn(a))
		if err != nil {
			return false
		}
		defer hangUp(conn)
		schema := ""
		if err := conn.QueryRow(bounded(t), "SELECT current_schema()").Scan(&schema); err != nil {
			return false
		}
		if schema != a.schema {
			t.Fatalf("the session is in %q", schema)
		}
		return true
	})
}

// TestNotificationsDoNotCrossTenants: channels belong to the database, so that Postgres alone would let a tenant
// listen to another's.
func TestNotificationsDoNotCrossTenants(t *testing.T) {
	s := theSite(t)
	w := takeOver(t, s.proxy.connect(t, s.tenant(t, "acme")))
	globex := s.proxy.connect(t, s.tenant(t, "globex"))
	w.say(&pgproto3.Query{String: "LISTEN events"})
	w.answers(1)
	execute(t, globex, "SELECT pg_notify('events', '"+secret+"')")
	w.say(&pgproto3.Query{String: "NOTIFY events, 'own'"})
	said := strings.Join(w.answersTo(func(m pgproto3.BackendMessage) bool {
		notification, ok := m.(*pgproto3.NotificationResponse)
		return ok && notification.Payload == "own"
	}), "\n")
	if strings.Contains(said, secret) {
		t.Errorf("another tenant's notification has come:\n%s", said)
	}
}

func TestTenantsThatWriteAtOnceNeverSeeEachOther(t *testing.T) {
	s := theSite(t)
	const clients, rows = 50, 20
	var group sync.WaitGroup
	for _, id := range []string{"writer_a", "writer_b"} {
		a := s.tenant(t, id)
		execute(t, s.proxy.connect(t, a), "CREATE TABLE notes (tenant text, client int, n int)")
		for client := range clients {
			group.Go(func() {
				if err := s.writeNotes(t, a, client, rows); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
	}
	group.Wait()
	for _, id := range []string{"writer_a", "writer_b"} {
		conn := s.proxy.connect(t, s.tenant(t, id))
		expect(t, conn, "SELECT count(*) || ' by ' || string_agg(DISTINCT tenant, ',') FROM notes", fmt.Sprintf("%d by %s", clients*rows, id))
	}
}

// writeNotes writes rows of one client, each in a statement that says where it believes to be.
func (s *site) writeNotes(t *testing.T, a account, client, rows int) error {
	ctx := bounded(t)
	conn, err := pgx.Connect(ctx, s.proxy.dsn(a))
	if err != nil {
		return err
	}
	defer hangUp(conn)
	for n := range rows {
		var tenant string
		err := conn.QueryRow(ctx, "INSERT INTO notes VALUES ($1, $2, $3) RETURNING current_schema() || ' ' || current_user", a.tenant, client, n).Scan(&tenant)
		if err != nil {
			return err
		}
		if want := a.schema + " " + a.schema; tenant != want {
			return fmt.Errorf("in %q, want %q", tenant, want)
		}
		var foreign int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM notes WHERE tenant <> $1", a.tenant).Scan(&foreign); err != nil || foreign > 0 {
			return fmt.Errorf("%d rows of others, %w", foreign, err)
		}
	}
	return nil
}
