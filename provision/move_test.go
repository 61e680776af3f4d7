package provision_test

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// movingSite is two servers, and cleans up what an unfinished move leaves there.
type movingSite struct{ *twoServers }

func newMovingSite(t *testing.T) *movingSite {
	t.Helper()
	s := &movingSite{newTwoServers(t)}
	t.Cleanup(func() {
		for _, maintenance := range []string{s.dsn, s.eu.DSN("postgres")} {
			dropReplication(t, maintenance)
		}
	})
	return s
}

// dropReplication drops the subscriptions and slots of a cluster: no database with one can be dropped.
func dropReplication(t *testing.T, maintenance string) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, maintenance)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, _ := conn.Query(ctx, `SELECT datname || ' ' || subname FROM pg_subscription JOIN pg_database AS d ON d.oid = subdbid`)
	subscriptions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range subscriptions {
		database, name, _ := strings.Cut(line, " ")
		inside, err := pgx.Connect(ctx, in(t, database, maintenance))
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"ALTER SUBSCRIPTION " + name + " DISABLE", "ALTER SUBSCRIPTION " + name + " SET (slot_name = NONE)", "DROP SUBSCRIPTION " + name} {
			if _, err := inside.Exec(ctx, sql); err != nil {
				t.Error(sql, err)
			}
		}
		inside.Close(ctx)
	}
	for range 100 {
		_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL;
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
		if err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("slots are left:", err)
}

func (s *movingSite) createHere(t *testing.T, id registry.TenantID, level registry.Isolation) *registry.Tenant {
	t.Helper()
	return s.createAt(t, id, level)
}

// route is what the registry says.
func (s *movingSite) route(t *testing.T, id registry.TenantID) registry.Route {
	t.Helper()
	tenant, err := s.store(t).Tenant(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return *tenant.Route
}

// address is the DSN with which the tenant's role logs in on a server.
func (s *movingSite) address(t testing.TB, server string, r registry.Route) string {
	t.Helper()
	base := s.dsn
	if server == "eu" {
		base = s.eu.DSN("postgres")
	}
	dsn, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	dsn.User, dsn.Path = url.UserPassword(r.Role, s.key.Password(r.Role, r.SecretGeneration)), "/"+r.Database
	return dsn.String()
}

// on connects as the tenant to the server that its route leads to.
func (s *movingSite) on(t *testing.T, id registry.TenantID) *pgx.Conn {
	t.Helper()
	r := s.route(t, id)
	return connect(t, s.address(t, r.Server, r))
}

// opens reports on which of the servers the tenant gets in.
func (s *movingSite) opens(t *testing.T, id registry.TenantID) (open []string) {
	t.Helper()
	for _, server := range []string{"main", "eu"} {
		conn, err := pgx.Connect(t.Context(), s.address(t, server, s.route(t, id)))
		if err == nil {
			open = append(open, server)
			_ = conn.Close(t.Context())
		}
	}
	return open
}

func (s *movingSite) move(t *testing.T, id registry.TenantID, to string) provision.MoveResult {
	t.Helper()
	result, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: id, To: to, Verify: provision.CompareFull})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// furniture is what a tenant may have made beside DocEX's tables.
const furniture = `
CREATE TABLE notes (id bigserial PRIMARY KEY, body text, at timestamptz DEFAULT now());
CREATE TABLE heap (word text, n integer);
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE FUNCTION positive(n integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n > 0';
CREATE TABLE moods (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, n integer CHECK (positive(n)), twice integer GENERATED ALWAYS AS (n * 2) STORED);
CREATE INDEX ON notes (lower(body));
CREATE TABLE parts (k integer, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE TABLE audit (id bigserial PRIMARY KEY, what text);
CREATE FUNCTION log_note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit (what) VALUES (NEW.body); RETURN NEW; END';
CREATE TRIGGER noted AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION log_note();
ALTER TABLE notes ENABLE ALWAYS TRIGGER noted;
CREATE MATERIALIZED VIEW words AS SELECT word, sum(n) AS n FROM heap GROUP BY word;
CREATE VIEW loud AS SELECT upper(body) AS body FROM notes;
GRANT SELECT ON loud TO PUBLIC;
INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 500) AS n;
INSERT INTO heap SELECT 'word ' || n % 7, n FROM generate_series(1, 100) AS n;
INSERT INTO moods (m, n) VALUES ('happy', 3);
INSERT INTO parts SELECT n, 'part' FROM generate_series(0, 199) AS n;
REFRESH MATERIALIZED VIEW words;
UPDATE heap SET n = 0 WHERE n = 1;`

// contents is what a tenant sees of its furniture.
func contents(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	return strings.Join(lines(t, conn, `
SELECT 'notes ' || count(*) || ' ' || max(id) || ' ' || md5(string_agg(n::text, ',' ORDER BY id)) FROM notes AS n
UNION ALL SELECT 'heap ' || md5(string_agg(h::text, ',' ORDER BY h::text)) FROM heap AS h
UNION ALL SELECT 'moods ' || md5(string_agg(m::text, ',' ORDER BY id)) FROM moods AS m
UNION ALL SELECT 'parts ' || md5(string_agg(p::text, ',' ORDER BY k)) FROM parts AS p
UNION ALL SELECT 'audit ' || md5(string_agg(a::text, ',' ORDER BY id)) FROM audit AS a
UNION ALL SELECT 'words ' || count(*) FROM words
UNION ALL SELECT 'loud ' || count(*) FROM loud
UNION ALL SELECT 'sequence ' || last_value || is_called FROM notes_id_seq
UNION ALL SELECT 'trigger ' || tgname || tgenabled::text FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT 'identity ' || relname || relreplident::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
UNION ALL SELECT 'grant ' || relname || relacl::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relacl IS NOT NULL
UNION ALL SELECT 'owner ' || relname || relowner::regrole::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace
UNION ALL SELECT 'comment ' || count(*) FROM pg_shdescription
UNION ALL SELECT 'path ' || current_setting('search_path')
ORDER BY 1`), "\n")
}

