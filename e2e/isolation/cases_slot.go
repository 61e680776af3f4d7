package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// slotUser is slotPattern for what sessions say of themselves.
var slotUser = regexp.MustCompile(`^docex_slot_[1-9][0-9]*\n$`)

// slotCases are what a tenant can do from the role that its server connection is logged in as, which is nobody's: after
// RESET ROLE it is a slot, and the next tenant will be on it.
func slotCases() []attack {
	return []attack{
		{number: 97, sentence: "Spoil the slots by passwords and settings, and end the server connections", promise: always(contained), only: levelSlot, run: spoilSlots},
		{number: 98, sentence: "Spoil the slots by settings for other databases", promise: always(contained), only: levelSlot, run: spoilElsewhere},
		{number: 99, sentence: "Settings, locks, channels, cursors and statements of the slot itself are left behind", promise: always(contained), only: levelSlot,
			run: leaves(slotPoisons()...)},
		{number: 100, sentence: "A large object of the slot's own is left behind", promise: always(contained), only: levelSlot, run: slotsLargeObject},
		{number: 101, sentence: "Change the slot's connection limit, name, powers or members", promise: always(refused), only: levelSlot, run: func(t *trial) {
			for _, option := range []string{"CONNECTION LIMIT 2", "CONNECTION LIMIT -1", "NOLOGIN", "INHERIT", "CREATEROLE", "SUPERUSER", "BYPASSRLS",
				"REPLICATION", "VALID UNTIL '2000-01-01'"} {
				t.asSlot("ALTER ROLE CURRENT_USER " + option)
			}
			t.asSlot("DO $$BEGIN EXECUTE format('ALTER ROLE %I RENAME TO evil', session_user); END$$")
			t.asSlot("DO $$BEGIN EXECUTE format('DROP ROLE %I', session_user); END$$")
			t.asSlot(`DO $$BEGIN EXECUTE format('GRANT %I TO "{alpha role}"', session_user); END$$`)
			t.asSlot(`DO $$BEGIN EXECUTE format('GRANT "{beta role}" TO %I', session_user); END$$`)
			t.asSlot(`DO $$BEGIN EXECUTE format('GRANT "{alpha role}" TO %I', session_user); END$$`)
		}},
		{number: 102, sentence: "SET ROLE to the switcher, the owner or another slot, or do the switcher's work", promise: always(refused), only: levelSlot,
			run: becomeSwitcher},
		{number: 103, sentence: "Cancel or end the backends of other slots and of the switcher", promise: always(refused), only: levelSlot, run: endSlots},
		{number: 104, sentence: "Log in to Postgres as the slot that the proxy has, with a password of its own", promise: always(refused), only: levelSlot,
			run: loginBeside},
		{number: 105, sentence: "Log in to Postgres as a slot that it has taken from the proxy, and stay", promise: always(contained), only: levelSlot,
			run: loginInstead},
		{number: 106, sentence: "Tables, schemas and functions of the slot's own, temporary ones too", promise: always(refused), only: levelSlot, run: func(t *trial) {
			for _, sql := range []string{"CREATE TEMP TABLE evil (x int)", "CREATE TABLE {alpha}.evil (x int)", "CREATE TABLE public.evil (x int)", "CREATE SCHEMA evil",
				"CREATE FUNCTION pg_temp.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SELECT body FROM {alpha}.own"} {
				t.asSlot(sql)
			}
		}},
	}
}

// asSlot tries a statement as the slot, in every way in which the proxy does not get to give the session its role back.
func (t *trial) asSlot(sql string) {
	ways := []func(*session) error{
		func(s *session) error { _, err := s.run("RESET ROLE; " + sql); return err },
		func(s *session) error { return firstError(s, "BEGIN; SET LOCAL ROLE NONE", sql) },
		func(s *session) error { return s.runPipelined("BEGIN", "RESET ROLE", sql) },
	}
	for _, way := range ways {
		s := t.hostile()
		t.tally(sql, way(s))
		s.close()
	}
}

