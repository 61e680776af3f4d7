package e2e_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// sessionMode asks for a server connection of the session's own.
func sessionMode(c *pgx.ConnConfig) { c.RuntimeParams["docex.pool_mode"] = "session" }

func TestASessionCanHaveAServerConnectionOfItsOwn(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "sessionmode")
	conn, other := s.proxy.connect(t, a, sessionMode), s.proxy.connect(t, a)
	series := `docex_proxy_session_pins_total{reason="session"}`
	before := s.proxy.metric(t, series)
	pid := backend(t, conn)
	// What no question would find: a function that sets and makes things without a word of it in the client's text.
	execute(t, conn, `CREATE FUNCTION hidden() RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'SET work_mem = ' || quote_literal('7MB'); EXECUTE 'CREATE TEM' || 'P TABLE kept (x int)'; END $$`, "SELECT hidden()")
	for range 3 {
		if backend(t, other) == pid {
			t.Fatal("another session was given the connection")
		}
		if backend(t, conn) != pid {
			t.Fatal("the session was given another connection")
		}
		expect(t, conn, "SHOW work_mem", "7MB")
		expect(t, conn, "SELECT count(*) FROM kept", "0")
	}
	if got := s.proxy.metric(t, series); got != before+1 {
		t.Errorf("%s is %v, was %v", series, got, before)
	}
	hangUp(conn)
	eventually(t, patience, "the log says what the session was pinned by", func() bool {
		return strings.Contains(s.proxy.logged(), "pins=session ")
	})
	gone(t, s.proxy, a, "SELECT count(*) FROM kept", "42P01", "0")
	for range 3 {
		if backend(t, s.proxy.connect(t, a)) == pid {
			t.Error("the connection is used again")
		}
	}
}

func TestTheSessionsOfATenantCanAllHaveTheirOwn(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "ownmode")
	execute(t, s.direct(t), `UPDATE docex_system.tenant_route SET limits = '{"pool_mode": "session"}' WHERE tenant_id = 'ownmode'`)
	eventually(t, patience, "new sessions have a connection of their own", func() bool {
		conn := s.proxy.connect(t, a)
		defer hangUp(conn)
		pid := backend(t, conn)
		other := s.proxy.connect(t, a)
		defer hangUp(other)
		return backend(t, other) != pid && backend(t, conn) == pid && backend(t, other) != pid
	})
}

func TestAPoolModeThatThereIsNotIsRefused(t *testing.T) {
	s := theSite(t)
	a := s.tenant(t, "sessionmode")
	refusal := s.proxy.refused(t, a, func(c *pgx.ConnConfig) { c.RuntimeParams["docex.pool_mode"] = "statement" })
	if refusal.Code != "22023" {
		t.Errorf("%s %s", refusal.Code, refusal.Message)
	}
}
