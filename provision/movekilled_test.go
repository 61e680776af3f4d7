package provision_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

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
UNION ALL SELECT 'identity ' || relname || relreplident::text FROM pg_class WHERE oid IN ('notes'::regclass, 'heap'::regclass)
ORDER BY 1`), "\n")
}

func TestAMoveThatIsKilledAfterEveryStepGoesOn(t *testing.T) {
	for _, level := range killedLevels {
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

// The steps are those after which there is something more to take back, or somebody else who is let in.
func TestAMoveThatIsKilledCanBeTakenBack(t *testing.T) {
	for level, names := range map[registry.Isolation][]string{
		registry.IsolationDatabase: {"write the move down", "prepare the new server", "copy the structure", "create the slot", "wait for the copy", "hold the tenant", "wait for running transactions", "end the subscription", "open the new server"},
		registry.IsolationSlot:     {"prepare the new server", "subscribe", "compare", "open the new server"},
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
	for _, level := range killedLevels {
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
