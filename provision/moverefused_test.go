package provision_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

func TestATransactionThatDoesNotEndLetsTheTenantGoOnWhereItWas(t *testing.T) {
	s := newMovingSite(t)
	s.createSmall(t, "acme", registry.IsolationDatabase)
	conn := s.on(t, "acme")
	request := provision.MoveRequest{ID: "acme", To: "eu", Hold: 300 * time.Millisecond}
	held := make(chan struct{})
	s.AfterStep(func(done string) error {
		if done == "wait for the changes meanwhile" {
			execute(t, conn, "BEGIN; INSERT INTO notes VALUES (1001)")
			close(held)
		}
		return nil
	})
	_, err := s.MoveTenant(t.Context(), request)
	<-held
	s.AfterStep(nil)
	if _, ok := errors.AsType[*provision.ConflictError](err); !ok || !strings.Contains(err.Error(), "transactions running") {
		t.Fatalf("got %v", err)
	}
	if r := s.route(t, "acme"); r.Status != registry.StatusActive || r.Server != "main" {
		t.Errorf("the route is %+v", r)
	}
	execute(t, conn, "COMMIT")
	execute(t, s.on(t, "acme"), "INSERT INTO notes VALUES (1002)")
	request.Hold = 0 // the default: how long the last change takes to arrive is not what this is about
	if _, err := s.MoveTenant(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, s.on(t, "acme"), "SELECT id::text FROM notes WHERE id > 1000 ORDER BY id"); !slices.Equal(got, []string{"1001", "1002"}) {
		t.Errorf("moved %q", got)
	}
}

func TestRowsThatDifferAndTablesThatChangeEndAMove(t *testing.T) {
	for name, spoil := range map[string]func(s *movingSite, t *testing.T){
		"other rows": func(s *movingSite, t *testing.T) {
			execute(t, connect(t, s.eu.DSN("tenant_acme")), "UPDATE tenant_acme.notes SET body = 'other'")
		},
		"more rows": func(s *movingSite, t *testing.T) {
			execute(t, connect(t, s.eu.DSN("tenant_acme")), "INSERT INTO tenant_acme.notes VALUES (999, 'more')")
		},
		"another table": func(s *movingSite, t *testing.T) { execute(t, s.on(t, "acme"), "CREATE TABLE late ()") },
		"another index": func(s *movingSite, t *testing.T) { execute(t, s.on(t, "acme"), "CREATE INDEX ON notes (body)") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newMovingSite(t)
			s.createSmall(t, "acme", registry.IsolationDatabase)
			before := smallContents(t, s.on(t, "acme"))
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
			equal(t, before, smallContents(t, s.on(t, "acme")))
		})
	}
}

func TestATenantThatIsMovedIsNotDeletedAndMovesByOneRunAtATime(t *testing.T) {
	s := newMovingSite(t)
	s.createSmall(t, "acme", registry.IsolationDatabase)
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
		"cast":     "CREATE TABLE c (); CREATE FUNCTION f(c) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; CREATE CAST (c AS text) WITH FUNCTION f(c)",
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
	s.createHere(t, "shared", registry.IsolationTrusted)
	s.createHere(t, "acme", registry.IsolationDatabase)
	again := provision.New(provision.Options{DSN: s.dsn, Key: s.key, Servers: map[string]string{"twin": s.dsn}})
	for name, run := range map[string]func() error{
		"trusted": func() error {
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

func TestATenantWithASchemaThatHasMovedIsPurgedWhereItIs(t *testing.T) {
	s := newMovingSite(t)
	s.createSmall(t, "acme", registry.IsolationRole)
	s.move(t, "acme", "eu")
	if _, err := s.FinishMove(t.Context(), provision.MoveRequest{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	for _, transition := range []provision.Transition{provision.Delete, provision.Restore, provision.Delete} {
		if _, err := s.with(s.key).ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Transition: transition}); err != nil {
			t.Fatal(err)
		}
	}
	request := provision.PurgeRequest{ID: "acme"}
	if err := s.with(s.key).PurgeTenant(t.Context(), request); !isConflict(err) {
		t.Errorf("by one who does not know the server: %v", err)
	}
	if err := s.PurgeTenant(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	s.leavesNothing(t, "eu", "acme")
	if left := lines(t, connect(t, in(t, s.conn.Config().Database, s.eu.DSN("postgres"))), `SELECT nspname::text FROM pg_namespace WHERE nspname = 'tenant_acme'`); len(left) > 0 {
		t.Errorf("there is %q", left)
	}
}

func TestAServerWithoutLogicalReplicationIsSaidToLackIt(t *testing.T) {
	s := newPrivateSite(t)
	s.createAt(t, "acme", registry.IsolationDatabase)
	s.Provisioner = provision.New(provision.Options{DSN: s.dsn, Key: s.key, Servers: map[string]string{"eu": pgtest.SecondCluster(t).DSN("postgres")}})
	_, err := s.MoveTenant(t.Context(), provision.MoveRequest{ID: "acme", To: "eu"})
	if _, ok := errors.AsType[*provision.InvalidRequestError](err); !ok || !strings.Contains(err.Error(), "set wal_level = logical") {
		t.Errorf("got %v", err)
	}
}

func TestAnInterruptWhileTheTenantIsHeldLetsItGoOn(t *testing.T) {
	s := newMovingSite(t)
	s.createSmall(t, "acme", registry.IsolationDatabase)
	for _, step := range []string{"close the old server", "wait for the last change", "compare", "end the subscription"} {
		ctx, cancel := context.WithCancel(t.Context())
		s.AfterStep(func(done string) error {
			if done == step {
				cancel()
				return ctx.Err()
			}
			return nil
		})
		_, err := s.MoveTenant(ctx, provision.MoveRequest{ID: "acme", To: "eu"})
		cancel()
		s.AfterStep(nil)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", step, err)
		}
		if r := s.route(t, "acme"); r.Status != registry.StatusActive || r.Server != "main" {
			t.Errorf("%s: the route is %+v", step, r)
		}
		if open := s.opens(t, "acme"); !slices.Equal(open, []string{"main"}) {
			t.Errorf("%s: open on %q", step, open)
		}
	}
	s.move(t, "acme", "eu")
}

func TestASuspendedTenantMovesAndStaysSuspended(t *testing.T) {
	s := newMovingSite(t)
	s.createSmall(t, "acme", registry.IsolationDatabase)
	if _, err := s.ChangeTenant(t.Context(), provision.ChangeRequest{ID: "acme", Transition: provision.Suspend}); err != nil {
		t.Fatal(err)
	}
	s.move(t, "acme", "eu")
	if r := s.route(t, "acme"); r.Status != registry.StatusSuspended || r.Server != "eu" {
		t.Errorf("the route is %+v", r)
	}
	findings, err := s.Diagnose(t.Context(), provision.VerifyRequest{Key: &s.key})
	for _, f := range findings {
		if f.Check != "tables" { // it is made of another template
			t.Errorf("found %+v", f)
		}
	}
	if err != nil {
		t.Error(err)
	}
}
