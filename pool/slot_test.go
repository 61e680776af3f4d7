package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/pool"
)

// slotted makes n slots and their switcher, as docexctl does, and n tenants that use them.
func (b *bench) slotted(slots, tenants int) []pool.Target {
	b.tb.Helper()
	b.exec(`CREATE ROLE docex_switcher LOGIN NOINHERIT PASSWORD 'right';
CREATE SCHEMA docex_system;
GRANT USAGE ON SCHEMA docex_system TO docex_switcher;
CREATE FUNCTION docex_system.renew_slot(slot integer, verifier text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN
  EXECUTE format('ALTER ROLE %I PASSWORD %L', 'docex_slot_' || slot, verifier);
  EXECUTE format('ALTER ROLE %I RESET ALL', 'docex_slot_' || slot);
  EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', 'docex_slot_' || slot, current_database());
END$$;
CREATE FUNCTION docex_system.seat(tenant text, slot integer, take boolean) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN
  IF tenant !~ '^tenant_' THEN RAISE EXCEPTION 'not a tenant' USING ERRCODE = '42704'; END IF;
  IF take THEN EXECUTE format('GRANT %I TO %I', tenant, 'docex_slot_' || slot);
  ELSE EXECUTE format('REVOKE %I FROM %I', tenant, 'docex_slot_' || slot); END IF;
END$$;
REVOKE ALL ON DATABASE ` + b.database + ` FROM PUBLIC; GRANT CONNECT ON DATABASE ` + b.database + ` TO docex_switcher`)
	roles := "docex_switcher"
	for i := range slots {
		name := fmt.Sprintf("docex_slot_%d", i+1)
		roles += ", " + name
		b.exec(fmt.Sprintf("CREATE ROLE %s LOGIN NOINHERIT CONNECTION LIMIT 1 PASSWORD 'right'; GRANT CONNECT ON DATABASE %s TO %[1]s", name, b.database))
	}
	b.tb.Cleanup(func() { b.exec("DROP OWNED BY " + roles + "; DROP ROLE " + roles) })
	targets := b.tenants(tenants)
	for i, t := range targets {
		b.exec(fmt.Sprintf("GRANT CONNECT, TEMPORARY ON DATABASE %s TO %s", b.database, t.Role))
		targets[i].Slot, targets[i].SearchPath = true, ""
	}
	return targets
}

// memberships lists who may become whom, of the slots.
func (b *bench) memberships() string {
	b.tb.Helper()
	var list string
	err := b.admin.QueryRow(context.Background(), `SELECT coalesce(string_agg(m.member::regrole || ' in ' || m.roleid::regrole, ', '), '')
FROM pg_auth_members AS m WHERE m.member::regrole::text LIKE 'docex_slot_%'`).Scan(&list)
	if err != nil {
		b.tb.Fatal(err)
	}
	return list
}

func TestAConnectionOfASlotIsItsTenantsAndNobodyElses(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(2, 2)
	set := b.set()
	a, other := targets[0], targets[1]

	first := acquire(t, set, a, 0)
	if got := mustAsk(t, first, "SELECT name FROM "+a.Role+".whoami"); got != a.Tenant {
		t.Errorf("the tenant reads %q of its table", got)
	}
	for _, way := range []string{"RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION DEFAULT", "SET ROLE " + other.Role, "SELECT 1"} {
		mustAskOrRefuse(first, way)
		if _, err := ask(first, "SELECT name FROM "+other.Role+".whoami"); err == nil {
			t.Errorf("after %s the tenant reads the other's table", way)
		}
		for _, role := range []string{a.Role, other.Role, "docex_switcher"} {
			if way == "SELECT 1" && role == a.Role {
				continue
			}
			if _, err := ask(first, "SET ROLE "+role); err == nil {
				t.Errorf("after %s the session becomes %s", way, role)
			}
		}
	}
	first.Unsettle()
	process := first.PID()
	first.Release()

	second := acquire(t, set, other, 0)
	defer second.Release()
	if second.PID() != process {
		t.Error("the other tenant got a connection of its own")
	}
	if got := mustAsk(t, second, "SELECT name FROM "+other.Role+".whoami"); got != other.Tenant {
		t.Errorf("the other tenant reads %q of its table", got)
	}
	if _, err := ask(second, "SELECT name FROM "+a.Role+".whoami"); err == nil {
		t.Error("the other tenant reads the first one's table")
	}
	if got := b.memberships(); got != "" {
		t.Errorf("memberships are left: %s", got)
	}
}

