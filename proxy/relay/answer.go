package relay

import (
	"encoding/binary"
	"strings"
)

// Pins are the reasons why a session keeps its server connection beyond a transaction.
type Pins uint8

// The reasons. Postgres was asked and said that the state is there; PinUnknown where it could not be asked.
const (
	PinListen Pins = 1 << iota
	PinTemporary
	PinHold
	PinAdvisory
	PinPrepare
	PinUnknown
	PinSession // Config.Session
)

var pinNames = [...]string{"listen", "temporary", "hold", "advisory", "prepare", "unknown", "session"}

// Names lists the reasons in words: listen, temporary, hold, advisory, prepare, unknown, session.
func (p Pins) Names() []string {
	var names []string
	for i, name := range pinNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// answer collects what Postgres says of the session's state.
type answer struct {
	settings map[string]string
	pins     Pins
	strayed  bool // from Config.Occupies
	failed   bool
}

// What pins a session, as a condition that Postgres evaluates. Names and operators are qualified: the search_path
// belongs to the tenant.
const (
	askSettings = `SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings` +
		` WHERE source OPERATOR(pg_catalog.=) 'session' AND name OPERATOR(pg_catalog.!~~) 'transaction%'`
	askListen    = ` UNION ALL SELECT '', 'listen' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())`
	askTemporary = ` UNION ALL SELECT '', 'temporary' WHERE EXISTS (SELECT FROM pg_catalog.pg_class` +
		` WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())` +
		` OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())` +
		` OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())`
	askHold     = ` UNION ALL SELECT '', 'hold' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)`
	askAdvisory = ` UNION ALL SELECT '', 'advisory' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks` +
		` WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())`
	askPrepare = ` UNION ALL SELECT '', 'prepare' WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)`
)

// strayed is in the answer when the session is not at its role any more.
const strayed = "strayed"

// ask sends the question what the session's state is now. Only the parts that may have changed are asked for,
// besides the settings: some of the views are dear, or closed to tenants.
func (s *Session) ask(out *Output) {
	var sql strings.Builder
	sql.WriteString(askSettings)
	for _, name := range s.customs {
		sql.WriteString(" UNION ALL SELECT " + quote(name) + ", pg_catalog.current_setting(" + quote(name) + ", true)")
	}
	for _, part := range []struct {
		when traits
		pin  Pins
		sql  string
	}{
		{traitListen, PinListen, askListen}, {traitTemporary, PinTemporary, askTemporary}, {traitHold, PinHold, askHold},
		{traitAdvisory, PinAdvisory, askAdvisory}, {traitPrepare, PinPrepare, askPrepare},
	} {
		if s.leaves&part.when != 0 || s.pins&part.pin != 0 {
			sql.WriteString(part.sql)
		}
	}
	if s.cfg.Occupies != "" {
		sql.WriteString(" UNION ALL SELECT '', '" + strayed + "' WHERE CURRENT_USER OPERATOR(pg_catalog.<>) " + quote(s.cfg.Occupies))
	}
	s.asked, s.leaves, s.asking = s.leaves, 0, true
	s.answer = answer{settings: make(map[string]string)}
	out.ToServer.keep(s.ownQuery(out.ToServer.own(), sql.String(), expectAnswer))
}

// row reads one DataRow of the answer: two text columns.
func (a *answer) row(body []byte) {
	if len(body) < 2 || binary.BigEndian.Uint16(body) != 2 {
		a.failed = true
		return
	}
	name, rest, _, ok := cutColumn(body[2:])
	value, _, null, ok2 := cutColumn(rest)
	switch {
	case !ok || !ok2:
		a.failed = true
	case name != "":
		if !null && value != "" || !strings.Contains(name, ".") {
			a.settings[name] = value
		}
	case value == strayed:
		a.strayed = true
	default:
		for i, pin := range pinNames {
			if pin == value {
				a.pins |= 1 << i
			}
		}
	}
}

// cutColumn splits one column value off a DataRow. A NULL is null, with an empty value.
func cutColumn(b []byte) (value string, rest []byte, null, ok bool) {
	if len(b) < 4 {
		return "", nil, false, false
	}
	length := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	if length == -1 {
		return "", b, true, true
	}
	if length < 0 || int(length) > len(b) {
		return "", nil, false, false
	}
	return string(b[:length]), b[length:], false, true
}

// takeAnswer makes what Postgres said the session's own. A setting that is no longer set falls back to what the
// client asked for at its start, as RESET does without a proxy.
func (s *Session) takeAnswer(out *Output) {
	asked := s.asked
	s.asked, s.asking = 0, false
	if s.answer.failed {
		if s.again = !s.again; s.again {
			s.leaves |= asked // whoever canceled it has hardly meant it
			return
		}
		s.pin(s.pins | PinUnknown)
		return
	}
	s.again = false
	s.server.strayed = s.answer.strayed
	s.pin(s.answer.pins | s.pins&(PinUnknown|PinSession)) // what could not be seen once is not gone because it is not asked for now
	s.server.applied = NewPairs(s.answer.settings)
	if s.server.applied == s.desired {
		return
	}
	for name, value := range s.cfg.Settings.Map() {
		if _, ok := s.answer.settings[name]; !ok {
			s.answer.settings[name] = value
		}
	}
	s.desired = NewPairs(s.answer.settings)
	s.answer = answer{}
	if s.pins != 0 && s.server.applied != s.desired {
		s.applySettings(out) // there is no next connection on which it would be done
	}
}
