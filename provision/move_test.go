package provision_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
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

var movedLevels = []registry.Isolation{registry.IsolationDatabase, registry.IsolationRole}

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

// killMove ends a request after a step as the end of the process would.
func (s *movingSite) killMove(t *testing.T, step string, run func(*provision.Provisioner) error) {
	t.Helper()
	var group sync.WaitGroup
	completed := false
	var err error
	group.Go(func() {
		p := s.reaching(s.key, s.eu.DSN("postgres"))
		p.AfterStep(func(done string) error {
			if done == step {
				runtime.Goexit()
			}
			return nil
		})
		err = run(p)
		completed = true
	})
	group.Wait()
	if completed {
		t.Fatalf("the run has not been ended after %q: %v", step, err)
	}
}

func (s *movingSite) killedMove(t *testing.T, step string, id registry.TenantID, to string) {
	t.Helper()
	s.killMove(t, step, func(p *provision.Provisioner) error {
		_, err := p.MoveTenant(context.WithoutCancel(t.Context()), provision.MoveRequest{ID: id, To: to})
		return err
	})
	if open := s.opens(t, id); len(open) > 1 {
		t.Errorf("after %q the tenant gets in on %q", step, open)
	}
}

// createSmall makes a tenant with few tables, which is moved fast.
func (s *movingSite) createSmall(t *testing.T, id registry.TenantID, level registry.Isolation) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "0001_small.sql"), []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	template, err := provision.LoadTemplate(dir)
	if err == nil {
		_, err = s.CreateTenant(t.Context(), provision.TenantRequest{ID: id, Isolation: level, Template: template})
	}
	if err != nil {
		t.Fatal(err)
	}
}

const small = `
CREATE TABLE notes (id bigserial PRIMARY KEY, body text);
CREATE TABLE heap (word text);
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.body := upper(NEW.body); RETURN NEW; END';
CREATE TRIGGER shout BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION shout();
ALTER TABLE notes ENABLE ALWAYS TRIGGER shout;
INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 100) AS n;
UPDATE notes SET body = 'quiet' WHERE id = 7;
INSERT INTO heap VALUES ('a'), ('a'), ('b');`

// smallContents is what such a tenant sees.
func smallContents(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	return strings.Join(lines(t, conn, `
SELECT 'notes ' || count(*) || ' ' || md5(string_agg(n::text, ',' ORDER BY id)) FROM notes AS n
UNION ALL SELECT 'heap ' || string_agg(word, ',' ORDER BY word) FROM heap
UNION ALL SELECT 'sequence ' || last_value || is_called FROM notes_id_seq
UNION ALL SELECT 'trigger ' || tgname || tgenabled::text FROM pg_trigger WHERE tgrelid = 'notes'::regclass
UNION ALL SELECT 'identity ' || relname || relreplident::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
ORDER BY 1`), "\n")
}

func TestAMoveThatIsKilledAfterEveryStepGoesOn(t *testing.T) {
	for _, level := range movedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			s.createSmall(t, "acme", level)
			before := smallContents(t, s.on(t, "acme"))
			for _, name := range append([]string{"write the move down"}, provision.MoveStepNames()...) { // each run comes one step further
				s.killedMove(t, name, "acme", "eu")
				r := s.route(t, "acme")
				flipped := name == "change the route" || name == "tidy up"
				if (r.Server == "eu") != flipped {
					t.Errorf("after %q the route leads to %q", name, r.Server)
				}
				if open := s.opens(t, "acme"); r.Status == registry.StatusActive && !slices.Equal(open, []string{r.Server}) {
					t.Errorf("after %q the tenant is active on %q and open on %q", name, r.Server, open)
				}
			}
			s.move(t, "acme", "eu")
			if open := s.opens(t, "acme"); !slices.Equal(open, []string{"eu"}) {
				t.Errorf("open on %q", open)
			}
			equal(t, before, smallContents(t, s.on(t, "acme")))
			for _, name := range []string{"tidy up before the end", "begin to finish", "drop the old copy"} {
				s.killMove(t, name, func(p *provision.Provisioner) error {
					_, err := p.FinishMove(context.WithoutCancel(t.Context()), provision.MoveRequest{ID: "acme"})
					return err
				})
			}
			if _, err := s.FinishMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
				t.Fatal(err)
			}
			s.leavesNothing(t, "main", "acme")
		})
	}
}

