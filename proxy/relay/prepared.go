package relay

import (
	"encoding/binary"
	"unique"
)

func (s *Session) parse(body, msg []byte, total int, out *Output) (bool, Verdict, error) {
	name, rest, ok := cutString(body)
	if !ok {
		return false, More, protocolViolation("invalid string in message")
	}
	if total > s.cfg.MaxStatementBytes {
		s.fail(&Error{Severity: "ERROR", Code: "54000", Message: "prepared statement is too long",
			Hint: "limits.max_statement_bytes bounds it."}, out)
		return false, More, nil
	}
	query, types, ok := cutString(rest)
	if !ok || len(types) < 2 || len(types) != 2+4*int(binary.BigEndian.Uint16(types)) {
		return false, More, protocolViolation("invalid message format")
	}
	if len(name) > 0 {
		if s.uncertain(name) {
			return false, Hold, nil
		}
		if s.statements[string(name)].defined() {
			s.fail(statementExists(name), out)
			return false, More, nil
		}
		if len(s.statements) >= s.cfg.MaxStatements || s.statementBytes+total > s.cfg.MaxStatementBytes {
			s.fail(tooManyStatements(), out)
			return false, More, nil
		}
	}
	found := scan(query)
	if found&traitShow != 0 {
		s.show(out)
	}
	s.notice(query, found)
	s.unnamedSerial++
	st := statement{
		text: unique.Make(statementText{query: string(query), types: string(types)}), traits: found,
		size: total, serial: s.unnamedSerial, born: s.cfg.Births.next(),
	}
	if len(name) == 0 {
		if dropped, ok := s.deallocated(query); ok {
			st.drops = dropped
			sql := s.dropText(st, out)
			s.expect(expectation{kind: expectParse, before: s.unnamed})
			s.unnamed = st
			s.server.unnamedOwner, s.server.unnamedSerial = s.cfg.ID, st.serial
			out.ToServer.keep(appendParse(out.ToServer.own(), "", sql, string(types)))
			return false, More, nil
		}
		s.expect(expectation{kind: expectParse, before: s.unnamed})
		s.unnamed = st
		s.server.unnamedOwner, s.server.unnamedSerial = s.cfg.ID, st.serial
		out.ToServer.pass(msg)
		return true, More, nil
	}
	s.define(string(name), st)
	// A client that prepares anew means it: what the server has of the same text may be of another time, before a
	// table was changed or while a temporary one was there.
	if old := s.server.byText[st.text]; old != nil {
		s.closeOurs(old, out)
	}
	s.makeRoom(out)
	n := s.server.prepare(st.text, s.segment, st.born, false)
	s.expect(expectation{kind: expectParse, name: string(name), named: n})
	out.ToServer.keep(appendParse(out.ToServer.own(), n.name, st.text.Value().query, st.text.Value().types))
	return false, More, nil
}

func (s *Session) define(name string, st statement) {
	if s.statements == nil {
		s.statements = make(map[string]statement)
	}
	s.statements[name] = st
	s.statementBytes += st.size
}

func (s *Session) undefine(name string) statement {
	st := s.statements[name]
	s.statementBytes -= st.size
	delete(s.statements, name)
	return st
}

// usable reports whether a statement on the server can be relied on by the message at hand. One that we put in
// during an earlier, still unanswered segment cannot: that segment may fail, and a client that knows its statement
// to exist would be told it does not.
func (s *Session) usable(n *namedStatement) bool {
	return n.ready || n.segment == s.segment || !n.ours
}

// ensure makes the server have the statement and returns its name there. One that the server has from before the client
// prepared its own is not relied on: its plan may be of tables that have been changed since.
func (s *Session) ensure(st statement, out *Output) *namedStatement {
	if n := s.server.byText[st.text]; n != nil && s.usable(n) {
		if n.born >= st.born || st.told != nil && n.shape == *st.told {
			s.server.touch(n)
			return n
		}
		s.closeOurs(n, out)
	}
	s.makeRoom(out)
	n := s.server.prepare(st.text, s.segment, s.cfg.Births.next(), true)
	s.expect(expectation{kind: expectOurParse, named: n})
	text := st.text.Value()
	if st.told != nil { // Postgres would have kept the types that it found then
		text.types = st.told.types
	}
	out.ToServer.keep(appendParse(out.ToServer.own(), n.name, text.query, text.types))
	return n
}

// ensureUnnamed makes the connection's unnamed statement the session's own.
func (s *Session) ensureUnnamed(out *Output) {
	if s.server.unnamedOwner == s.cfg.ID && s.server.unnamedSerial == s.unnamed.serial {
		return
	}
	text := s.unnamed.text.Value()
	if s.unnamed.drops != "" {
		text.query = s.dropText(s.unnamed, out)
	}
	s.expect(expectation{kind: expectOurParse})
	s.server.unnamedOwner, s.server.unnamedSerial = s.cfg.ID, s.unnamed.serial
	out.ToServer.keep(appendParse(out.ToServer.own(), "", text.query, text.types))
}

// makeRoom closes the statements that are too many on the server.
func (s *Session) makeRoom(out *Output) {
	for n := s.server.excess(); n != nil; n = s.server.excess() {
		s.closeOurs(n, out)
	}
}

