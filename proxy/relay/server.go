package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// BrokenServerError says that a server connection broke the protocol; it must be closed.
type BrokenServerError struct{ Reason string }

func (e *BrokenServerError) Error() string {
	return "server connection broke the protocol: " + e.Reason
}

// FromServer takes bytes that the attached server connection sent, and consumes n of them. An error is either an
// *Error, which ends the session and is for the client, or a *BrokenServerError.
func (s *Session) FromServer(b []byte, out *Output) (n int, v Verdict, err error) {
	for {
		n += s.relayRest(b[n:], out)
		if s.serverRest > 0 {
			break
		}
		s.settle(out)
		kind, total := frame(b[n:])
		if total == 0 {
			break
		}
		if total < headerLength {
			return n, More, &BrokenServerError{Reason: "a message with a negative length"}
		}
		msg := b[n:min(len(b), n+total)]
		if len(msg) < total && !s.inPieces(kind) {
			if total > maxServerFrame {
				return n, More, &BrokenServerError{Reason: fmt.Sprintf("a message %q of %d bytes", kind, total)}
			}
			break
		}
		forward, err := s.serverMessage(kind, msg, out)
		if err != nil {
			return n, More, err
		}
		if forward {
			out.ToClient.pass(msg)
		}
		n += len(msg)
		s.serverRest, s.dropServer = total-len(msg), !forward
		if kind == 'Z' {
			s.afterReady(out)
		}
	}
	if n == len(b) && s.Clean() {
		return n, Release, nil
	}
	return n, More, nil
}

func (s *Session) relayRest(b []byte, out *Output) int {
	n := min(s.serverRest, len(b))
	if !s.dropServer {
		out.ToClient.pass(b[:n])
	}
	s.serverRest -= n
	return n
}

// inPieces reports whether a server message can be dealt with by its header alone.
func (s *Session) inPieces(kind byte) bool {
	switch kind {
	case 'D':
		return s.head().kind != expectAnswer
	case 'T', 't':
		return s.head().named == nil // else it is read
	case 'd', 'N', 'V', 'G', 'H', 'W':
		return true
	}
	return false
}

func (s *Session) head() expectation {
	if s.queue.len() == 0 {
		return expectation{}
	}
	return *s.queue.at(0)
}

// ours reports whether the answer under way is to a Query of ours.
func (e expectation) ours() bool {
	return e.kind == expectSetting || e.kind == expectDiscard || e.kind == expectAnswer || e.kind == expectRestore || e.kind == expectOurSync
}

// settle answers, in their turn, the messages that need no server.
func (s *Session) settle(out *Output) {
	for s.queue.len() > 0 && s.queue.at(0).kind.unanswered() {
		if s.queue.pop().kind == answerClose {
			out.ToClient.keep(appendEmpty(out.ToClient.own(), '3'))
		}
	}
}

// serverMessage deals with one message and says whether the client gets it.
func (s *Session) serverMessage(kind byte, msg []byte, out *Output) (forward bool, err error) {
	head := s.head()
	switch kind {
	case 'D':
		if head.kind == expectAnswer {
			s.answer.row(msg[headerLength:])
		}
		return !head.ours(), nil
	case 'd', 'c', 'V', 'H', 'N':
		return !head.ours(), nil
	case 't':
		s.parameters(msg[headerLength:])
		return head.kind != expectOurDescribe, nil
	case 'T', 'n':
		if head.kind == expectDescribe || head.kind == expectOurDescribe {
			if err := s.described(head, kind, msg[headerLength:]); err != nil {
				return false, err
			}
			s.queue.pop()
		}
		return !head.ours() && head.kind != expectOurDescribe, nil
	case '1':
		return s.parsed(head)
	case '2':
		return s.complete(head, expectBind, kind)
	case '3':
		if head.kind == expectOurClose {
			s.queue.pop()
			return false, nil
		}
		return s.complete(head, expectClose, kind)
	case 'C', 's', 'I':
		return s.executed(head, kind, msg)
	case 'Z':
		return s.ready(head, msg, out)
	case 'E':
		return s.failed(head, msg, out)
	case 'S':
		return s.parameter(head, msg)
	case 'A':
		return s.notified(msg, out), nil
	case 'G':
		s.copyStarts()
		return true, nil
	case 'W':
		s.doubtful = true // CopyBoth is for replication, which the proxy does not offer
		return true, nil
	}
	return false, &BrokenServerError{Reason: fmt.Sprintf("an unexpected message %q", kind)}
}

