package e2e_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestATransactionKeepsItsConnection(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "pooling")
	conn, other := s.proxy.connect(t, a), s.proxy.connect(t, a)
	held := occupy(t, conn)
	for range 5 {
		if pid := backend(t, other); pid == held {
			t.Fatal("another session was given the connection")
		}
		if pid := backend(t, conn); pid != held {
			t.Fatalf("from %s to %s within a transaction", held, pid)
		}
	}
	execute(t, conn, "COMMIT")
}

func TestSessionsShareOneConnectionBetweenTransactions(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "sharing")
	seen := make(map[string]bool)
	for range 10 {
		conn := s.proxy.connect(t, a)
		seen[backend(t, conn)] = true
	}
	if len(seen) != 1 {
		t.Errorf("%d connections for sessions that worked one after the other", len(seen))
	}
}

func TestAFailedTransactionIsTheClientsToEnd(t *testing.T) {
	s := theSite(t)
	conn := s.proxy.connect(t, s.tenant(t, "pooling"))
	execute(t, conn, "BEGIN")
	for _, want := range []string{"22012", "25P02"} {
		if code := failure(t, conn, "SELECT 1/0"); code != want {
			t.Errorf("SQLSTATE %q, want %s", code, want)
		}
	}
	if status := conn.PgConn().TxStatus(); status != 'E' {
		t.Errorf("status %c", status)
	}
	execute(t, conn, "ROLLBACK")
	expect(t, conn, "SELECT 1", "1")
}

// crowd runs a session on one server connection after the other, by occupying those that it was served on.
type crowd struct {
	t    *testing.T
	p    *proxy
	a    account
	seen map[string]bool
}

// elsewhere makes conn's next transaction run on a server connection where it has not run before.
func (c *crowd) elsewhere(conn *pgx.Conn) {
	c.t.Helper()
	if c.seen == nil {
		c.seen = make(map[string]bool)
	}
	pid := backend(c.t, conn)
	c.seen[pid] = true
	for c.seen[pid] {
		occupy(c.t, c.p.connect(c.t, c.a))
		pid = backend(c.t, conn)
	}
}

func TestWhatASessionSetsGoesWithIt(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "settings")
	for sql, show := range map[string]struct{ statement, want string }{
		"SET work_mem = '7MB'":                                                   {"SHOW work_mem", "7MB"},
		"SET TimeZone = 'Asia/Tokyo'":                                            {"SHOW TimeZone", "Asia/Tokyo"},
		"SET DateStyle = 'German'":                                               {"SHOW DateStyle", "German, DMY"},
		"SET client_encoding = 'LATIN1'":                                         {"SHOW client_encoding", "LATIN1"},
		"SET standard_conforming_strings = off":                                  {"SHOW standard_conforming_strings", "off"},
		"SET statement_timeout = '9s'":                                           {"SHOW statement_timeout", "9s"},
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY":                   {"SHOW transaction_read_only", "on"},
		"SET default_transaction_isolation = serializable":                       {"SHOW transaction_isolation", "serializable"},
		"SET application_name = 'it''s me'":                                      {"SHOW application_name", "it's me"},
		"SET search_path TO \"tenant_settings\", public, pg_catalog":             {"SHOW search_path", "tenant_settings, public, pg_catalog"},
		"SET my.own = 'x y'":                                                     {"SHOW my.own", "x y"},
		"SELECT set_config('work_mem', '8MB', false)":                            {"SHOW work_mem", "8MB"},
		"SELECT set_config('my.own', 'z', false)":                                {"SHOW my.own", "z"},
		"BEGIN; SET work_mem = '6MB'; COMMIT":                                    {"SHOW work_mem", "6MB"},
		"BEGIN; SET LOCAL work_mem = '1MB'; SET TimeZone = 'Asia/Tokyo'; COMMIT": {"SHOW TimeZone", "Asia/Tokyo"},
		"SET TIME ZONE 'Asia/Tokyo'":                                             {"SHOW TimeZone", "Asia/Tokyo"},
		"DO $$BEGIN PERFORM set_config('work_mem', '5MB', false); END$$":         {"SHOW work_mem", "5MB"},
	} {
		t.Run(sql, func(t *testing.T) {
			conn, neighbour := s.proxy.connect(t, a), s.proxy.connect(t, a)
			before := ""
			if show.statement != "SHOW my.own" {
				before = query(t, neighbour, show.statement)
			}
			execute(t, conn, sql)
			expect(t, conn, show.statement, show.want)
			(&crowd{t: t, p: s.proxy, a: a}).elsewhere(conn)
			expect(t, conn, show.statement, show.want)
			if show.statement == "SHOW my.own" {
				expect(t, neighbour, "SELECT coalesce(current_setting('my.own', true), '')", "")
			} else {
				expect(t, neighbour, show.statement, before)
			}
			expect(t, s.proxy.connect(t, a), "SELECT current_schema()", a.schema)
			for range 2 { // on whatever connection comes next
				expect(t, conn, show.statement, show.want)
			}
		})
	}
}