func (s *Session) closeOurs(n *namedStatement, out *Output) {
	s.server.forget(n)
	s.expect(expectation{kind: expectOurClose, named: n})
	out.ToServer.keep(appendNamed(out.ToServer.own(), 'C', n.name))
}

// noStatement is a name that no statement of ours has.
const noStatement = "dx-"

// fail makes the server raise an error at this place of the pipeline, so that its transaction and its skipping are
// what they would be, and puts err in the place of its text.
func (s *Session) fail(err *Error, out *Output) {
	s.expect(expectation{kind: expectOurError, err: err})
	out.ToServer.keep(appendNamed(out.ToServer.own(), 'D', noStatement))
}

// uncertain reports whether the name was taken away in an earlier, still unanswered segment: should that one fail, the
// server has skipped it, and the name still stands for what it did. Its next use has to wait for the answer.
func (s *Session) uncertain(name []byte) bool {
	for i := 0; s.queue.taken > 0 && i < s.queue.len(); i++ {
		if e := s.queue.at(i); e.takesName() && e.name == string(name) && e.segment != s.segment {
			return true
		}
	}
	return false
}

// lookup finds what a client's name stands for. Where it stands for nothing, it makes the server fail, as it would, or
// has the message wait until that is certain.
func (s *Session) lookup(name []byte, kind byte, out *Output) (statement, Verdict) {
	st := s.resolve(name)
	if st.defined() {
		return st, More
	}
	if s.uncertain(name) {
		return st, Hold
	}
	s.fail(noSuchStatement(name, kind), out)
	return st, More
}

func (s *Session) resolve(name []byte) statement {
	if len(name) == 0 {
		return s.unnamed
	}
	return s.statements[string(name)]
}

func (s *Session) bind(body, msg []byte, total int, out *Output) (bool, Verdict, error) {
	portal, rest, ok := cutString(body)
	name, rest, ok2 := cutString(rest)
	if !ok || !ok2 {
		return false, More, protocolViolation("invalid string in message")
	}
	st, v := s.lookup(name, 'B', out)
	if !st.defined() {
		return false, v, nil
	}
	if st.traits&traitShow != 0 {
		s.show(out)
	}
	s.leaves |= st.traits & lasting
	s.resets = s.resets || st.traits&traitReset != 0
	if len(name) == 0 {
		s.ensureUnnamed(out)
		if s.drop = (drop{}); st.drops != "" {
			s.drop = drop{portal: string(portal), name: st.drops}
		}
		s.expect(expectation{kind: expectBind})
		out.ToServer.pass(msg)
		return true, More, nil
	}
	n := s.ensure(st, out)
	if ok, v := s.agree(st, n, out); !ok {
		return false, v, nil
	}
	s.expect(expectation{kind: expectBind, named: n, name: string(name)})
	b := append(out.ToServer.own(), 'B')
	b = binary.BigEndian.AppendUint32(b, uint32(total-1-len(name)+len(n.name)))
	b = append(append(b, portal...), 0)
	b = append(appendString(b, n.name), rest...)
	out.ToServer.keep(b)
	return true, More, nil
}

func (s *Session) describe(body, msg []byte, out *Output) (bool, Verdict, error) {
	name, ok := targetName(body)
	if !ok {
		return false, More, protocolViolation("invalid message format")
	}
	if body[0] == 'P' {
		s.expect(expectation{kind: expectDescribe})
		out.ToServer.pass(msg)
		return true, More, nil
	}
	st, v := s.lookup(name, 'D', out)
	if !st.defined() {
		return false, v, nil
	}
	if len(name) == 0 {
		s.ensureUnnamed(out)
		s.expect(expectation{kind: expectDescribe})
		out.ToServer.pass(msg)
		return true, More, nil
	}
	n := s.ensure(st, out)
	if ok, v := s.agree(st, n, out); !ok {
		return false, v, nil
	}
	s.expect(expectation{kind: expectDescribe, named: n, name: string(name)})
	out.ToServer.keep(appendNamed(out.ToServer.own(), 'D', n.name))
	return false, More, nil
}

func (s *Session) close(body, msg []byte, out *Output) (bool, Verdict, error) {
	name, ok := targetName(body)
	if !ok {
		return false, More, protocolViolation("invalid message format")
	}
	if body[0] == 'S' && len(name) > 0 {
		// The statement stays on the server for others; only the session's name goes.
		s.expect(expectation{kind: answerClose, name: string(name), before: s.undefine(string(name)), segment: s.segment})
		s.settle(out)
		return false, More, nil
	}
	e := expectation{kind: expectClose}
	if body[0] == 'S' {
		e.before, s.unnamed, s.server.unnamedOwner = s.unnamed, statement{}, 0
	}
	s.expect(e)
	out.ToServer.pass(msg)
	return true, More, nil
}

// targetName reads the body of a Describe or Close: S or P, and a name.
func targetName(body []byte) ([]byte, bool) {
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' {
		return nil, false
	}
	name, rest, ok := cutString(body[1:])
	return name, ok && len(rest) == 0
}