// notified reports whether a notification is for the client as it is: it listens, and the sender may be heard. Where the
// sender is the session itself, it is told so by the process id that it knows as its own.
func (s *Session) notified(msg []byte, out *Output) bool {
	body := msg[headerLength:]
	if s.pins&(PinListen|PinSession) == 0 && (s.leaves|s.asked)&traitListen == 0 || len(body) < 4 {
		return false
	}
	sender := binary.BigEndian.Uint32(body)
	if s.cfg.Hears != nil && !s.cfg.Hears(sender) {
		return false
	}
	if sender != s.server.process || s.process == 0 {
		return true
	}
	b, at := begin(out.ToClient.own(), 'A')
	b = binary.BigEndian.AppendUint32(b, s.process)
	out.ToClient.keep(end(append(b, body[4:]...), at))
	return false
}

func (s *Session) complete(head expectation, want kind, got byte) (bool, error) {
	if head.kind != want {
		return false, &BrokenServerError{Reason: fmt.Sprintf("an answer %q that nothing asked for", got)}
	}
	s.queue.pop()
	return true, nil
}

func (s *Session) parsed(head expectation) (bool, error) {
	if head.named != nil {
		head.named.ready = true
	}
	if head.kind == expectOurParse || head.kind == expectShown {
		s.queue.pop()
		return false, nil
	}
	return s.complete(head, expectParse, '1')
}

func (s *Session) executed(head expectation, kind byte, msg []byte) (bool, error) {
	s.copyIn = false
	tag := bytes.TrimRight(msg[headerLength:], "\x00")
	switch {
	case head.kind == expectDiscard && (kind != 'C' || string(tag) != discardAll):
		return false, &BrokenServerError{Reason: "DISCARD ALL was not done"}
	case kind == 'C' && !head.ours():
		s.completedCommand(tag)
	}
	if head.kind == expectExecute {
		s.queue.pop()
	}
	return !head.ours(), nil
}

func (s *Session) completedCommand(tag []byte) {
	found := tagTraits(tag)
	s.leaves |= found &^ traitGone
	if found&traitGone == 0 {
		return
	}
	if s.pins != 0 {
		s.leaves |= traitGone
	}
	if string(tag) == discardAll {
		s.pins &^= PinUnknown
	}
	if all := string(tag); all == discardAll || all == "DEALLOCATE ALL" {
		s.server.forgetStatements()
		clear(s.statements)
		s.statementBytes, s.unnamed = 0, statement{}
	}
}

// copyStarts handles CopyInResponse. Postgres ignores a Sync that it reads while it takes COPY data, so those that
// are on their way get no answer, up to the client's CopyDone or CopyFail.
func (s *Session) copyStarts() {
	s.copyIn = true
	for i := 1; i < s.queue.len(); {
		switch s.queue.at(i).kind {
		case markCopyEnd:
			s.copyIn = false
			return
		case expectSync:
			s.queue.remove(i)
			s.unsynced = s.head().kind == expectExecute
		default:
			i++
		}
	}
}

func (s *Session) ready(head expectation, msg []byte, out *Output) (bool, error) {
	if len(msg) != headerLength+1 {
		return false, &BrokenServerError{Reason: "a malformed ReadyForQuery"}
	}
	s.status = msg[headerLength]
	s.copyIn = false
	switch head.kind {
	case expectSetting, expectDiscard:
		s.queue.pop()
		if s.settling--; s.settling == 0 {
			s.reconcile(out)
		}
		return false, nil
	case expectAnswer:
		s.queue.pop()
		s.takeAnswer(out)
		return false, nil
	case expectRestore:
		s.queue.pop()
		if s.restoring--; s.restoring == 0 {
			s.reconcile(out)
		}
	case expectOurSync:
		s.queue.pop()
		return false, nil
	case expectQuery, expectFunction, expectSync:
		s.queue.pop()
		if head.restores {
			return false, nil // the client is ready when its startup settings are
		}
	case 0:
		// A Sync that was taken for one that COPY swallows. The server is ready, so we are; but stop trusting the count.
		s.skipping, s.unsynced, s.doubtful = false, false, true
	default:
		return false, &BrokenServerError{Reason: "a ReadyForQuery that nothing asked for"}
	}
	if s.status == 'I' {
		s.countTransaction()
	}
	return true, nil
}

// afterReady asks for what the transaction has left behind, once nothing else is under way.
func (s *Session) afterReady(out *Output) {
	s.settle(out)
	if s.pins&PinSession != 0 {
		s.leaves = 0 // the connection is nobody else's any more
		return
	}
	if s.leaves != 0 && s.status == 'I' && s.queue.len() == 0 && !s.unsynced && !s.skipping && (s.clientRest == 0 || s.dropRest) {
		if s.leaves&traitSettings != 0 {
			s.server.role = "" // SET and its like may have changed it; pg_settings would not tell
		}
		s.ask(out)
	}
}