func TestWhatATransactionSetsOnlyForItselfEndsWithIt(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "settings")
	for _, sql := range []string{
		"BEGIN; SET LOCAL work_mem = '7MB'; COMMIT",
		"BEGIN; SET work_mem = '7MB'; ROLLBACK",
		"BEGIN; SAVEPOINT s; SET work_mem = '7MB'; ROLLBACK TO s; COMMIT",
		"BEGIN; SELECT set_config('work_mem', '7MB', true); COMMIT",
	} {
		t.Run(sql, func(t *testing.T) {
			conn := s.proxy.connect(t, a)
			before := query(t, conn, "SHOW work_mem")
			execute(t, conn, sql)
			expect(t, conn, "SHOW work_mem", before)
			(&crowd{t: t, p: s.proxy, a: a}).elsewhere(conn)
			expect(t, conn, "SHOW work_mem", before)
		})
	}
	conn := s.proxy.connect(t, a)
	execute(t, conn, "BEGIN", "SET work_mem = '7MB'")
	failure(t, conn, "SELECT 1/0")
	execute(t, conn, "COMMIT") // which is a ROLLBACK
	expect(t, conn, "SHOW work_mem", query(t, s.proxy.connect(t, a), "SHOW work_mem"))
}

func TestStartupParametersAreAppliedAndReported(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "settings")
	conn := s.proxy.connect(t, a, with("application_name", "e2e"), with("TimeZone", "Europe/Berlin"), with("options", `-c work_mem=5MB -c my.own=a\ b`))
	for name, want := range map[string]string{"application_name": "e2e", "TimeZone": "Europe/Berlin"} {
		if got := conn.PgConn().ParameterStatus(name); got != want {
			t.Errorf("%s is reported as %q, want %q", name, got, want)
		}
	}
	check := func() {
		t.Helper()
		expect(t, conn, "SHOW application_name", "e2e")
		expect(t, conn, "SHOW TimeZone", "Europe/Berlin")
		expect(t, conn, "SHOW work_mem", "5MB")
		expect(t, conn, "SHOW my.own", "a b")
	}
	check()
	(&crowd{t: t, p: s.proxy, a: a}).elsewhere(conn)
	check()
}

// TestAResetGoesBackToTheClientsOwnStartup: without a proxy it is the startup parameters that RESET goes back to.
func TestAResetGoesBackToTheClientsOwnStartup(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "settings")
	for _, reset := range []string{"RESET ALL", "DISCARD ALL", "RESET TimeZone", "SET TimeZone TO DEFAULT"} {
		t.Run(reset, func(t *testing.T) {
			conn := s.proxy.connect(t, a, with("application_name", "e2e"), with("TimeZone", "Europe/Berlin"), with("options", "-c work_mem=5MB"))
			execute(t, conn, "SET TimeZone = 'Asia/Tokyo'", reset)
			expect(t, conn, "SHOW TimeZone", "Europe/Berlin") // the first statement after it
			if got := conn.PgConn().ParameterStatus("TimeZone"); got != "Europe/Berlin" {
				t.Errorf("TimeZone is reported as %q", got)
			}
			execute(t, conn, "SET TimeZone = 'Asia/Tokyo'; SET work_mem = '9MB'", reset)
			(&crowd{t: t, p: s.proxy, a: a}).elsewhere(conn)
			expect(t, conn, "SHOW TimeZone", "Europe/Berlin")
			expect(t, conn, "SHOW application_name", "e2e")
		})
	}
}

func TestAChangedParameterIsReportedOnWhateverConnection(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "settings")
	conn, neighbour := s.proxy.connect(t, a), s.proxy.connect(t, a)
	reported := neighbour.PgConn().ParameterStatus("TimeZone")
	execute(t, conn, "SET TimeZone = 'Asia/Tokyo'")
	if got := conn.PgConn().ParameterStatus("TimeZone"); got != "Asia/Tokyo" {
		t.Errorf("TimeZone is reported as %q", got)
	}
	execute(t, neighbour, "SELECT 1")
	if got := neighbour.PgConn().ParameterStatus("TimeZone"); got != reported {
		t.Errorf("another session was told %q, after %q", got, reported)
	}
}

func TestAnInvalidStartupParameterIsRefused(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "settings")
	for parameter, want := range map[string]string{"TimeZone": "22023", "nonsense": "42704", "port": "55P02"} {
		if refusal := s.proxy.refused(t, a, with(parameter, "Nowhere")); refusal.Code != want {
			t.Errorf("%s: %s %s, want %s", parameter, refusal.Code, refusal.Message, want)
		}
	}
	expect(t, s.proxy.connect(t, a), "SELECT current_schema()", a.schema)
}

func TestASessionThatEndsWithinATransactionLeavesNothing(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "leaving")
	execute(t, s.proxy.connect(t, a), "CREATE TABLE t (x int)")
	for name, statements := range map[string]string{
		"open":                     "BEGIN; INSERT INTO t VALUES (1); LOCK TABLE t",
		"failed":                   "BEGIN; INSERT INTO t VALUES (1); SELECT 1/0",
		"with settings of its own": "BEGIN; SET work_mem = '7MB'; SET search_path = public; CREATE TEMP TABLE t (x text)",
	} {
		for _, politely := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, politely %t", name, politely), func(t *testing.T) {
				conn := s.proxy.connect(t, a)
				failure(t, conn, statements)
				if politely {
					hangUp(conn)
				} else {
					takeOver(t, conn).Close()
				}
				next := s.proxy.connect(t, a)
				execute(t, next, "SET lock_timeout = '5s'", "BEGIN; LOCK TABLE t; COMMIT")
				expect(t, next, "SELECT count(*) FROM t", "0")
				expect(t, next, "SELECT current_schema()", a.schema)
				expect(t, next, "SHOW work_mem", query(t, s.direct(t), "SHOW work_mem"))
				if status := next.PgConn().TxStatus(); status != 'I' {
					t.Errorf("status %c", status)
				}
			})
		}
	}
}
