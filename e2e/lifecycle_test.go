package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestATenantCreatedWhileTheProxyRunsIsUsableAtOnce(t *testing.T) {
	s := theSite(t)
	for i := range 3 {
		id := fmt.Sprintf("newborn%d", i)
		stranger := s.tenant(t, "life_a")
		if refusal := s.proxy.refused(t, stranger, as(stranger.login+"."+id)); refusal.Code != "28P01" {
			t.Fatalf("before it exists: %s %s", refusal.Code, refusal.Message)
		}
		a := s.tenant(t, id)
		expect(t, s.proxy.connect(t, a), "SELECT current_schema()", a.schema)
	}
}

// endedWith waits for a session to be ended by the proxy and returns the SQLSTATE it was told.
func endedWith(t *testing.T, w *wire, within time.Duration) string {
	t.Helper()
	if err := w.SetDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	return w.refusal().Code
}

func TestASuspendedTenantIsCutOffWithinASecond(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_suspended")
	idle := takeOver(t, s.proxy.connect(t, a))
	inTransaction := s.proxy.connect(t, a)
	occupy(t, inTransaction)
	open := takeOver(t, inTransaction)
	running := s.proxy.connect(t, a)
	busy := takeOver(t, running)
	busy.say(simple("SELECT pg_sleep(20) /* suspended */"))
	watch := s.direct(t)
	eventually(t, patience, "the query runs", func() bool {
		return query(t, watch, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* suspended */'") == "1"
	})
	bystander := s.proxy.connect(t, s.tenant(t, "life_a"))

	var changed struct{ Route struct{ Status string } }
	s.mustDocexctl(t, &changed, "tenant", "suspend", "life_suspended")
	deadline := time.Now().Add(time.Second)
	if changed.Route.Status != "suspended" {
		t.Errorf("docexctl says %+v", changed)
	}
	for name, w := range map[string]*wire{"idle": idle, "in a transaction": open, "in a query": busy} {
		if code := endedWith(t, w, max(time.Until(deadline), 10*time.Millisecond)); code != "57P01" {
			t.Errorf("%s: ended with %s", name, code)
		}
	}
	eventually(t, patience, "its query is canceled", func() bool {
		return query(t, watch, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* suspended */'") == "0"
	})
	if refusal := s.proxy.refused(t, a); refusal.Code != "55000" || !strings.Contains(refusal.Message, "life_suspended") {
		t.Errorf("a new session: %s %s", refusal.Code, refusal.Message)
	}
	expect(t, bystander, "SELECT 'alive'", "alive")

	s.mustDocexctl(t, &changed, "tenant", "resume", "life_suspended")
	eventually(t, time.Second, "it is served again", func() bool {
		conn, err := pgx.ConnectConfig(bounded(t), configure(t, s.proxy.dsn(a)))
		if err != nil {
			return false
		}
		hangUp(conn)
		return true
	})
}

func TestALoginThatIsTakenAwayIsCutOff(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_a")
	password := s.login(t, "life_leaver", "--tenant", "life_a")
	leaver := account{tenant: "life_a", login: "life_leaver", password: password, schema: a.schema}
	session := takeOver(t, s.proxy.connect(t, leaver))
	stays := s.proxy.connect(t, a)
	execute(t, s.direct(t), "DELETE FROM docex_system.proxy_login WHERE login = 'life_leaver'")
	if code := endedWith(t, session, time.Second); code != "57P01" {
		t.Errorf("ended with %s", code)
	}
	if refusal := s.proxy.refused(t, leaver); refusal.Code != "28P01" {
		t.Errorf("a new session: %s", refusal.Code)
	}
	expect(t, stays, "SELECT 'alive'", "alive")
}

func TestAWaitThatIsTooLongLeavesTheSessionUsable(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_a")
	p := s.startProxy(t, settings{"servers.main.max_connections": "1", "timeouts.queue_wait": "300ms"})
	holder, waiter := p.connect(t, a), p.connect(t, a)
	occupy(t, holder)
	if code := failure(t, waiter, "SELECT 1"); code != "53300" {
		t.Errorf("the wait ended with %q", code)
	}
	execute(t, holder, "COMMIT")
	expect(t, waiter, "SELECT 'alive'", "alive")
}

func TestLostServerConnectionsAreReplaced(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_lost")
	conns := make([]*pgx.Conn, 5)
	for i := range conns {
		conns[i] = s.proxy.connect(t, a)
		occupy(t, conns[i])
	}
	for _, conn := range conns {
		execute(t, conn, "COMMIT")
	}
	watch := s.direct(t)
	execute(t, watch, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tenant_life_lost'")
	eventually(t, patience, "the backends are gone", func() bool {
		return query(t, watch, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_life_lost'") == "0"
	})
	time.Sleep(150 * time.Millisecond) // past the time in which the pool takes a connection on trust
	for _, conn := range conns {
		expect(t, conn, "SELECT current_schema()", a.schema)
	}
}

func TestASessionWhoseServerConnectionDiesIsToldSo(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "life_a"))
	pid := occupy(t, conn)
	execute(t, s.direct(t), "SELECT pg_terminate_backend("+pid+")")
	if code := failure(t, conn, "SELECT 1"); code != "57P01" && code != "08006" {
		t.Errorf("told %q", code)
	}
}

func TestChangesAreHeardAgainAfterTheRegistryConnectionWasLost(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_heard")
	watch := s.direct(t)
	execute(t, watch, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'docex_registry'")
	eventually(t, patience, "the proxy listens again", func() bool {
		return query(t, watch, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'docex_registry' AND query ILIKE 'listen%'") != "0"
	})
	session := takeOver(t, s.proxy.connect(t, a))
	execute(t, watch, "UPDATE docex_system.tenant_route SET status = 'suspended' WHERE tenant_id = 'life_heard'")
	if code := endedWith(t, session, 2*time.Second); code != "57P01" {
		t.Errorf("ended with %s", code)
	}
}

func TestATerminatedProxyDrains(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_a")
	p, err := s.launchProxy("draining", s.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	idle := takeOver(t, p.connect(t, a))
	working := p.connect(t, a)
	occupy(t, working)
	execute(t, working, "CREATE TABLE IF NOT EXISTS drained (n int)", "INSERT INTO drained VALUES (1)")
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := endedWith(t, idle, 2*time.Second); code != "57P01" {
		t.Errorf("idle: ended with %s", code)
	}
	if status, _, err := p.get("/readyz"); err == nil && status != 503 {
		t.Errorf("/readyz answers %d while draining", status)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := working.PgConn().Exec(ctx, "COMMIT").ReadAll(); err != nil {
		t.Errorf("the transaction in progress: %v", err)
	}
	if code, err := p.wait(10 * time.Second); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := p.races(); err != nil {
		t.Error(err)
	}
	expect(t, s.proxy.connect(t, a), "SELECT count(*) FROM drained", "1")
}

func TestQueriesAreBoundedWhateverTheTenantSets(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "life_a")
	p := s.startProxy(t, settings{"timeouts.query": "500ms", "timeouts.idle_transaction": "500ms"})
	busy := p.connect(t, a, with("statement_timeout", "0"))
	if code := failure(t, busy, "SELECT pg_sleep(20)"); code != "57014" {
		t.Errorf("a long query ended with %q", code)
	}
	idle := p.connect(t, a, with("idle_in_transaction_session_timeout", "0"))
	occupy(t, idle)
	if code := endedWith(t, takeOver(t, idle), 5*time.Second); code != "25P03" {
		t.Errorf("an idle transaction ended with %q", code)
	}
}

// A tenant's whole life: deleted with its sessions open, restored with its data, archived and purged, and gone.
func TestADeletedTenantIsCutOffRestoredAndPurged(t *testing.T) {
	s := theSite(t)
	for _, level := range []string{"slot"} { // where there is most to take back
		t.Run(level, func(t *testing.T) {
			id := "life_deleted_" + level
			a := s.tenant(t, id, "--isolation", level)
			session := s.proxy.connect(t, a)
			query(t, session, "CREATE TABLE kept AS SELECT 42 AS n; SELECT 1")
			query(t, session, "BEGIN; UPDATE kept SET n = 0 RETURNING n")
			open := takeOver(t, session)
			idle := takeOver(t, s.proxy.connect(t, a))
			bystander := s.proxy.connect(t, s.tenant(t, "life_a"))

			var deleted struct{ Status string }
			s.mustDocexctl(t, &deleted, "tenant", "delete", id, "--confirm", id)
			deadline := time.Now().Add(time.Second)
			for name, w := range map[string]*wire{"in a transaction": open, "idle": idle} {
				if code := endedWith(t, w, max(time.Until(deadline), 10*time.Millisecond)); code != "57P01" {
					t.Errorf("%s: ended with %s", name, code)
				}
			}
			if refusal := s.proxy.refused(t, a); refusal.Code != "55000" {
				t.Errorf("a new session: %s %s", refusal.Code, refusal.Message)
			}

			var restored struct{ Route struct{ Status string } }
			s.mustDocexctl(t, &restored, "tenant", "restore", id)
			var again *pgx.Conn
			eventually(t, time.Second, "it is served again", func() bool {
				conn, err := pgx.ConnectConfig(bounded(t), configure(t, s.proxy.dsn(a)))
				again = conn
				return err == nil
			})
			expect(t, again, "SELECT n FROM kept", "42")

			archive := filepath.Join(t.TempDir(), "tenant.dump")
			var purged struct {
				Status  string
				Archive struct{ Tables, Rows int }
			}
			s.mustDocexctl(t, &purged, "tenant", "delete", id, "--confirm", id, "--archive", archive, "--purge")
			if purged.Status != "purged" || purged.Archive.Tables != 12 || purged.Archive.Rows != 1 {
				t.Errorf("%+v", purged)
			}
			if refusal := s.proxy.refused(t, a); refusal.Code != "28P01" {
				t.Errorf("a session of nobody: %s %s", refusal.Code, refusal.Message)
			}
			if left := query(t, s.direct(t), "SELECT count(*) FROM pg_roles WHERE rolname = 'tenant_"+id+"'"); left != "0" {
				t.Error("its role is left")
			}
			expect(t, bystander, "SELECT 'alive'", "alive")
		})
	}
}