// mustAskOrRefuse sends what may fail; only what follows matters.
func mustAskOrRefuse(c *pool.Conn, sql string) { _, _ = ask(c, sql) }

func TestASessionThatHasLeftItsRoleGetsItBackWithTheNextLease(t *testing.T) {
	b := newBench(t, 1)
	target := b.slotted(1, 1)[0]
	set := b.set()
	conn := acquire(t, set, target, 0)
	mustAsk(t, conn, "RESET ROLE")
	conn.Unsettle()
	conn.Release()
	conn = acquire(t, set, target, 0)
	defer conn.Release()
	if got := mustAsk(t, conn, "SELECT current_user"); got != target.Role {
		t.Errorf("the session is %s", got)
	}
}

func TestNothingIsLeftOnASlotForTheNextTenant(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(1, 2)
	set := b.set()
	conn := acquire(t, set, targets[0], 0)
	for _, sql := range []string{
		"SET docex.leftover = 'behind'", "SET DateStyle = 'German'", "CREATE TEMP TABLE whoami AS SELECT 'forged'::text AS name", "PREPARE p AS SELECT 1",
		"SELECT pg_advisory_lock(1)", "LISTEN something", "SELECT setseed(0.5)",
		"BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT",
	} {
		if _, err := ask(conn, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	process := conn.PID()
	conn.Release()

	conn = acquire(t, set, targets[1], 0)
	defer conn.Release()
	if conn.PID() != process {
		t.Fatal("the second tenant got another connection")
	}
	for sql, want := range map[string]string{
		"SELECT coalesce(current_setting('docex.leftover', true), '')": "",
		"SHOW DateStyle": "ISO, MDY",
		"SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()":               "0",
		"SELECT count(*) FROM pg_prepared_statements":                                          "0",
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()": "0",
		"SELECT count(*) FROM pg_listening_channels()":                                         "0",
		"SELECT count(*) FROM pg_cursors WHERE is_holdable":                                    "0",
		"SELECT random() = 0.2499104186659835":                                                 "f",
		"SELECT current_user || ' ' || (session_user LIKE 'docex_slot_%')":                     targets[1].Role + " true",
	} {
		if got := mustAsk(t, conn, sql); got != want {
			t.Errorf("%s is %q, want %q", sql, got, want)
		}
	}
	if conn.Parameters()["DateStyle"] != "ISO, MDY" {
		t.Errorf("the parameters say DateStyle %q", conn.Parameters()["DateStyle"])
	}
}

func TestASlotThatATenantHasSpoiltIsMadeAnew(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(1, 2)
	b.requireAuthentication("docex_slot_1", "scram-sha-256")
	set := b.set()
	hostile := acquire(t, set, targets[0], 0)
	for _, sql := range []string{
		"RESET ROLE", "ALTER ROLE CURRENT_USER PASSWORD 'known'", "ALTER ROLE CURRENT_USER SET application_name = 'forged'",
		"ALTER ROLE CURRENT_USER IN DATABASE " + b.database + " SET DateStyle = 'German'",
	} {
		if _, err := ask(hostile, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	hostile.Destroy()
	victim := acquire(t, set, targets[1], 0)
	defer victim.Release()
	if got := mustAsk(t, victim, "SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'docex_slot_1'::regrole"); got != "0" {
		t.Errorf("%s settings are left", got)
	}
	if got := mustAsk(t, victim, "SHOW DateStyle"); got != "ISO, MDY" {
		t.Errorf("the next tenant has DateStyle %q", got)
	}
}

func TestMembershipsThatAKilledProxyLeftAreTakenBack(t *testing.T) {
	b := newBench(t, 2)
	targets := b.slotted(2, 2)
	left := func(slot int) {
		b.exec(fmt.Sprintf("GRANT %s TO docex_slot_%d", targets[1].Role, slot))
	}
	left(1)
	set := b.set()
	if err := set.Recover(context.Background(), "main", b.database); err != nil {
		t.Fatal(err)
	}
	if got := b.memberships(); got != "" {
		t.Errorf("after the start there are still: %s", got)
	}
	left(1)
	left(2)
	for range 2 { // opened after another proxy has died
		conn := acquire(t, set, targets[0], 0)
		defer conn.Release()
		mustAsk(t, conn, "RESET ROLE")
		if _, err := ask(conn, "SET ROLE "+targets[1].Role); err == nil {
			t.Error("the slot can become the role that was left to it")
		}
		conn.Unsettle()
	}
	if got := b.memberships(); got != "" {
		t.Errorf("after the slots were opened there are still: %s", got)
	}
}

func TestASwitchThatFailsGivesNoConnectionAndLeavesNoMembership(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(1, 2)
	set := b.set()
	acquire(t, set, targets[0], 0).Release()
	gone := targets[1]
	gone.Role = "tenant_that_is_not_there"
	conn, err := set.Acquire(context.Background(), gone, 0)
	var refusal *pgconn.PgError
	var connect *pool.ConnectError
	if conn != nil || !errors.As(err, &connect) || !errors.As(err, &refusal) || refusal.Code != "42704" {
		t.Fatalf("the role that is not there: %v, %v", conn, err)
	}
	notOurs := targets[1]
	notOurs.Role = "docex_owner_of_something"
	b.exec("CREATE ROLE " + notOurs.Role)
	t.Cleanup(func() { b.exec("DROP ROLE " + notOurs.Role) })
	if _, err := set.Acquire(context.Background(), notOurs, 0); err == nil {
		t.Fatal("the switcher granted a role that is no tenant's")
	}
	good := acquire(t, set, targets[1], 0)
	defer good.Release()
	if got := mustAsk(t, good, "SELECT current_user"); got != targets[1].Role {
		t.Errorf("the next session is %s", got)
	}
	if got := b.memberships(); got != "" {
		t.Errorf("memberships are left: %s", got)
	}
}

func TestProxiesShareTheSlotsWithoutMeeting(t *testing.T) {
	b := newBench(t, 3)
	targets := b.slotted(6, 3)
	one, two := b.set(), b.set()
	var work sync.WaitGroup
	for i := range 60 {
		work.Go(func() {
			set := []*pool.Set{one, two}[i%2]
			target := targets[i%len(targets)]
			conn := acquire(t, set, target, 0)
			defer conn.Release()
			if got, err := ask(conn, "SELECT current_user"); err != nil || got != target.Role {
				t.Errorf("%s is %q, %v", target.Role, got, err)
			}
		})
	}
	work.Wait()
	if got := b.memberships(); got != "" {
		t.Errorf("memberships are left: %s", got)
	}
}

func TestWithoutAFreeSlotTheErrorSaysWhatToDo(t *testing.T) {
	b := newBench(t, 2)
	targets := b.slotted(1, 2)
	set := b.set()
	held := acquire(t, set, targets[0], 0)
	defer held.Release()
	_, err := set.Acquire(context.Background(), targets[1], 0)
	if err == nil || !strings.Contains(err.Error(), "docexctl init --slots") {
		t.Errorf("the second of one slot: %v", err)
	}
}

func TestTheSwitcherComesBackAfterItsConnectionHasEnded(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(1, 2)
	set := b.set()
	acquire(t, set, targets[0], 0).Release()
	var ended bool
	err := b.admin.QueryRow(context.Background(), "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'docex_switcher'").Scan(&ended)
	if err != nil || !ended {
		t.Fatalf("the switcher was not ended: %v, %v", ended, err)
	}
	conn := acquire(t, set, targets[1], 0)
	defer conn.Release()
	if got := mustAsk(t, conn, "SELECT current_user"); got != targets[1].Role {
		t.Errorf("the session is %s", got)
	}
}

func TestASlotThatCouldDoMoreThanItMustIsRefused(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(1, 1)
	set := b.set()
	for _, spoil := range []string{"CREATEROLE", "CREATEDB", "INHERIT", "CONNECTION LIMIT 2", "BYPASSRLS"} {
		b.exec("ALTER ROLE docex_slot_1 " + spoil)
		if conn, err := set.Acquire(context.Background(), targets[0], 0); err == nil {
			conn.Release()
			t.Errorf("a slot with %s was used", spoil)
		}
		b.exec("ALTER ROLE docex_slot_1 NOCREATEROLE NOCREATEDB NOINHERIT NOBYPASSRLS CONNECTION LIMIT 1")
	}
	acquire(t, set, targets[0], 0).Release()
}

func TestASlotIsNotTriedForATenantItWouldHaveToBeSwitchedTo(t *testing.T) {
	b := newBench(t, 1)
	targets := b.slotted(1, 2)
	set := b.set()
	acquire(t, set, targets[0], 0).Release()
	if conn, ok := set.TryAcquire(targets[1], 0); ok {
		conn.Release()
		t.Error("a connection of the other tenant was leased")
	}
	conn, ok := set.TryAcquire(targets[0], 0)
	if !ok {
		t.Fatal("the tenant's own idle connection was not leased")
	}
	conn.Release()
}

// hostility has three slots try to become a victim's role, at least tries times, while a fourth is switched at least
// switches times. It returns how many tries there were.
func hostility(tb testing.TB, b *bench, switches int, tries int64) int64 {
	targets := b.slotted(4, 3)
	set := b.set()
	victims := targets[1:]
	done := make(chan struct{})
	var tried atomic.Int64
	var attackers sync.WaitGroup
	for range 3 {
		conn := acquire(tb, set, targets[0], 0)
		mustAsk(tb, conn, "RESET ROLE")
		conn.Unsettle()
		attackers.Go(func() {
			defer conn.Release()
			for {
				select {
				case <-done:
					return
				default:
				}
				n := tried.Add(1)
				sql := "SET ROLE " + victims[n%2].Role
				if n%3 == 0 {
					sql = "SELECT name FROM " + victims[n%2].Role + ".whoami"
				}
				if got, err := ask(conn, sql); err == nil {
					tb.Errorf("a try won: %s gave %q", sql, got)
				}
			}
		})
	}
	for i := 0; i < switches || tried.Load() < tries; i++ {
		acquire(tb, set, victims[i%2], 0).Release()
	}
	close(done)
	attackers.Wait()
	return tried.Load()
}

func TestNoTryDuringSwitchesWins(t *testing.T) {
	b := newBench(t, 4)
	if tries := hostility(t, b, 300, 1000); tries < 1000 {
		t.Errorf("only %d tries were made", tries)
	}
	if got := b.memberships(); got != "" {
		t.Errorf("memberships are left: %s", got)
	}
}

func TestAServerThatSaysNothingDoesNotKeepSlotsFromBeingClosed(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections are made, and nobody takes them
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := silent.Addr().(*net.TCPAddr).Port
	set, err := pool.New(pool.Options{
		Servers:        map[string]pool.Server{"main": {Hosts: []pool.Host{{Name: "127.0.0.1", Port: uint16(port)}}, SSLMode: "disable", MaxConnections: 100}},
		ConnectTimeout: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			target := pool.Target{Server: "main", Database: "d", Role: fmt.Sprintf("tenant_%d", i), Tenant: fmt.Sprint(i), Slot: true}
			if _, err := set.Acquire(t.Context(), target, 0); err == nil {
				t.Error("a connection of a server that says nothing")
			}
		})
	}
	all.Wait()
	began := time.Now()
	set.Close()
	if took := time.Since(began); took > 5*time.Second { // a hundred of them one after the other would take half a minute
		t.Errorf("the end took %s", took)
	}
}
