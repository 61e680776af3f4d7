package relay

import (
	"maps"
	"slices"
	"strings"
)

// show has the connection hold the session's own prepared statements and no other, under the client's names, for a text that
// reads them in pg_prepared_statements. Within a transaction it is left: a statement that cannot be prepared any more would
// end it. What cannot be prepared is not seen.
func (s *Session) show(out *Output) {
	if !s.betweenTransactions() {
		return
	}
	s.hide(out)
	for _, name := range slices.Sorted(maps.Keys(s.statements)) {
		if ourName(name) {
			continue
		}
		st := s.statements[name]
		n := &namedStatement{text: st.text, name: name, segment: s.segment, born: s.cfg.Births.next(), ours: true}
		s.server.insert(n)
		s.queue.push(expectation{kind: expectShown, named: n})
		text := st.text.Value()
		if st.told != nil {
			text.types = st.told.types
		}
		out.ToServer.keep(appendParse(out.ToServer.own(), name, text.query, text.types))
		s.syncOurs(out)
	}
	s.server.shownTo = s.cfg.ID
}

// betweenTransactions reports whether what is under way, if anything, is ours alone.
func (s *Session) betweenTransactions() bool {
	for i := range s.queue.len() {
		if e := s.queue.at(i); !e.ours() && e.kind != expectOurSync && e.kind != expectOurClose && e.kind != expectShown {
			return false
		}
	}
	return s.status == 'I' && !s.unsynced && !s.skipping
}

// hide closes all statements on the connection.
func (s *Session) hide(out *Output) {
	s.server.shownTo = 0
	if s.server.held == 0 {
		return
	}
	for s.server.held > 0 {
		n := s.server.recent.next
		s.server.forget(n)
		s.queue.push(expectation{kind: expectOurClose, named: n})
		out.ToServer.keep(appendNamed(out.ToServer.own(), 'C', n.name))
	}
	s.syncOurs(out)
}

func (s *Session) syncOurs(out *Output) {
	s.queue.push(expectation{kind: expectOurSync})
	out.ToServer.keep(append(out.ToServer.own(), 'S', 0, 0, 0, 4))
}

// ourName reports whether a name looks like one that prepare gives.
func ourName(name string) bool {
	digits, ok := strings.CutPrefix(name, "dx")
	return ok && strings.Trim(digits, "0123456789") == ""
}