// slotsLargeObject leaves what belongs to the slot, and to whoever else leaves its own role on it, but to no tenant.
func slotsLargeObject(t *trial) {
	left := func() string {
		rows, err := t.superuser(t.ctx, "SELECT string_agg(oid::text, ',') FROM pg_largeobject_metadata WHERE lomowner::regrole::text ~ '{slots}'")
		t.must(err)
		return rows[0][0]
	}
	t.atEnd(func() {
		_, err := t.superuser(t.ctx, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE lomowner::regrole::text ~ '{slots}'")
		t.must(err)
	})
	t.spoil("SELECT lo_from_bytea(0, 'ATTACKER')")
	ids := left()
	t.inspectNext(victims, func(s *session) error {
		if ids == "" {
			return nil
		}
		_, err := s.run("SELECT lo_get(oid) FROM unnest(ARRAY[" + ids + "]) AS left_behind (oid)")
		if err == nil {
			s.t.leak("the victim's next session can read a large object of the slot's")
		} else if sqlstate(err) != "42501" {
			return err
		}
		return nil
	})
	if ids != "" {
		t.note("docexctl init without hardening lets everybody make large objects, slots too")
	}
}

// spoil runs a statement as the slot, on all of the proxy's connections at once.
func (t *trial) spoil(sql string) {
	var open []*session
	for range budget {
		s := t.hostile()
		s.must("BEGIN; RESET ROLE")
		open = append(open, s)
	}
	for _, s := range open {
		t.tallyOrFail(s, sql)
		s.run("COMMIT") //nolint:errcheck // an attack may have ended the connection
		s.close()
	}
}

const endOneself = "SELECT pg_terminate_backend(pg_backend_pid())"

func spoilSlots(t *trial) {
	for _, sql := range []string{
		"ALTER ROLE CURRENT_USER PASSWORD 'evil'", "ALTER ROLE CURRENT_USER PASSWORD NULL",
		"ALTER ROLE CURRENT_USER SET work_mem = '1MB'", "ALTER ROLE CURRENT_USER SET search_path = '{alpha}'",
		"ALTER ROLE CURRENT_USER IN DATABASE {beta database} SET default_transaction_read_only = on",
		"ALTER ROLE CURRENT_USER SET statement_timeout = '1ms'", "ALTER ROLE CURRENT_USER SET evil.setting = 'ATTACKER'",
		"ALTER ROLE CURRENT_USER SET role = '{alpha role}'", "ALTER ROLE CURRENT_USER SET session_replication_role = replica",
		"ALTER ROLE CURRENT_USER SET client_encoding = 'latin1'; ALTER ROLE CURRENT_USER PASSWORD 'evil'",
	} {
		t.spoil(sql)
		t.spoil(endOneself)
		before := len(t.leaked)
		t.inspectNext(victims, nil)
		t.inspectNext(tenants, nil)
		if len(t.leaked) > before {
			t.note("after %s", sql)
		}
	}
}

// spoilElsewhere leaves settings that the proxy's own sessions, in this database, do not start with.
func spoilElsewhere(t *trial) {
	t.keepRoleSettings()
	t.spoil("ALTER ROLE CURRENT_USER IN DATABASE postgres SET work_mem = '1MB'")
	t.spoil("ALTER ROLE CURRENT_USER IN DATABASE template1 SET work_mem = '1MB'")
	t.spoil(endOneself)
	t.inspectNext(victims, nil)
	t.inspectNext(tenants, nil)
}

func slotPoisons() []poison {
	as := func(statements ...string) poison { return settled(append([]string{"RESET ROLE"}, statements...)...) }
	return []poison{
		settled("RESET ROLE; SET work_mem = '1MB'; SET search_path = '{alpha}'; SET TimeZone = 'Asia/Tokyo'"),
		settled("BEGIN", "RESET ROLE", "SET work_mem = '1MB'", "COMMIT"),
		settled("RESET ROLE; LISTEN evil_channel"), settled("BEGIN; RESET ROLE; SELECT pg_advisory_lock(4711); COMMIT"),
		settled("RESET ROLE; PREPARE evil_prepared AS SELECT 'ATTACKER-ROW'"),
		settled("BEGIN; RESET ROLE; DECLARE evil_cursor CURSOR WITH HOLD FOR SELECT 'ATTACKER-ROW' FROM generate_series(1, 10); COMMIT"),
		settled("BEGIN; RESET ROLE", "SELECT 1/0"), as("SET TimeZone = 'Asia/Tokyo'"), as("BEGIN", "SET LOCAL ROLE NONE"),
	}
}

func becomeSwitcher(t *trial) {
	for _, role := range []string{"docex_switcher", "docex_owner", "docex_registry", "docex_pool", "docex_slot_40", "{beta role}"} {
		t.attempt(`SET ROLE "`+role+`"`, `SET SESSION AUTHORIZATION "`+role+`"`)
		t.asSlot(`SET ROLE "` + role + `"`)
		t.asSlot(`SET SESSION AUTHORIZATION "` + role + `"`)
	}
	const neighbour = "DO $$BEGIN EXECUTE 'SET ROLE docex_slot_' || CASE session_user WHEN 'docex_slot_1' THEN 2 ELSE 1 END; END$$"
	t.attempt(neighbour)
	t.asSlot(neighbour)
	t.asSlot(`SET ROLE "{alpha role}"`) // the way back
	for _, call := range []string{"docex_system.seat('{beta role}', 1, true)", "docex_system.seat('{alpha role}', 1, true)",
		"docex_system.seat('{beta role}', 1, false)", "docex_system.renew_slot(1, NULL)"} {
		t.attempt("SELECT " + call)
		t.asSlot("SELECT " + call)
	}
}

func endSlots(t *trial) {
	victim := t.victim()
	victim.must("BEGIN")
	rows, err := t.registry(t.ctx, "SELECT pid FROM pg_stat_activity WHERE usename = 'docex_switcher' OR pid = "+victim.backend())
	t.must(err)
	if len(rows) != 2 {
		t.abandon(fmt.Errorf("%d backends to be ended, not the victim's and the switcher's", len(rows)))
	}
	for _, row := range rows {
		for _, call := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
			victim.must("SELECT 1") // it must not be ended for standing still
			t.attempt("SELECT " + call + "(" + row[0] + ")")
			t.asSlot("SELECT " + call + "(" + row[0] + ")")
		}
	}
	if _, err := victim.run("SELECT 1"); err != nil {
		t.leak("the victim's session ended: %v", err)
	}
}

