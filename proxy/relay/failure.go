package relay

import "bytes"

// failed deals with an ErrorResponse and says whether the client gets it as it is.
func (s *Session) failed(head expectation, msg []byte, out *Output) (bool, error) {
	body := msg[headerLength:]
	severity := field(body, 'V')
	if severity == "" {
		severity = field(body, 'S')
	}
	if severity == "FATAL" || severity == "PANIC" {
		s.fatal = true
		return true, nil
	}
	s.copyIn = false
	forward := true
	switch head.kind {
	case expectSetting:
		return false, s.unsettled(body)
	case expectDiscard:
		return false, &BrokenServerError{Reason: "DISCARD ALL failed: " + field(body, 'M')}
	case expectAnswer:
		s.answer.failed = true
		return false, nil
	case expectOurSync:
		return false, nil
	case expectRestore:
		return false, nil // in a transaction that has failed: nothing was reset there
	case expectOurError:
		out.ToClient.keep(head.err.Append(out.ToClient.own()))
		forward = false
	case expectShown: // one whose tables are gone is not seen
		forward = false
	case expectBind, expectDescribe:
		forward = !s.distrust(head, body, out)
	case expectQuery:
		s.undo(head, true) // a DEALLOCATE that failed
	}
	if head.kind.extended() {
		s.skipToSync()
	}
	return forward, nil
}

// unsettled ends a session whose connection could not be brought to it. A statement of the client's that was sent behind may
// have been executed all the same: the server's own code would tell its driver that it was not.
func (s *Session) unsettled(body []byte) *Error {
	e := &Error{Severity: "FATAL", Code: field(body, 'C'), Message: field(body, 'M'), Hint: field(body, 'H')}
	s.skipping = true // what the client sends from here on goes nowhere
	for i := range s.queue.len() {
		if !s.queue.at(i).ours() {
			e.Message = "the server connection could not be brought to the session's settings: " + e.Message + " (SQLSTATE " + e.Code + ")"
			e.Code, e.Hint = "08006", "Connect again. Whether the statement was executed is not known."
			break
		}
	}
	return e
}

// distrust has a statement that the server refuses to use prepared again for its next user. Where the error names the
// statement, the client's name is put in the place of ours; it reports whether it has.
func (s *Session) distrust(head expectation, body []byte, out *Output) bool {
	if head.named == nil {
		return false
	}
	switch field(body, 'C') {
	case "26000": // the server does not have it, whatever we believed
		s.server.forget(head.named)
	case "0A000": // cached plan must not change result type
		s.server.abandon(head.named)
	}
	ours := []byte(`"` + head.named.name + `"`)
	if !bytes.Contains(body, ours) {
		return false
	}
	b, at := begin(out.ToClient.own(), 'E')
	b = append(b, bytes.ReplaceAll(body, ours, []byte(`"`+head.name+`"`))...)
	out.ToClient.keep(end(b, at))
	return true
}

// skipToSync takes back what the messages before the next Sync would have done: the server ignores them.
func (s *Session) skipToSync() {
	last := 0
	for last < s.queue.len() && s.queue.at(last).kind != expectSync && s.queue.at(last).kind != expectOurSync {
		last++
	}
	if last == s.queue.len() {
		s.skipping, s.unsynced = true, true
	}
	for i := last - 1; i >= 0; i-- {
		s.undo(*s.queue.at(i), i == 0)
	}
	for range last {
		s.queue.pop()
	}
}

func (s *Session) undo(e expectation, struck bool) {
	switch e.kind {
	case expectParse:
		if e.named != nil {
			s.server.forget(e.named)
		}
		if e.name != "" {
			s.undefine(e.name)
			return
		}
		// An unnamed Parse that failed has dropped its predecessor; one that was skipped has not.
		if s.unnamed = e.before; struck {
			s.unnamed = statement{}
		}
		s.server.unnamedOwner = 0
	case expectOurParse, expectShown:
		if e.named != nil {
			s.server.forget(e.named)
		} else {
			s.server.unnamedOwner = 0
		}
	case expectOurDescribe:
		e.named.asked = false
	case expectOurClose:
		if s.server.byText[e.named.text] == nil {
			s.server.insert(e.named)
		}
	case expectQuery, expectExecute:
		if e.before.defined() && !s.statements[e.name].defined() {
			s.define(e.name, e.before)
		}
		if e.named != nil && s.server.byText[e.named.text] == nil {
			s.server.insert(e.named)
		}
	case expectClose, answerClose:
		if e.name != "" && e.before.defined() {
			s.define(e.name, e.before)
		} else if e.before.defined() {
			s.unnamed = e.before
		}
	}
}
