package main

import (
	"fmt"
	"slices"
	"time"
)

// leftoverCases leave something behind on the server connection for whoever gets it next.
func leftoverCases() []attack {
	own := slices.Concat(settingPoisons(), temporaryPoisons(), namedPoisons(), transactionPoisons())
	return []attack{
		{number: 32, sentence: "A temporary table in front of the victim's real one is left behind", promise: always(contained), run: leaves(temporaryPoisons()[:2]...)},
		{number: 33, sentence: "A function in pg_temp is left behind", promise: always(contained), run: leaves(temporaryPoisons()[2:]...)},
		{number: 34, sentence: "A statement prepared by PREPARE is left behind", promise: always(contained), run: leaves(namedPoisons()[0])},
		{number: 35, sentence: "A statement prepared by Parse is left behind", promise: always(contained), run: leaves(namedPoisons()[1])},
		{number: 36, sentence: "A cursor WITH HOLD is left behind", promise: always(contained), run: leaves(namedPoisons()[2])},
		{number: 37, sentence: "LISTEN is left behind", promise: always(contained), run: leaves(namedPoisons()[3])},
		{number: 38, sentence: "An advisory lock is left behind", promise: always(contained), run: leaves(namedPoisons()[4])},
		{number: 39, sentence: "An open transaction is left behind", promise: always(contained), run: leaves(transactionPoisons()[:2]...)},
		{number: 40, sentence: "A failed transaction is left behind", promise: always(contained), run: leaves(transactionPoisons()[2:]...)},
		{number: 41, sentence: "Every setting that poisons a session is left behind", promise: always(contained), run: leaves(settingPoisons()...)},
		{number: 42, sentence: "Custom settings, and those of the proxy's own, are left behind", promise: always(contained), run: leaves(settled(
			"SET evil.setting = 'ATTACKER'", "SET docex.user_id = 'ATTACKER'", "SET docex.roles = 'ATTACKER'", "SELECT set_config('docex.tenant_id', '{beta}', false)"))},
		{number: 43, sentence: "lastval() of the tenant's sequence is left behind", promise: always(contained), run: leaves(poison{
			statements: []string{"SELECT nextval('own_id_seq')"}, look: missing("SELECT lastval()", "55000")})},
		{number: 44, sentence: "setseed() makes the next session's random() predictable", promise: always(contained), run: predictable},
		{number: 58, sentence: "A connection is left in a state in which DISCARD ALL fails", promise: always(contained), run: leaves(undiscardable()...)},
		{number: 78, sentence: "Functions and a search_path in front of pg_catalog are left behind", promise: always(contained), run: shadowedCatalogue},
		{number: 86, sentence: "Another login of the same tenant finds nothing of what was left behind", promise: always(contained), run: leavesToItself(own...)},
		{number: 94, sentence: "A switched, reset or victim's role is left behind", promise: always(contained), run: leaves(rolePoisons()...)},
	}
}

func settingPoisons() []poison {
	return []poison{
		settled("SET search_path = pg_temp, {alpha}, pg_catalog", "SET statement_timeout = 60000", "SET lock_timeout = 60000",
			"SET idle_in_transaction_session_timeout = 0", "SET default_transaction_read_only = on", "SET default_transaction_isolation = serializable",
			"SET client_encoding = latin1", "SET standard_conforming_strings = off", "SET row_security = off", "SET TimeZone = 'Asia/Tokyo'",
			"SET application_name = 'ATTACKER'", "SET DateStyle = 'SQL, DMY'", "SET IntervalStyle = iso_8601", "SET bytea_output = escape",
			"SET work_mem = '1GB'", "SET enable_seqscan = off", "SET xmloption = document", "SET transform_null_equals = on",
			"SET quote_all_identifiers = on", "SET check_function_bodies = off", "SET default_table_access_method = heap"),
		settled("SELECT set_config('search_path', 'pg_catalog', false), set_config('TimeZone', 'Asia/Tokyo', false), set_config('work_mem', '1GB', false)"),
		settled("BEGIN; SET extra_float_digits = 0; SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE; COMMIT"),
		settled("UPDATE pg_settings SET setting = 'off' WHERE name = 'enable_indexscan'"),
		settled("SET temp_buffers = '16MB'", "CREATE TEMP TABLE evil_buffers (x int)"),
	}
}