func TestAMoveThatIsKilledAtAnyStepCanBeTakenBack(t *testing.T) {
	names := provision.MoveStepNames()
	names = names[:slices.Index(names, "change the route")]
	for level, names := range map[registry.Isolation][]string{
		registry.IsolationDatabase: names,
		registry.IsolationRole:     {"prepare the new server", "begin to copy", "subscribe", "compare", "open the new server"},
	} {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			s.createSmall(t, "acme", level)
			before := smallContents(t, s.on(t, "acme"))
			for _, name := range names {
				t.Run(name, func(t *testing.T) {
					s.killedMove(t, name, "acme", "eu")
					if _, err := s.AbortMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
						t.Fatal(err)
					}
					s.takenBack(t, before)
				})
			}
		})
	}
}

func TestAnAbortThatIsKilledAfterEveryStepGoesOn(t *testing.T) {
	for _, level := range movedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			s.createSmall(t, "acme", level)
			before := smallContents(t, s.on(t, "acme"))
			s.killedMove(t, "open the new server", "acme", "eu")
			for _, name := range provision.AbortStepNames()[:6] {
				s.killMove(t, name, func(p *provision.Provisioner) error {
					_, err := p.AbortMove(context.WithoutCancel(t.Context()), provision.MoveRequest{ID: "acme"})
					return err
				})
				if open := s.opens(t, "acme"); len(open) > 1 {
					t.Errorf("after %q the tenant gets in on %q", name, open)
				}
				if _, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "eu"}); !isConflict(err) {
					t.Errorf("after %q the move goes on: %v", name, err)
				}
			}
			if _, err := s.AbortMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
				t.Fatal(err)
			}
			s.takenBack(t, before)
		})
	}
}

func (s *movingSite) takenBack(t *testing.T, before string) {
	t.Helper()
	r := s.route(t, "acme")
	if r.Server != "main" || r.Status != registry.StatusActive {
		t.Errorf("the route is %+v", r)
	}
	if open := s.opens(t, "acme"); !slices.Equal(open, []string{"main"}) {
		t.Errorf("open on %q", open)
	}
	equal(t, before, smallContents(t, s.on(t, "acme")))
	s.leavesNothing(t, "eu", "acme")
	if left := lines(t, s.conn, `SELECT slot_name::text FROM pg_replication_slots UNION ALL SELECT rolname FROM pg_roles WHERE rolname ~ '^docex_move'`); len(left) > 0 {
		t.Errorf("the old server has %q", left)
	}
	inside := connect(t, in(t, r.Database, s.dsn))
	if left := lines(t, inside, "SELECT pubname::text FROM pg_publication"); len(left) > 0 {
		t.Errorf("the old server publishes %q", left)
	}
}

// writer writes numbered rows as the tenant, one by one, wherever the registry says it is, until it is told to stop. What it
// got an answer for is in its log.
type writer struct {
	site *movingSite
	stop chan struct{}
	done chan struct{}
	log  []int
	gap  time.Duration // the longest between two answers
}

func (s *movingSite) write(t *testing.T, id registry.TenantID) *writer {
	w := &writer{site: s, stop: make(chan struct{}), done: make(chan struct{})}
	store := s.store(t)
	ctx := context.WithoutCancel(t.Context())
	go func() {
		defer close(w.done)
		var conn *pgx.Conn
		last := time.Now()
		for n := 1; ; n++ {
			for {
				select {
				case <-w.stop:
					if conn != nil {
						_ = conn.Close(ctx)
					}
					return
				default:
				}
				if conn == nil || conn.IsClosed() {
					tenant, err := store.Tenant(ctx, id)
					if err != nil || tenant.Route.Status != registry.StatusActive {
						time.Sleep(time.Millisecond)
						continue
					}
					if conn, err = pgx.Connect(ctx, s.address(t, tenant.Route.Server, *tenant.Route)); err != nil {
						continue
					}
				}
				// A row that has been committed without an answer is not written twice.
				if _, err := conn.Exec(ctx, "INSERT INTO journal VALUES ($1) ON CONFLICT DO NOTHING", n); err == nil {
					break
				}
				_ = conn.Close(ctx)
			}
			w.log = append(w.log, n)
			w.gap = max(w.gap, time.Since(last))
			last = time.Now()
		}
	}()
	return w
}

