package relay

import "strings"

// deallocate answers a DEALLOCATE of a statement that the client prepared by protocol message: the server knows it
// under another name. It reports whether it did; any other text is the server's business.
func (s *Session) deallocate(body []byte, out *Output) bool {
	name, ok := s.deallocated(body)
	if !ok {
		return false
	}
	s.undefine(name)
	b, at := begin(out.ToClient.own(), 'C')
	out.ToClient.keep(end(appendString(b, "DEALLOCATE"), at))
	s.answerReady(out)
	return true
}

// forwardDeallocate does the same in the middle of a pipeline, where the answer has to come in its turn: the server
// drops the statement, under its own name.
func (s *Session) forwardDeallocate(name string, out *Output) {
	st := s.statements[name]
	n := s.ensure(st, out)
	s.server.forget(n)
	s.undefine(name)
	s.queue.push(expectation{kind: expectQuery, name: name, before: st, named: n, segment: s.segment})
	s.segment++
	s.unsynced = false
	s.unnamed, s.server.unnamedOwner = statement{}, 0
	out.ToServer.keep(appendQuery(out.ToServer.own(), "DEALLOCATE "+identifier(n.name)))
}

// deallocated reads a text that is nothing but a DEALLOCATE of one of the session's statements.
func (s *Session) deallocated(body []byte) (name string, ok bool) {
	if len(body) > 256 || !startsFold(body, "deallocate") {
		return "", false
	}
	text, _, ok := cutString(body)
	if !ok {
		return "", false
	}
	words := strings.Fields(strings.TrimRight(string(text), "; \t\r\n"))
	if len(words) == 3 && strings.EqualFold(words[1], "prepare") {
		words = append(words[:1], words[2])
	}
	if len(words) != 2 {
		return "", false
	}
	name = strings.ToLower(words[1])
	if quoted, ok := strings.CutPrefix(words[1], `"`); ok {
		name = strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `""`, `"`)
	}
	return name, s.statements[name].defined()
}
