package relay

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// discardAll resets a connection, and is the tag with which Postgres says that it has.
const discardAll = "DISCARD ALL"

// become turns a shared connection from whatever it was into the session's role, ahead of the client's first message
// and without waiting. Each step is a Query of its own, so that no later one, and no ROLLBACK of the client's, takes it
// back. The first cannot fail on an idle connection and leaves a role without rights: if a later one fails, what the
// client has pipelined behind it finds nothing it may read, and the session ends.
func (s *Session) become(out *Output) {
	b := s.ownQuery(out.ToServer.own(), "SET ROLE NONE", expectSetting)
	b = s.ownQuery(b, discardAll, expectDiscard)
	// random() would go on where the tenant before has set it; nothing else resets it.
	b = s.ownQuery(b, "SELECT pg_catalog.setseed("+s.seed()+"); SET ROLE "+identifier(s.cfg.Role), expectSetting)
	out.ToServer.keep(b)
	s.settling += 3
	s.server.forgetStatements()
	s.server.applied, s.server.role = Pairs{}, s.cfg.Role
}

// seed is a number between -1 and 1 that nobody else knows.
func (s *Session) seed() string {
	s.cfg.Seed += 0x9e3779b97f4a7c15 // splitmix64: one drawn number makes a sequence
	z := s.cfg.Seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return strconv.FormatFloat(float64(int64(z^z>>31))/(1<<63), 'f', 17, 64)
}

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// applySettings brings the connection to the session's settings, ahead of the client's first message and without
// waiting. RESET ALL is a Query of its own and cannot fail: if a value is refused after it, the connection has
// nothing of the session before, and this session ends.
func (s *Session) applySettings(out *Output) {
	b := out.ToServer.own()
	if s.server.applied != (Pairs{}) {
		b = s.ownQuery(b, "RESET ALL", expectSetting)
		s.settling++
	}
	if s.desired != (Pairs{}) {
		b = s.ownQuery(b, setConfig(s.desired.Map()), expectSetting)
		s.settling++
	}
	out.ToServer.keep(b)
	s.server.applied = s.desired
}

// ownQuery sends a Query of ours. Like any simple Query it drops the connection's unnamed statement.
func (s *Session) ownQuery(b []byte, sql string, k kind) []byte {
	s.queue.push(expectation{kind: k})
	s.server.unnamedOwner = 0
	return appendQuery(b, sql)
}

// restore brings those startup settings back that a RESET or its like has taken away: without a proxy it would have gone
// back to them. It is sent behind the client's message, whatever has become of that one, and sees to what is not set only.
func (s *Session) restore(out *Output) {
	var sql strings.Builder
	sql.WriteString("SELECT pg_catalog.set_config(v.name, v.value, false) FROM (VALUES ")
	values := s.cfg.Settings.Map()
	for i, name := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("(" + quote(name) + ", " + quote(values[name]) + ")")
	}
	// Custom settings are not listed (section 20.16); one that is not set reads as NULL, or as nothing after a RESET.
	sql.WriteString(") AS v (name, value) LEFT JOIN pg_catalog.pg_settings AS s ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) v.name" +
		" WHERE s.source OPERATOR(pg_catalog.<>) 'session' OR s.name IS NULL" +
		" AND coalesce(pg_catalog.current_setting(v.name, true), '') OPERATOR(pg_catalog.=) ''")
	s.restoring++
	out.ToServer.keep(s.ownQuery(out.ToServer.own(), sql.String(), expectRestore))
}

func setConfig(values map[string]string) string {
	var sql strings.Builder
	sql.WriteString("SELECT ")
	for i, name := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			sql.WriteString(", ")
		}
		sql.WriteString("pg_catalog.set_config(" + quote(name) + ", " + quote(values[name]) + ", false)")
	}
	return sql.String()
}

// quote writes a string literal that means the same whatever standard_conforming_strings says (section 4.1.2.2).
func quote(text string) string {
	return " E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

// reconcile tells the client where the connection's reported parameters differ from what it was told.
func (s *Session) reconcile(out *Output) { s.report(s.server.params, out) }

func (s *Session) report(now Pairs, out *Output) {
	if s.reported == now {
		return
	}
	told, values := s.reported.Map(), now.Map()
	b := out.ToClient.own()
	names := slices.SortedFunc(maps.Keys(values), func(a, b string) int { // as Postgres reports them
		return strings.Compare(strings.ToLower(a), strings.ToLower(b))
	})
	for _, name := range names {
		if old, ok := told[name]; !ok || old != values[name] {
			b = appendParameterStatus(b, name, values[name])
		}
	}
	out.ToClient.keep(b)
	s.reported = now
}

// parameter takes a ParameterStatus of the server. While settings are being applied the client is not told: what
// counts is where they end.
func (s *Session) parameter(head expectation, msg []byte) (bool, error) {
	name, rest, ok := cutString(msg[headerLength:])
	value, _, ok2 := cutString(rest)
	if !ok || !ok2 {
		return false, &BrokenServerError{Reason: "a malformed ParameterStatus"}
	}
	s.server.params = s.server.params.With(string(name), string(value))
	s.server.note(string(name), string(value))
	if s.settling > 0 || s.restoring > 0 {
		return false, nil
	}
	s.reported = s.reported.With(string(name), string(value))
	return true, nil
}

func mergeNames(names, more []string) []string {
	for _, name := range more {
		if !slices.Contains(names, name) && len(names) < maxCustoms {
			names = append(names, name)
		}
	}
	return names
}

// maxCustoms bounds the custom settings that a session carries.
const maxCustoms = 64

// startsSet reports whether a text begins with SET, leading white space aside.
func startsSet(text []byte) bool {
	for i, c := range text {
		if c > ' ' {
			return startsFold(text[i:], "set")
		}
	}
	return false
}