var (
	movedLevels = []registry.Isolation{registry.IsolationDatabase, registry.IsolationRole, registry.IsolationSlot}
	// killedLevels are those of which one is moved as a database and the other as a schema; a slot takes all that a role does.
	killedLevels = []registry.Isolation{registry.IsolationDatabase, registry.IsolationSlot}
)

func TestATenantMovesToAnotherServerAndBack(t *testing.T) {
	for _, level := range movedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			tenant := s.createHere(t, "acme", level)
			other := s.createHere(t, "globex", level)
			conn := s.on(t, "acme")
			execute(t, conn, furniture)
			execute(t, conn, "ALTER ROLE tenant_acme SET work_mem = '7MB'")
			compareCatalogs := contents(t, conn)
			for i, to := range []string{"eu", "main", "eu"} {
				result := s.move(t, "acme", to)
				if result.To != to || result.Step != registry.MoveKept || result.Tables < 15 || result.Tables != result.Summed || result.Rows < 1000 ||
					result.Held <= 0 || result.KeptUntil.Before(time.Now().Add(23*time.Hour)) {
					t.Errorf("%d: got %+v", i, result)
				}
				r := s.route(t, "acme")
				if r.Server != to || r.Status != registry.StatusActive || r.Role != tenant.Route.Role || r.Database != tenant.Route.Database {
					t.Errorf("%d: the route is %+v", i, r)
				}
				if open := s.opens(t, "acme"); !slices.Equal(open, []string{to}) {
					t.Errorf("%d: open on %q", i, open)
				}
				there := s.on(t, "acme")
				equal(t, compareCatalogs, contents(t, there))
				execute(t, there, "INSERT INTO notes (body) VALUES ('after'); DELETE FROM notes WHERE body = 'after'; DELETE FROM audit WHERE what = 'after'")
				if got := lines(t, there, "SHOW work_mem"); got[0] != "7MB" {
					t.Errorf("%d: work_mem is %s", i, got)
				}
				compareCatalogs = contents(t, there)
			}
			if open := s.opens(t, "globex"); !slices.Equal(open, []string{other.Route.Server}) {
				t.Errorf("the other tenant is open on %q", open)
			}
			if findings, err := s.VerifyTenants(t.Context(), provision.VerifyRequest{IDs: []registry.TenantID{"acme"}, Key: &s.key}); err != nil || len(findings) > 0 {
				t.Errorf("found %+v, %v", findings, err)
			}
			if _, err := s.FinishMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
				t.Fatal(err)
			}
			s.leavesNothing(t, "main", "acme")
			if got := lines(t, connect(t, s.eu.DSN("postgres")), `SELECT rolname::text FROM pg_roles WHERE rolname ~ '^docex_move'`); len(got) > 0 {
				t.Errorf("there is %q", got)
			}
			events := lines(t, s.conn, `SELECT verb FROM docex_system.tenant_event WHERE tenant_id = 'acme' ORDER BY id`)
			want := []string{"create", "move", "move_hold", "move_flip", "move_finish", "move", "move_hold", "move_flip", "move_finish", "move", "move_hold", "move_flip", "move_finish"}
			if !slices.Equal(events, want) {
				t.Errorf("the audit trail has %q", events)
			}
		})
	}
}

// leavesNothing demands that a server has nothing of a tenant, nor of a move.
func (s *movingSite) leavesNothing(t *testing.T, server string, id registry.TenantID) {
	t.Helper()
	dsn := s.dsn
	if server == "eu" {
		dsn = s.eu.DSN("postgres")
	}
	conn := connect(t, dsn)
	left := lines(t, conn, `
SELECT 'role ' || rolname FROM pg_roles WHERE rolname = 'tenant_' || $1 OR rolname ~ '^docex_move'
UNION ALL SELECT 'database ' || datname FROM pg_database WHERE datname = 'tenant_' || $1
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'tenant_' || $1
UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'comment ' || description FROM pg_shdescription WHERE description ~ 'docex'`, string(id))
	if len(left) > 0 {
		t.Errorf("server %s has %q", server, left)
	}
}

func TestATenantMovesBetweenHardenedDatabases(t *testing.T) {
	for _, level := range killedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			if _, err := s.Init(t.Context(), provision.InitRequest{Harden: provision.HardenLight}); err != nil {
				t.Fatal(err)
			}
			s.createSmall(t, "acme", level)
			before := smallContents(t, s.on(t, "acme"))
			for _, to := range []string{"eu", "main"} {
				s.move(t, "acme", to)
				conn := s.on(t, "acme")
				equal(t, before, smallContents(t, conn))
				refused(t, conn, "42501", "SELECT FROM pg_stat_activity")
			}
		})
	}
}