func temporaryPoisons() []poison {
	return []poison{
		settled("CREATE TEMP TABLE canary (id int, body text)", "INSERT INTO pg_temp.canary VALUES (1, 'ATTACKER-ROW')",
			"CREATE TEMP TABLE shared_name (body text)", "INSERT INTO pg_temp.shared_name VALUES ('ATTACKER-ROW')"),
		settled("CREATE TEMP TABLE pg_class (relname text)", "CREATE TEMP VIEW pg_settings AS SELECT 'x' AS name", "CREATE TEMP SEQUENCE evil_sequence"),
		settled("CREATE FUNCTION pg_temp.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'ATTACKER'$$",
			"CREATE FUNCTION pg_temp.evil() RETURNS text LANGUAGE sql AS $$SELECT 'ATTACKER'$$", "SET search_path = pg_temp, {alpha}, pg_catalog"),
	}
}

func namedPoisons() []poison {
	channel := func(s *session) error {
		_, err := s.t.registry(s.t.ctx, "NOTIFY evil_channel, 'x'")
		return err
	}
	free := func(s *session) error {
		rows, err := s.run("SELECT pg_try_advisory_lock(4711), pg_advisory_unlock(4711)")
		if err == nil && rows[0][0] != "t" {
			s.t.leak("an advisory lock of the session before is still held")
		}
		return err
	}
	return []poison{
		{statements: []string{"PREPARE evil_prepared AS SELECT 'ATTACKER-ROW'"}, look: missing("EXECUTE evil_prepared", "26000")},
		{leave: parseEvil, look: missing("EXECUTE evil_parsed", "26000")},
		{statements: []string{"BEGIN; DECLARE evil_cursor CURSOR WITH HOLD FOR SELECT 'ATTACKER-ROW' FROM generate_series(1, 10); COMMIT"},
			look: missing("FETCH ALL FROM evil_cursor", "34000")},
		{statements: []string{"LISTEN evil_channel"}, look: channel},
		{statements: []string{"SELECT pg_advisory_lock(4711)", "SELECT pg_advisory_lock_shared(4712)"}, look: free},
	}
}

func parseEvil(s *session) error {
	if _, err := s.conn.Prepare(s.t.ctx, "evil_parsed", "SELECT 'ATTACKER-ROW'", nil); err != nil {
		return err
	}
	_, err := s.conn.Prepare(s.t.ctx, "", "SELECT 'ATTACKER-ROW', 2", nil)
	return err
}

