package main

import (
	"context"
	"time"
)

// serverCases reach for the machine, other backends and what the victim has outside its tables.
func serverCases() []attack {
	switches := promise{role: refused, database: refused, trusted: leaks}
	return []attack{
		{number: 20, sentence: "Cancel or end the victim's backend", promise: switches, run: endBackends},
		{number: 21, sentence: "Read the query text of the victim's sessions", promise: promise{role: contained, database: contained, trusted: leaks}, run: queryText},
		{number: 22, sentence: "Read, change or remove the victim's large object", promise: always(refused), run: func(t *trial) {
			t.attempt("SELECT lo_get({large object})", "SELECT lo_unlink({large object})", "SELECT lo_put({large object}, 0, 'x')",
				"SELECT lo_open({large object}, 262144)", "SELECT data FROM pg_largeobject", "ALTER LARGE OBJECT {large object} OWNER TO CURRENT_USER",
				"GRANT SELECT ON LARGE OBJECT {large object} TO PUBLIC")
		}},
		{number: 23, sentence: "setval, nextval and currval on the victim's sequence by its OID", promise: always(refused), run: func(t *trial) {
			t.alsoRefusal("XX000") // of no relation in this database
			oid := t.victimOID("canary_id_seq")
			t.attempt("SELECT setval("+oid+"::oid, 1)", "SELECT nextval("+oid+"::oid)", "SELECT currval("+oid+"::oid)",
				"SELECT currtid2('{beta}.canary', '(0,1)')")
		}},
		{number: 24, sentence: "Reach the victim by dynamic SQL inside XML and text search functions", promise: always(refused), run: func(t *trial) {
			if t.level == levelDatabase {
				t.alsoRefusal("XX000", "42601") // the OID of no relation here is written as a number, which is no name of a table
			}
			t.attempt("SELECT query_to_xml('SELECT body FROM {beta}.canary', true, false, '')",
				"SELECT table_to_xml("+t.victimOID("canary")+"::oid::regclass, true, false, '')",
				"SELECT schema_to_xml('{beta}', true, false, '')",
				"SELECT ts_stat('SELECT to_tsvector(body) FROM {beta}.canary')",
				"SELECT ts_rewrite('a'::tsquery, 'SELECT to_tsquery(body), to_tsquery(body) FROM {beta}.canary')",
				"SELECT json_agg(c) FROM {beta}.canary c")
		}},
		{number: 28, sentence: "Read files and run programs of the server by COPY FROM and file functions", promise: always(refused), run: func(t *trial) {
			t.attempt("COPY own (body) FROM PROGRAM 'echo x'", "COPY own (body) FROM '/etc/passwd'", "SELECT pg_read_file('PG_VERSION')",
				"SELECT pg_read_binary_file('PG_VERSION')", "SELECT pg_ls_dir('.')", "SELECT pg_stat_file('PG_VERSION')", "SELECT pg_ls_logdir()",
				"SELECT pg_hba_file_rules()", "ALTER SYSTEM SET work_mem = '1GB'", "SELECT pg_reload_conf()", "SELECT pg_rotate_logfile()")
			t.attack("RESET ROLE", "SELECT pg_read_file('PG_VERSION')")
		}},
		{number: 80, sentence: "Write files and run programs of the server by COPY TO", promise: always(refused), run: func(t *trial) {
			t.attempt("COPY own TO PROGRAM 'cat'", "COPY (SELECT 1) TO PROGRAM 'cat'", "COPY own TO '/tmp/evil'", "COPY (SELECT 1) TO '/tmp/evil'")
			t.attack("RESET ROLE", "COPY (SELECT 1) TO PROGRAM 'cat'")
		}},
		{number: 81, sentence: "lo_import and lo_export of files of the server", promise: always(refused), run: func(t *trial) {
			t.attempt("SELECT lo_import('/etc/passwd')", "SELECT lo_import('/etc/passwd', 4711)", "SELECT lo_export({large object}, '/tmp/evil')")
		}},
		{number: 79, sentence: "Read pg_stat_statements, or create it", promise: always(refused), run: func(t *trial) {
			t.alsoRefusal("42P01", "42883", "58P01")
			t.attempt("SELECT query FROM pg_stat_statements", "SELECT query FROM ext.pg_stat_statements", "SELECT pg_stat_statements_reset()",
				"CREATE EXTENSION pg_stat_statements")
		}},
		{number: 85, sentence: "Dump the whole database as XML", promise: always(contained), run: func(t *trial) {
			t.alsoRefusal("54000")
			t.attempt("SELECT database_to_xml(true, false, '')", "SELECT database_to_xmlschema(true, false, '')",
				"SELECT * FROM information_schema.tables WHERE table_schema = '{beta}'", "SELECT * FROM pg_stats WHERE schemaname = '{beta}'",
				"SELECT most_common_vals FROM pg_stats")
		}},
	}
}

// victimOID is the oid of one of the victim's relations, which its catalogue tells anybody.
func (t *trial) victimOID(relation string) string {
	rows, err := t.superuser(t.ctx, "SELECT '{beta}."+relation+"'::regclass::oid")
	t.must(err)
	return rows[0][0]
}

func endBackends(t *trial) {
	victim := t.victim()
	pid := victim.must("BEGIN; SELECT pg_backend_pid()")
	for _, call := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
		for _, first := range []string{"", "RESET ROLE; "} {
			s := t.hostile()
			_, err := s.run(first + "SELECT " + call + "(" + pid + ")")
			t.tally(call, err)
			s.close()
		}
	}
	if _, err := victim.run("SELECT 1"); err != nil {
		t.leak("the victim's session ended: %v", err)
	}
	t.checks++
}

func queryText(t *trial) {
	victim := t.victim()
	asleep := make(chan error, 1)
	go func() {
		_, err := victim.run("SELECT pg_sleep(1), '{row secret}'")
		asleep <- err
	}()
	t.must(t.eventually(func() (bool, error) {
		rows, err := t.registry(t.ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%{row secret}%'")
		return err == nil && rows[0][0] == "1", err
	}))
	const look = "SELECT query, application_name FROM pg_stat_activity"
	t.attempt(look, "SELECT * FROM pg_stat_get_activity(NULL)")
	t.attack("RESET ROLE", look)
	t.must(<-asleep)
}

// eventually waits until a condition holds.
func (t *trial) eventually(holds func() (bool, error)) error {
	for {
		if yes, err := holds(); yes || err != nil {
			return err
		}
		select {
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
