package main

import (
	"sync/atomic"
)

// sharedCases are about what tenants of one database share whatever their roles are.
func sharedCases() []attack {
	catalogues := promise{role: leaks, database: contained, trusted: leaks}
	return []attack{
		{number: 46, sentence: "LISTEN on the victim's channel, and read its NOTIFY", promise: always(contained), run: overhear},
		{number: 70, sentence: "NOTIFY into the channel on which the victim listens", promise: always(contained), run: speakUp},
		{number: 66, sentence: "Read the source of the victim's functions, views and defaults", promise: catalogues, run: func(t *trial) {
			t.attempt("SELECT prosrc FROM pg_proc WHERE proname = 'canary_code'", "SELECT pg_get_viewdef(oid) FROM pg_class WHERE relname = 'canary_view'",
				"SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef", "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'canary_code'")
		}},
		{number: 67, sentence: "Read the names of the victim's tables", promise: catalogues, run: func(t *trial) {
			t.attempt("SELECT relname FROM pg_class", "SELECT typname FROM pg_type", "SELECT tablename FROM pg_tables")
		}},
		{number: 68, sentence: "Read the names of the victim's role and database", promise: always(leaks), run: func(t *trial) {
			t.attempt("SELECT rolname FROM pg_roles", "SELECT datname FROM pg_database", "SELECT usename FROM pg_stat_activity")
			if t.heard.has(t.others.role) {
				t.leak("saw the name of the victim's role")
			}
		}},
		{number: 69, sentence: "Hold an advisory lock that the victim needs", promise: catalogues, run: func(t *trial) {
			s := t.hostile()
			s.must("SELECT pg_advisory_lock(815)")
			t.accepted++
			if t.victim().must("SELECT pg_try_advisory_lock(815)") != "t" {
				t.leak("the victim does not get its lock")
			}
		}},
		{number: 71, sentence: "Import the victim's exported snapshot, and read with it", promise: always(contained), run: func(t *trial) {
			victim := t.victim()
			id := victim.must("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot()")
			s := t.hostile()
			_, err := s.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '" + id + "'")
			t.alsoRefusal("22023", "25001")
			t.tally("SET TRANSACTION SNAPSHOT", err)
			if err == nil {
				_, err = s.run("SELECT body FROM {beta}.canary")
				t.tally("read", err)
			}
		}},
		{number: 72, sentence: "Read the sizes and row counts of the victim's tables", promise: catalogues, run: func(t *trial) {
			const sql = "SELECT pg_relation_size(c.oid), reltuples FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = '{beta}' AND relname = 'canary'"
			rows, err := t.hostile().run(sql)
			t.tally(sql, err)
			if len(rows) > 0 {
				t.leak("saw the size of the victim's table")
			}
		}},
	}
}

// overhear has the victim send a notification, which comes back to the victim's own listener.
func overhear(t *trial) {
	var heard, control atomic.Int32
	s := t.hostile(notified(func(string) { heard.Add(1) }))
	s.must("LISTEN secret_channel")
	victim := t.victim(notified(func(string) { control.Add(1) }))
	victim.must("LISTEN secret_channel")
	victim.must("NOTIFY secret_channel, '{row secret}'")
	victim.must("SELECT pg_notify('secret_channel', '{row secret}')")
	t.must(t.eventually(func() (bool, error) { _, err := victim.run("SELECT 1"); return control.Load() == 2, err }))
	t.shortly()
	s.must("SELECT 1")
	s.must("SELECT 1")
	t.checks++
	if heard.Load() > 0 {
		t.leak("%d notifications of the victim were delivered", heard.Load())
	}
}

func speakUp(t *trial) {
	var heard, control atomic.Int32
	count := func(payload string) {
		if payload == "ATTACKER" {
			heard.Add(1)
			return
		}
		control.Add(1)
	}
	victim := t.victim(notified(count))
	victim.must("LISTEN secret_channel")
	s := t.hostile()
	s.must("NOTIFY secret_channel, 'ATTACKER'")
	s.must("SELECT pg_notify('secret_channel', 'ATTACKER')")
	t.accepted++
	t.shortly()
	victim.must("NOTIFY secret_channel, 'own'")
	t.must(t.eventually(func() (bool, error) { _, err := victim.run("SELECT 1"); return control.Load() == 1, err }))
	if heard.Load() > 0 {
		t.leak("%d notifications were delivered to the victim", heard.Load())
	}
}
