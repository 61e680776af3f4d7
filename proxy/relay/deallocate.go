package relay

import (
	"bytes"
	"strings"
)

// drop is a DEALLOCATE by the extended protocol that has been bound and waits for its Execute. The zero value is none.
type drop struct{ portal, name string }

// dropText is the text for an unnamed statement that deallocates one of the session's, by the name that the connection has
// it under; the connection is made to have it.
func (s *Session) dropText(st statement, out *Output) string {
	target := s.statements[st.drops]
	if !target.defined() {
		return st.text.Value().query // gone meanwhile, as Postgres will say
	}
	return "DEALLOCATE " + identifier(s.ensure(target, out).name)
}

// execute notes an Execute. One of a DEALLOCATE takes the statement's name away, unless it fails or is skipped.
func (s *Session) execute(body []byte) {
	e := expectation{kind: expectExecute}
	if s.drop.name != "" {
		if portal, _, ok := cutString(body); ok && string(portal) == s.drop.portal && s.statements[s.drop.name].defined() {
			e.name, e.before, e.segment = s.drop.name, s.undefine(s.drop.name), s.segment
			if e.named = s.server.byText[e.before.text]; e.named != nil {
				s.server.forget(e.named)
			}
		}
		s.drop = drop{}
	}
	s.expect(e)
}

// deallocate answers a DEALLOCATE of a statement that the client prepared by protocol message: the server knows it
// under another name. It reports whether it did; any other text is the server's business.
func (s *Session) deallocate(body []byte, out *Output) bool {
	name, ok := s.deallocatedBy(body)
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

// deallocatedBy reads the body of a Query.
func (s *Session) deallocatedBy(body []byte) (name string, ok bool) {
	text, _, ok := cutString(body)
	if !ok {
		return "", false
	}
	return s.deallocated(text)
}

// longestDeallocate bounds the text that is looked at, in bytes.
const longestDeallocate = 1024

// deallocated reads a text that is nothing but a DEALLOCATE of one of the session's statements.
func (s *Session) deallocated(text []byte) (name string, ok bool) {
	if len(text) > longestDeallocate || len(s.statements) == 0 {
		return "", false
	}
	if text = skipSpace(text); !startsFold(text, "deallocate") {
		return "", false
	}
	text = skipSpace(text[len("deallocate"):])
	if rest := text; startsFold(rest, "prepare") {
		if rest = skipSpace(rest[len("prepare"):]); len(rest) > 0 && rest[0] != ';' { // else it is the name
			text = rest
		}
	}
	name, text = cutIdentifier(text)
	if text = skipSpace(text); len(text) > 0 && text[0] == ';' {
		text = skipSpace(text[1:])
	}
	return name, len(text) == 0 && s.statements[name].defined()
}

// skipSpace skips white space and comments (sections 4.1.5 and 4.1.1).
func skipSpace(text []byte) []byte {
	for {
		switch {
		case len(text) == 0:
			return text
		case text[0] <= ' ':
			text = text[1:]
		case startsFold(text, "--"):
			_, text, _ = bytes.Cut(text, []byte("\n"))
		case startsFold(text, "/*"):
			rest, ok := skipComment(text)
			if !ok {
				return text
			}
			text = rest
		default:
			return text
		}
	}
}

// skipComment skips one comment, with those inside of it.
func skipComment(text []byte) (rest []byte, ok bool) {
	for depth, i := 0, 0; i+1 < len(text); {
		switch string(text[i : i+2]) {
		case "/*":
			depth++
			i += 2
		case "*/":
			i += 2
			if depth--; depth == 0 {
				return text[i:], true
			}
		default:
			i++
		}
	}
	return text, false
}

// cutIdentifier splits a name off a text, as Postgres reads it; "" where there is none.
func cutIdentifier(text []byte) (name string, rest []byte) {
	if len(text) > 0 && text[0] == '"' {
		for i := 1; i < len(text); i++ {
			if text[i] != '"' {
				continue
			}
			if i+1 < len(text) && text[i+1] == '"' {
				i++
				continue
			}
			return strings.ReplaceAll(string(text[1:i]), `""`, `"`), text[i+1:]
		}
		return "", text
	}
	end := 0
	for end < len(text) && (text[end] == '_' || text[end] == '$' || text[end] >= 0x80 || '0' <= text[end] && text[end] <= '9' ||
		'a' <= text[end]|0x20 && text[end]|0x20 <= 'z') {
		end++
	}
	return strings.ToLower(string(text[:end])), text[end:]
}