func transactionPoisons() []poison {
	return []poison{
		settled("BEGIN", "INSERT INTO own (body) VALUES ('ATTACKER-ROW')", "SET LOCAL search_path = pg_catalog"),
		settled("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "SAVEPOINT x", "SELECT 1", "COMMIT AND CHAIN"),
		settled("BEGIN", "SELECT 1/0"),
		settled("BEGIN", "SAVEPOINT x", "SELECT 1/0", "COMMIT AND CHAIN"),
	}
}

// undiscardable are states in which a careless reset does nothing, above all when several statements share a Query.
func undiscardable() []poison {
	dirt := []string{"SET TimeZone = 'Asia/Tokyo'", "CREATE TEMP TABLE canary (id int, body text)"}
	with := func(last ...string) poison { return settled(slices.Concat(dirt, last)...) }
	return []poison{
		with("BEGIN"), with("BEGIN", "SELECT 1/0"), with("BEGIN; SELECT 1; COMMIT AND CHAIN"), with("BEGIN; SELECT 1; ROLLBACK AND CHAIN"),
		with("SELECT 1; BEGIN; SELECT 1"), with("PREPARE evil_discard AS SELECT 1", "DEALLOCATE ALL", "DISCARD TEMP", "BEGIN"),
	}
}

func rolePoisons() []poison {
	return []poison{
		settled("RESET ROLE"), settled("SET ROLE NONE"), settled(`SET ROLE "{beta role}"`), settled("SET SESSION AUTHORIZATION DEFAULT"),
		settled("BEGIN", `SET LOCAL ROLE "{beta role}"`), settled("SELECT set_config('role', 'none', false)"),
		settled("DO $$BEGIN EXECUTE 'RESET' || ' ROLE'; END$$"),
	}
}

// hiddenCases leave the same behind by statements whose text does not say so.
func hiddenCases() []attack {
	hidden := []poison{
		settled("DO $$BEGIN EXECUTE 'SE' || 'T TimeZone = ''Asia/Tokyo'''; END$$"),
		settled("DO $$BEGIN EXECUTE 'SELECT set_' || 'config(''evil.setting'', ''ATTACKER'', false)'; END$$"),
		settled("DO $$BEGIN EXECUTE 'CREATE TE' || 'MP TABLE canary (id int, body text)'; END$$"),
		settled("DO $$BEGIN EXECUTE 'LIS' || 'TEN evil_channel'; END$$"),
		settled("DO $$BEGIN EXECUTE 'SELECT pg_adv' || 'isory_lock(4711)'; END$$"),
	}
	return []attack{
		{number: 87, sentence: "Another login of the same tenant finds what was left by hidden statements", promise: always(leaks), run: leavesToItself(hidden...)},
		{number: 95, sentence: "The victim finds nothing of what was left by hidden statements", promise: always(contained), run: leaves(hidden...)},
	}
}

// shadowedCatalogue puts functions of the tenant's own schema before pg_catalog.
func shadowedCatalogue(t *trial) {
	s := t.hostile()
	t.must(firstError(s, "CREATE FUNCTION lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'ATTACKER'::text$$", "CREATE TABLE pg_class (relname text, relnamespace oid)"))
	s.close()
	t.atEnd(func() {
		_, err := t.hostileDB("DROP FUNCTION {alpha}.lower(text); DROP TABLE {alpha}.pg_class")
		t.must(err)
	})
	shadow := []poison{settled("SET search_path = {alpha}, pg_catalog")}
	t.leave(victims, shadow)
	t.leave(tenants, shadow)
}

// predictable compares the victim's random() with what the attacker's seed makes of it.
func predictable(t *trial) {
	rows, err := t.registry(t.ctx, "SELECT setseed(0.42); SELECT random() FROM generate_series(1, 20)")
	t.must(err)
	var foreseen []string
	for _, row := range rows[1:] {
		foreseen = append(foreseen, row[0])
	}
	look := func(s *session) error {
		drawn, err := s.run("SELECT random()")
		if err == nil && slices.Contains(foreseen, drawn[0][0]) {
			s.t.leak("the victim's random() was foreseen")
		}
		return err
	}
	t.leave(victims, []poison{{statements: []string{"SELECT setseed(0.42)"}, look: look}, {statements: []string{"SELECT setseed(0.42)", "SELECT random()"}, look: look}})
}

// committed fails when rows of an attack that never finished are there.
func (t *trial) committed() {
	rows, err := t.hostileDB("SELECT count(*) FROM {alpha}.own WHERE body = 'ATTACKER-ROW'")
	t.must(err)
	t.checks++
	if rows[0][0] != "0" {
		t.leak("%s rows of a transaction that never ended are there", rows[0][0])
	}
}

// shortly waits out the time in which the proxy notices that a client has gone.
func (t *trial) shortly() { t.pause(20 * time.Millisecond) }

func (t *trial) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.ctx.Done():
		t.abandon(fmt.Errorf("the time is up: %w", t.ctx.Err()))
	}
}