// ends stops the writer and demands that every row that it got an answer for is there.
func (w *writer) ends(t *testing.T, id registry.TenantID) {
	t.Helper()
	close(w.stop)
	<-w.done
	var missing []int
	rows, err := w.site.on(t, id).Query(t.Context(), "SELECT n FROM unnest($1::int[]) AS n WHERE NOT EXISTS (SELECT FROM journal WHERE id = n)", w.log)
	if err == nil {
		missing, err = pgx.CollectRows(rows, pgx.RowTo[int])
	}
	if err != nil || len(missing) > 0 || len(w.log) == 0 {
		t.Errorf("of %d rows %v are missing (%v)", len(w.log), missing, err)
	}
	t.Logf("%d rows, the longest gap is %v", len(w.log), w.gap)
}

func TestNothingThatIsWrittenWhileATenantMovesIsLost(t *testing.T) {
	for _, level := range movedLevels {
		t.Run(string(level), func(t *testing.T) {
			s := newMovingSite(t)
			s.createHere(t, "acme", level)
			execute(t, s.on(t, "acme"), "CREATE TABLE journal (id integer PRIMARY KEY)")
			w := s.write(t, "acme")
			for _, to := range []string{"eu", "main", "eu"} {
				result := s.move(t, "acme", to)
				t.Logf("held for %v", result.Held)
			}
			w.ends(t, "acme")
		})
	}
}

func TestNothingIsLostWhenAMoveIsKilledWhileTheTenantWrites(t *testing.T) {
	s := newMovingSite(t)
	s.createHere(t, "acme", registry.IsolationDatabase)
	execute(t, s.on(t, "acme"), "CREATE TABLE journal (id integer PRIMARY KEY)")
	w := s.write(t, "acme")
	to := "eu"
	for _, name := range []string{"subscribe", "hold the tenant", "wait for running transactions", "end the subscription", "open the new server", "change the route"} {
		s.killedMove(t, name, "acme", to)
		s.move(t, "acme", to)
		to = map[string]string{"eu": "main", "main": "eu"}[to]
	}
	w.ends(t, "acme")
}

func TestATransactionThatDoesNotEndLetsTheTenantGoOnWhereItWas(t *testing.T) {
	s := newMovingSite(t)
	s.createHere(t, "acme", registry.IsolationDatabase)
	conn := s.on(t, "acme")
	execute(t, conn, "CREATE TABLE notes (id integer PRIMARY KEY)")
	request := provision.MoveRequest{ID: "acme", To: "eu", Hold: 300 * time.Millisecond}
	held := make(chan struct{})
	s.AfterStep(func(done string) error {
		if done == "get ready" {
			execute(t, conn, "BEGIN; INSERT INTO notes VALUES (1)")
			close(held)
		}
		return nil
	})
	_, err := s.MoveTenant(t.Context(), request)
	<-held
	s.AfterStep(nil)
	if _, ok := errors.AsType[*provision.ConflictError](err); !ok || !strings.Contains(err.Error(), "try again") {
		t.Fatalf("got %v", err)
	}
	if r := s.route(t, "acme"); r.Status != registry.StatusActive || r.Server != "main" {
		t.Errorf("the route is %+v", r)
	}
	execute(t, conn, "COMMIT")
	execute(t, s.on(t, "acme"), "INSERT INTO notes VALUES (2)")
	if _, err := s.MoveTenant(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, s.on(t, "acme"), "SELECT id::text FROM notes ORDER BY id"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("moved %q", got)
	}
}

func TestRowsThatDifferAndTablesThatChangeEndAMove(t *testing.T) {
	for name, spoil := range map[string]func(s *movingSite, t *testing.T){
		"other rows": func(s *movingSite, t *testing.T) {
			execute(t, connect(t, s.eu.DSN("tenant_acme")), "UPDATE tenant_acme.notes SET body = 'other'")
		},
		"more rows": func(s *movingSite, t *testing.T) {
			execute(t, connect(t, s.eu.DSN("tenant_acme")), "INSERT INTO tenant_acme.notes VALUES (9, 'more')")
		},
		"another table": func(s *movingSite, t *testing.T) { execute(t, s.on(t, "acme"), "CREATE TABLE late ()") },
		"another index": func(s *movingSite, t *testing.T) { execute(t, s.on(t, "acme"), "CREATE INDEX ON notes (body)") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newMovingSite(t)
			s.createHere(t, "acme", registry.IsolationDatabase)
			execute(t, s.on(t, "acme"), "CREATE TABLE notes (id integer PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'mine')")
			s.AfterStep(func(done string) error {
				if done == "get ready" {
					spoil(s, t)
				}
				return nil
			})
			_, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "eu"})
			if _, ok := errors.AsType[*provision.ConflictError](err); !ok {
				t.Errorf("got %v", err)
			}
			s.AfterStep(nil)
			if open := s.opens(t, "acme"); !slices.Equal(open, []string{"main"}) {
				t.Errorf("open on %q", open)
			}
			if _, err := s.AbortMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
				t.Fatal(err)
			}
			s.leavesNothing(t, "eu", "acme")
			s.move(t, "acme", "eu")
			if got := lines(t, s.on(t, "acme"), "SELECT body FROM notes"); !slices.Equal(got, []string{"mine"}) {
				t.Errorf("moved %q", got)
			}
		})
	}
}

