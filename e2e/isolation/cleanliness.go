package main

import (
	"fmt"
	"slices"
)

// cleanliness is what a session can find out about the connection that serves it, by name. All sessions of a tenant
// have to find the same.
type cleanliness map[string]string

// inspection is what is looked at within one transaction. Names that start with evil are those that attacks leave.
const inspection = `
SELECT 'setting ' || name, setting FROM pg_settings
UNION ALL SELECT 'user', current_user
UNION ALL SELECT 'session user', session_user
UNION ALL SELECT 'schema', current_schema()
UNION ALL SELECT 'database', current_database()
UNION ALL SELECT 'custom setting', coalesce(current_setting('evil.setting', true), '')
UNION ALL SELECT 'custom setting', coalesce(current_setting('docex.user_id', true), '')
UNION ALL SELECT 'custom setting', coalesce(current_setting('docex.roles', true), '')
UNION ALL SELECT 'temporary', count(*)::text FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'temporary function', count(*)::text FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
UNION ALL SELECT 'statement', count(*)::text FROM pg_prepared_statements WHERE name LIKE 'evil%'
UNION ALL SELECT 'statement text', count(*)::text FROM pg_prepared_statements WHERE statement LIKE '%ATTACKER%'
UNION ALL SELECT 'cursor', count(*)::text FROM pg_cursors WHERE name LIKE 'evil%'
UNION ALL SELECT 'channel', count(*)::text FROM pg_listening_channels()
UNION ALL SELECT 'advisory lock', count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'transaction', (pg_current_xact_id_if_assigned() IS NOT NULL)::text
UNION ALL SELECT 'catalogue', (count(*) > 100)::text FROM pg_class
UNION ALL SELECT 'arithmetic', (1 + 1)::text || lower('X')
UNION ALL SELECT 'strings', length('\')::text`

// inspect looks at the session's connection. Everything it reads has to be the session's own answer.
func (s *session) inspect() (cleanliness, error) {
	rows, err := s.run(inspection)
	if err != nil {
		return nil, err
	}
	found := make(cleanliness, len(rows))
	for _, row := range rows {
		if len(row) != 2 {
			return nil, fmt.Errorf("an answer that nothing asked for: %q", row)
		}
		found[row[0]] += row[1] + "\n"
	}
	return found, nil
}

// learnPristine notes what a session finds on a connection that no attack has touched.
func (t *trial) learnPristine() {
	s := t.victim()
	s.must("BEGIN")
	found, err := s.inspect()
	t.must(err)
	t.arena.pristine = found
	s.must("ROLLBACK")
	t.checks++
}

// differs records where a session is not as a session of the victim's was at first. The hostile tenant's own sessions
// differ in who they are, and may see the text of statements that the proxy keeps prepared for all of them.
func (t *trial) differs(whose string, found cleanliness) {
	differ := []string{"user", "session user", "schema", "database", "setting search_path", "statement text"}
	for name, value := range t.pristine {
		if whose != victims && slices.Contains(differ, name) {
			continue
		}
		if name == "session user" && t.level == levelSlot { // whichever slot it is
			if !slotUser.MatchString(found[name]) {
				t.leak("%s next session is logged in as %q, which is no slot", whose, found[name])
			}
			continue
		}
		if found[name] != value {
			t.leak("%s next session: %s is %.40q, not %.40q", whose, name, found[name], value)
		}
	}
}

const (
	victims = "the victim's"
	tenants = "the tenant's"
)

// inspectNext opens as many sessions as there are server connections, all at once, so that one of them gets what an
// attack has left wherever it was left; each must find nothing. It returns the process ids they were served by.
func (t *trial) inspectNext(whose string, further func(*session) error) (backends []string) {
	who := t.prey
	if whose == tenants {
		who = t.accomplice
	}
	t.checks++
	var open []*session
	for range budget {
		s, err := t.open(who)
		if err != nil {
			t.leak("%s next session is not let in: %v", whose, err)
			return backends
		}
		open = append(open, s)
		backend, err := s.examine(whose, further)
		if err != nil {
			t.leak("%s next session fails: %v", whose, err)
			return backends
		}
		backends = append(backends, backend)
	}
	for _, s := range open {
		s.close()
	}
	return backends
}

// examine leaves the session in a transaction, so that it keeps its connection.
func (s *session) examine(whose string, further func(*session) error) (backend string, err error) {
	rows, err := s.run("BEGIN; SELECT pg_backend_pid()")
	if err != nil {
		return "", err
	}
	found, err := s.inspect()
	if err != nil {
		return "", err
	}
	s.t.differs(whose, found)
	if whose == victims {
		answer, err := s.run("SELECT count(*) FROM canary WHERE body = '{row secret}'; SELECT body FROM shared_name")
		if err != nil {
			return "", err
		}
		if len(answer) != 2 || answer[0][0] != "2" || answer[1][0] != s.t.rows.text {
			s.t.leak("the victim's next session does not find its own rows")
		}
	}
	if further != nil {
		err = further(s)
	}
	return rows[0][0], err
}

// exact fails when a session is answered with anything but its own answer.
func (s *session) exact(whose string) {
	s.t.checks++
	for _, run := range []func(string) ([][]string, error){s.run, s.runExtended} {
		want := random()
		rows, err := run("SELECT '" + want + "'")
		switch {
		case err != nil:
			s.t.leak("%s session fails: %v", whose, err)
		case len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] != want:
			s.t.leak("%s session is given another answer than its own", whose)
		}
	}
}