// loginDirectly logs in to Postgres past the proxy, with the password 'evil'.
func (t *trial) loginDirectly(slot string) (*session, error) {
	config, err := pgconn.ParseConfig(t.cluster.DSN(t.own.database))
	t.must(err)
	config.User, config.Password, config.ConnectTimeout = slot, "evil", patience
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &overheardConn{Conn: conn, by: &t.heard}, nil
	}
	conn, err := pgconn.ConnectConfig(t.ctx, config)
	if err != nil {
		return nil, err
	}
	s := &session{t: t, conn: conn}
	t.atEnd(s.close)
	return s, nil
}

// loginBeside would be two sessions on one slot, one of which could become the other's tenant.
func loginBeside(t *trial) {
	t.alsoRefusal("53300")
	s := t.hostile()
	slot := s.must("BEGIN; RESET ROLE; ALTER ROLE CURRENT_USER PASSWORD 'evil'; SELECT session_user; COMMIT")
	for _, state := range []string{"BEGIN", "SELECT 1", "COMMIT"} {
		s.must(state)
		for range 10 {
			second, err := t.loginDirectly(slot)
			t.tally("log in as "+slot, err)
			if err == nil {
				second.close()
			}
		}
	}
	s.close()
	victim := t.victim()
	for range 30 { // it may be the victim's meanwhile
		victim.must("SELECT 1")
		second, err := t.loginDirectly(slot)
		t.tally("log in as "+slot, err)
		if err == nil {
			second.close()
		}
	}
	t.spoil(endOneself)
	t.inspectNext(victims, nil)
}

// loginInstead takes the slots that the proxy has, and stays on them while the victim is served on others.
func loginInstead(t *trial) {
	slots := make(map[string]*session)
	for range 50 {
		s := t.hostile()
		slot := s.must("BEGIN; RESET ROLE; ALTER ROLE CURRENT_USER PASSWORD 'evil'; SELECT session_user; COMMIT")
		s.run("RESET ROLE; " + endOneself) //nolint:errcheck // its end is the answer
		s.close()
		for range 50 {
			if direct, err := t.loginDirectly(slot); err == nil {
				slots[slot] = direct
				break
			} else if code := sqlstate(err); code != "53300" { // 28P01: the proxy was quicker
				break
			}
		}
		if len(slots) == budget {
			break
		}
	}
	if len(slots) == 0 {
		t.abandon(errors.New("it did not get onto a slot"))
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		t.inspectNext(victims, nil)
		t.inspectNext(tenants, nil)
		for _, direct := range slots {
			for _, sql := range []string{`SET ROLE "{beta role}"`, "SELECT body FROM {beta}.canary", "SELECT docex_system.seat('{beta role}', 1, true)"} {
				if _, err := direct.run(sql); sqlstate(err) != "42501" {
					t.leak("%s on a stolen slot: %v", strings.Fields(sql)[0], err)
				}
			}
		}
	}
	t.note("%d slots were taken", len(slots))
}
