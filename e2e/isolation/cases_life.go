package main

import (
	"errors"
	"fmt"
	"time"
)

// lifeCases are about what the hostile tenant keeps: its role, its sessions, its transactions, the connections.
func lifeCases() []attack {
	own := promise{role: contained, database: contained, trusted: leaks}
	return []attack{
		{number: 45, sentence: "ALTER ROLE of its own role SET, for sessions to come", promise: own, run: alterOwnSettings},
		{number: 62, sentence: "A tenant that is suspended or deleted is cut off from its running sessions and at login", promise: always(refused), run: suspended},
		{number: 63, sentence: "Stay idle in a transaction, or run for ever, with all timeouts set to 0", promise: always(refused), run: withoutTimeouts},
		{number: 64, sentence: "Use the victim's prepared statement by its name, its text or the proxy's name for it", promise: always(contained), run: foreignStatement},
		{number: 75, sentence: "DEALLOCATE and Close of the victim's and the proxy's statements", promise: always(contained), run: deallocate},
		{number: 76, sentence: "FETCH, MOVE and CLOSE of the victim's cursor", promise: always(refused), run: foreignCursor},
		{number: 83, sentence: "ALTER ROLE of its own role PASSWORD, so that the proxy cannot log in", promise: own, run: alterOwnPassword},
		{number: 96, sentence: "Make its own server logins fail by a new password, then work beside the victim", promise: always(contained), run: failingLogins},
		{number: 93, sentence: "Hold all server connections in open transactions", promise: always(contained), run: holdAll},
	}
}

func alterOwnSettings(t *trial) {
	t.keepRoleSettings()
	for _, sql := range []string{"SET search_path = evil", "SET statement_timeout = '60s'", "SET role = '{beta role}'", "SET evil.setting = 'ATTACKER'",
		"SET default_transaction_read_only = on"} {
		for _, first := range []string{"", "RESET ROLE; "} {
			s := t.hostile()
			t.tallyOrFail(s, first+"ALTER ROLE CURRENT_USER "+sql)
			s.close()
		}
	}
	t.recycle()
	t.inspectNext(victims, nil)
}

// tallyOrFail tallies a statement that a setting of the attack's own may make fail in any way.
func (t *trial) tallyOrFail(s *session, sql string) {
	if _, err := s.run(sql); err == nil {
		t.accepted++
	} else {
		t.refusals[sqlstate(err)]++
	}
}