func TestATenantThatIsMovedIsNotDeletedAndMovesByOneRunAtATime(t *testing.T) {
	s := newMovingSite(t)
	s.createHere(t, "acme", registry.IsolationDatabase)
	s.killedMove(t, "subscribe", "acme", "eu")
	remove := provision.ChangeRequest{ID: "acme", Transition: provision.Delete}
	for step, run := range map[string]func() error{
		"delete": func() error { _, err := s.ChangeTenant(t.Context(), remove); return err },
		"to main": func() error {
			_, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "main"})
			return err
		},
		"finish": func() error { _, err := s.FinishMove(t.Context(), provision.MoveRequest{ID: "acme"}); return err },
	} {
		if err := run(); !isConflict(err) {
			t.Errorf("%s: %v", step, err)
		}
	}
	entered := make(chan error, 1)
	s.AfterStep(func(done string) error {
		if done == "get ready" {
			_, err := s.reaching(s.key, s.eu.DSN("postgres")).MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "eu"})
			entered <- err
		}
		return nil
	})
	s.move(t, "acme", "eu")
	s.AfterStep(nil)
	if err := <-entered; !isConflict(err) {
		t.Errorf("two at a time: %v", err)
	}
	if _, err := s.ChangeTenant(t.Context(), remove); !isConflict(err) {
		t.Errorf("delete while a copy is kept: %v", err)
	}
	if _, err := s.AbortMove(t.Context(), provision.MoveRequest{ID: "acme"}); !isConflict(err) {
		t.Errorf("abort afterwards: %v", err)
	}
	if result := s.move(t, "acme", "eu"); result.Step != registry.MoveKept { // once more: nothing to do
		t.Errorf("got %+v", result)
	}
	if _, err := s.FinishMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ChangeTenant(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if err := s.PurgeTenant(t.Context(), provision.PurgeRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	s.leavesNothing(t, "eu", "acme")
}

func TestWhatCannotBeMovedIsRefusedBeforeAnythingIsDone(t *testing.T) {
	s := newMovingSite(t)
	for id, sql := range map[registry.TenantID]string{
		"large":    "SELECT lo_create(0)",
		"unlogged": "CREATE UNLOGGED TABLE u ()",
		"json":     "CREATE TABLE j (v json)",
		"granted":  "CREATE TABLE g (); GRANT SELECT ON g TO docex_registry",
	} {
		s.createHere(t, id, registry.IsolationDatabase)
		execute(t, s.on(t, id), sql)
		if _, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: id, To: "eu"}); !isConflict(err) {
			t.Errorf("%s: %v", id, err)
		}
		s.leavesNothing(t, "eu", id)
		if _, err := s.AbortMove(t.Context(), provision.MoveRequest{ID: id}); !isConflict(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	s.createHere(t, "shared", registry.IsolationSlot)
	s.createHere(t, "acme", registry.IsolationDatabase)
	again := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Servers: map[string]string{"twin": s.dsn}})
	for name, run := range map[string]func() error{
		"slot": func() error {
			_, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "shared", To: "eu"})
			return err
		},
		"unknown server": func() error {
			_, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "us"})
			return err
		},
		"no server": func() error { _, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme"}); return err },
		"itself": func() error {
			_, err := again.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "twin"})
			return err
		},
	} {
		if _, ok := errors.AsType[*provision.InvalidRequestError](run()); !ok {
			t.Errorf("%s: %v", name, run())
		}
	}
	if _, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "main"}); !isConflict(err) {
		t.Errorf("where it is: %v", err)
	}
	if _, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "nobody", To: "eu"}); !errors.Is(err, provision.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	execute(t, connect(t, s.eu.DSN("postgres")), "CREATE ROLE tenant_acme")
	if _, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "eu"}); !isConflict(err) {
		t.Errorf("a role that is there: %v", err)
	}
	if _, err := s.AbortMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
		t.Error(err)
	}
	if got := s.remains(t); !slices.Equal(got, []string{"tenant_acme"}) {
		t.Errorf("there is %q", got)
	}
}
