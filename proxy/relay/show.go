package relay

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// show has the connection hold the session's own prepared statements and no other, under the client's names, for a text that
// reads them in pg_prepared_statements. What cannot be prepared any more is not seen; in a transaction a savepoint keeps that
// from ending it, which statements are not part of. In the middle of a pipeline all is left as it is.
func (s *Session) show(out *Output) {
	if !s.undisturbed() {
		return
	}
	s.hide(out)
	within := s.status == 'T'
	if within {
		s.askOurs("SAVEPOINT docex_show", out)
	}
	names := slices.SortedFunc(maps.Keys(s.statements), func(a, b string) int { // as they came, by which clients sort prepare_time
		return cmp.Compare(s.statements[a].born, s.statements[b].born)
	})
	for _, name := range names {
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
		if within {
			s.askOurs("ROLLBACK TO docex_show", out)
		}
	}
	if within {
		s.askOurs("RELEASE docex_show", out)
	}
	s.server.shownTo = s.cfg.ID
}

// askOurs sends a Query of ours of which nobody is told.
func (s *Session) askOurs(sql string, out *Output) {
	out.ToServer.keep(s.ownQuery(out.ToServer.own(), sql, expectOurSync))
}

// undisturbed reports whether what is under way, if anything, is ours alone, and nothing has failed.
func (s *Session) undisturbed() bool {
	for i := range s.queue.len() {
		if e := s.queue.at(i); !e.ours() && e.kind != expectOurSync && e.kind != expectOurClose && e.kind != expectShown {
			return false
		}
	}
	return s.status != 'E' && !s.unsynced && !s.skipping
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