// recycle ends all server connections of tenants, so that the next sessions log in anew. One that is just being opened
// is ended by the next look.
func (t *trial) recycle() {
	t.must(t.eventually(func() (bool, error) {
		rows, err := t.registry(t.ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND (usename IN ('{alpha role}', '{beta role}', '{login}') OR usename LIKE 'docex\\_slot\\_%')`)
		return err == nil && rows[0][0] == "0", err
	}))
	t.pause(250 * time.Millisecond) // a connection that was used a moment ago is not looked at before it is used again
}

func alterOwnPassword(t *trial) {
	t.atEnd(t.keepPasswords())
	for _, first := range []string{"", "RESET ROLE; "} {
		s := t.hostile()
		t.tallyOrFail(s, first+"ALTER ROLE CURRENT_USER PASSWORD 'evil'")
		s.close()
	}
	t.recycle()
	t.inspectNext(victims, nil)
}

// keepPasswords returns what puts them back.
func (t *trial) keepPasswords() (restore func()) {
	rows, err := t.registry(t.ctx, "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('{alpha role}', '{login}')")
	t.must(err)
	return func() {
		for _, row := range rows {
			_, err := t.registry(t.ctx, fmt.Sprintf(`ALTER ROLE "%s" PASSWORD '%s'`, row[0], row[1]))
			t.must(err)
		}
	}
}

// failingLogins is about the proxy's books: connections that could not be opened must leave nothing in them that
// mixes up the tenants afterwards.
func failingLogins(t *trial) {
	restore := t.keepPasswords()
	t.atEnd(restore)
	t.inspectNext(tenants, nil) // so that the victim has no server connection
	for _, first := range []string{"", "RESET ROLE; "} {
		s := t.hostile()
		t.tallyOrFail(s, first+"ALTER ROLE CURRENT_USER PASSWORD 'evil'")
		s.close()
	}
	t.recycle()
	want := "08006"
	if t.level == levelSlot { // the slots get their password back, and the tenant's own role has no use for one
		want = ""
	}
	for range 4 * budget {
		s := t.hostile()
		if _, err := s.run("SELECT 1"); sqlstate(err) != want || want == "" && err != nil {
			t.abandon(fmt.Errorf("with the wrong password: %v", err))
		}
		s.close()
	}
	restore()
	for range 3 { // each in turn drives the other out of all connections, then they work side by side
		t.inspectNext(victims, runsAs(t.others.role))
		t.inspectNext(tenants, runsAs(t.own.role))
		hostile, victim := t.hostile(), t.victim()
		for _, pair := range []struct {
			s     *session
			whose string
			role  string
		}{{hostile, tenants, t.own.role}, {victim, victims, t.others.role}, {hostile, tenants, t.own.role}} {
			if err := runsAs(pair.role)(pair.s); err != nil {
				t.leak("%s session fails: %v", pair.whose, err)
			}
		}
		hostile.close()
		victim.close()
	}
}

// runsAs checks for whom Postgres takes a session.
func runsAs(want string) func(*session) error {
	return func(s *session) error {
		rows, err := s.run("SELECT current_user")
		if err == nil && rows[0][0] != want {
			s.t.leak("a session of %s runs as %s", want, rows[0][0])
		}
		return err
	}
}

func suspended(t *trial) {
	route := func(status string) {
		_, err := t.registry(t.ctx, "UPDATE docex_system.tenant_route SET status = '"+status+"' WHERE tenant_id = '"+t.attacker.tenant+"'")
		t.must(err)
	}
	t.alsoRefusal("55000", "57P01")
	// Runs before the sessions are closed, and after the last refusal.
	restore := func() {
		route("active")
		t.must(t.eventually(func() (bool, error) {
			s, err := t.open(t.attacker)
			if err == nil {
				s.close()
			}
			return err == nil, nil
		}))
	}
	for _, status := range []string{"suspended", "deleted"} {
		idle, busy := t.hostile(), t.hostile()
		busy.must("BEGIN")
		idle.must("SELECT 1")
		wires := []*wire{idle.hijack(), busy.hijack()}
		route(status)
		for _, w := range wires {
			t.must(w.SetReadDeadline(time.Now().Add(3 * time.Second)))
			err := w.refusal()
			if timedOut(err) {
				t.leak("a session goes on 3s after its tenant was %s", status)
				continue
			}
			t.tally(status, err)
		}
		t.login(t.attacker)
		restore()
	}
}

func timedOut(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout()
}

func withoutTimeouts(t *trial) {
	t.alsoRefusal("25P03", "57014", "57P05")
	limit := 12 * time.Second // the proxy's bounds are 4s and 5s
	const off = "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = 0"
	idle, busy := t.hostile(), t.hostile()
	idle.must(off)
	busy.must(off)
	idle.must("BEGIN")
	waiting, running := idle.hijack(), busy.hijack()
	running.say(queryMessage("SELECT pg_sleep(60)"))
	for _, w := range []*wire{waiting, running} {
		t.must(w.SetReadDeadline(time.Now().Add(limit)))
		err := w.refusal()
		if timedOut(err) {
			t.leak("still there after %s", limit)
			continue
		}
		t.tally("no timeouts", err)
	}
}

func foreignStatement(t *trial) {
	victim := t.victim()
	const sql = "SELECT body FROM shared_name"
	_, err := victim.conn.Prepare(t.ctx, "victims_own", sql, nil)
	t.must(err)
	for range 3 {
		t.must(victim.conn.ExecPrepared(t.ctx, "victims_own", nil, nil, nil).Read().Err)
	}
	rows, err := victim.run("SELECT name FROM pg_prepared_statements")
	t.must(err)
	t.alsoRefusal("26000")
	names := []string{"victims_own", "", "S_1", "s1", "docex_1"}
	for _, row := range rows {
		names = append(names, row[0])
	}
	for _, name := range names {
		s := t.hostile()
		t.tally("Bind of "+name, s.conn.ExecPrepared(t.ctx, name, nil, nil, nil).Read().Err)
		s.close()
		t.attempt(`EXECUTE "` + orUnnamed(name) + `"`)
	}
	s := t.hostile()
	_, err = s.conn.Prepare(t.ctx, "mine", sql, nil)
	t.must(err)
	for range 3 {
		t.must(s.conn.ExecPrepared(t.ctx, "mine", nil, nil, nil).Read().Err)
		t.must(victim.conn.ExecPrepared(t.ctx, "victims_own", nil, nil, nil).Read().Err)
	}
	t.accepted++
	t.mine(s)
}

func orUnnamed(name string) string {
	if name == "" {
		return "unnamed"
	}
	return name
}

// mine checks that the hostile tenant's statement of the same text reads its own table.
func (t *trial) mine(s *session) {
	r := s.conn.ExecPrepared(t.ctx, "mine", nil, nil, nil).Read()
	if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != "own row" {
		t.abandon(fmt.Errorf("its own statement: %v", r.Err))
	}
}

func deallocate(t *trial) {
	victim := t.victim()
	_, err := victim.conn.Prepare(t.ctx, "victims_own", "SELECT body FROM shared_name", nil)
	t.must(err)
	check := func(after string) {
		r := victim.conn.ExecPrepared(t.ctx, "victims_own", nil, nil, nil).Read()
		if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != t.rows.text {
			t.leak("after %s the victim's statement answers %v", after, r.Err)
		}
		t.checks++
	}
	check("nothing")
	for _, sql := range []string{"DEALLOCATE ALL", "DEALLOCATE victims_own", "DISCARD PLANS", "DISCARD ALL", "DISCARD SEQUENCES",
		"DO $$DECLARE r record; BEGIN FOR r IN SELECT name FROM pg_prepared_statements LOOP EXECUTE format('DEALLOCATE %I', r.name); END LOOP; END$$"} {
		s := t.hostile()
		t.alsoRefusal("26000")
		_, err := s.run(sql)
		t.tally(sql, err)
		s.close()
		check(sql)
	}
	w := t.hostile().hijack()
	w.say(message('C', []byte{'S'}, cText("victims_own")), message('C', []byte{'S'}, cText("")), syncMessage())
	w.until('Z')
	check("Close")
}

func foreignCursor(t *trial) {
	t.alsoRefusal("34000")
	victim := t.victim()
	victim.must("BEGIN; DECLARE victims_cursor CURSOR FOR SELECT body FROM canary")
	t.attempt("FETCH ALL FROM victims_cursor", "MOVE ALL IN victims_cursor", "CLOSE victims_cursor")
	if rows, err := victim.run("FETCH ALL FROM victims_cursor"); err != nil || len(rows) != 2 {
		t.leak("the victim's cursor gives %d rows, %v", len(rows), err)
	}
	t.checks++
}

// holdAll is about how long the victim has to wait: until the proxy ends the transactions that stand still.
func holdAll(t *trial) {
	for range budget + 2 {
		s := t.hostile()
		go s.run("BEGIN") //nolint:errcheck // those beyond the budget wait, and are not served before the trial ends
	}
	t.shortly()
	start := time.Now()
	s, err := t.open(t.prey)
	if err == nil {
		_, err = s.run("SELECT 1")
	}
	t.checks++
	if err != nil {
		t.leak("the victim was not served: %v", err)
	}
	t.note("the victim waited %s; idle_transaction is %s", time.Since(start).Round(100*time.Millisecond), idleTransaction)
}
