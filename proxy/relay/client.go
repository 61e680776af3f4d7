package relay

import "strconv"

// FromClient takes bytes that the client sent. It consumes n of them; the rest is to be offered again, with more
// behind it. An error is always an *Error and ends the session.
func (s *Session) FromClient(b []byte, out *Output) (n int, v Verdict, err error) {
	for {
		n += s.forwardRest(b[n:], out)
		kind, total := frame(b[n:])
		if s.need = headerLength; s.clientRest > 0 || total == 0 {
			return n, More, nil
		}
		if err := checkFrame(kind, total); err != nil {
			return n, More, err
		}
		if s.held = s.asking || s.queue.len() >= maxOutstanding; s.held {
			return n, Hold, nil
		}
		msg := b[n:min(len(b), n+total)]
		if s.need = s.pieceOf(kind, total); len(msg) < s.need {
			return n, More, nil
		}
		forwarded, v, err := s.clientMessage(kind, msg, total, out)
		if err != nil || v != More {
			return n, v, err
		}
		n += len(msg)
		s.clientRest, s.dropRest = total-len(msg), !forwarded
	}
}

// forwardRest goes on with a message whose beginning has been dealt with.
func (s *Session) forwardRest(b []byte, out *Output) int {
	n := min(s.clientRest, len(b))
	if !s.dropRest {
		out.ToServer.pass(b[:n])
	}
	s.clientRest -= n
	return n
}

// pieceOf says how much of a message has to be there before it is dealt with.
func (s *Session) pieceOf(kind byte, total int) int {
	if kind == 'P' && total <= s.cfg.MaxStatementBytes {
		return total // kept, to be replayed on other connections
	}
	return min(total, wholeFrame)
}

// Postgres's own bounds of messages (PQ_SMALL_MESSAGE_LIMIT and PQ_LARGE_MESSAGE_LIMIT), type byte included.
const (
	maxSmallFrame = 1 + 10000
	maxLargeFrame = 1 + 0x3fffffff - 1
)

func checkFrame(kind byte, total int) error {
	limit := maxLargeFrame
	switch kind {
	case 'Q', 'P', 'B', 'F', 'd':
	case 'E', 'D', 'C', 'H', 'S', 'X', 'c', 'f':
		limit = maxSmallFrame
	default:
		return protocolViolation("invalid frontend message type " + strconv.Itoa(int(kind)))
	}
	if total < headerLength || total > limit {
		return protocolViolation("invalid message length")
	}
	return nil
}

// clientMessage deals with one message, of which msg is at least the piece that pieceOf asked for. forwarded says
// where the rest goes.
func (s *Session) clientMessage(kind byte, msg []byte, total int, out *Output) (forwarded bool, v Verdict, err error) {
	switch {
	case kind == 'X':
		return false, Terminate, nil
	case s.skipping && kind != 'S':
		return false, More, nil
	case s.server == nil:
		return s.whileDetached(kind, msg, total, out)
	}
	body := msg[headerLength:]
	switch kind {
	case 'Q':
		return s.query(body, msg, total, out)
	case 'F':
		s.request(expectFunction)
	case 'S':
		if s.copyIn {
			return false, More, nil // Postgres ignores Sync and Flush while it takes COPY data
		}
		s.skipping = false
		s.request(expectSync)
	case 'H':
		if s.copyIn {
			return false, More, nil
		}
	case 'P':
		return s.parse(body, msg, total, out)
	case 'B':
		return s.bind(body, msg, total, out)
	case 'D':
		return s.describe(body, msg, out)
	case 'C':
		return s.close(body, msg, out)
	case 'E':
		s.expect(expectation{kind: expectExecute})
	case 'd':
		if s.queue.len() == 0 {
			return false, More, nil // what is left of a COPY that has failed
		}
	case 'c', 'f':
		if s.queue.len() == 0 {
			return false, More, nil
		}
		s.copyIn = false
		s.queue.push(expectation{kind: markCopyEnd})
	}
	out.ToServer.pass(msg)
	return true, More, nil
}

// whileDetached deals with messages that need no server, and asks for one for the others.
func (s *Session) whileDetached(kind byte, msg []byte, total int, out *Output) (bool, Verdict, error) {
	switch {
	case kind == 'd' || kind == 'c' || kind == 'f' || kind == 'H':
		return false, More, nil
	case kind == 'S' && s.skipping:
		s.skipping, s.unsynced = false, false
		s.answerReady(out)
	case s.refusal != nil:
		s.refuse(kind, out)
	case kind == 'Q' && len(msg) == total && s.deallocate(msg[headerLength:], out):
	default:
		return false, Attach, nil
	}
	return false, More, nil
}

func (s *Session) refuse(kind byte, out *Output) {
	out.ToClient.keep(s.refusal.Append(out.ToClient.own()))
	s.refusal = nil
	if kind == 'Q' || kind == 'F' || kind == 'S' {
		s.answerReady(out)
		return
	}
	s.skipping, s.unsynced = true, true
}

func (s *Session) answerReady(out *Output) {
	out.ToClient.keep(appendReady(out.ToClient.own(), s.status))
	if s.status == 'I' {
		s.countTransaction()
	}
}

// request notes a message that ends with ReadyForQuery.
func (s *Session) request(k kind) {
	s.queue.push(expectation{kind: k})
	s.segment++
	s.unsynced = false
}

// expect notes an extended-protocol message.
func (s *Session) expect(e expectation) {
	s.queue.push(e)
	s.unsynced = true
}

func (s *Session) query(body, msg []byte, total int, out *Output) (bool, Verdict, error) {
	if len(msg) == total && !s.Busy() && s.status != 'E' && s.deallocate(body, out) {
		return false, More, nil
	}
	if name, ok := s.deallocated(body); ok && len(msg) == total {
		s.forwardDeallocate(name, out)
		return false, More, nil
	}
	s.notice(body, scan(body))
	s.unnamed = statement{} // a simple Query drops the unnamed statement
	s.server.unnamedOwner = 0
	s.request(expectQuery)
	out.ToServer.pass(msg)
	return true, More, nil
}

// notice remembers what a text may leave behind.
func (s *Session) notice(text []byte, found traits) {
	s.leaves |= found
	if found&traitSettings != 0 || startsSet(text) {
		s.customs = mergeNames(s.customs, customNames(text))
	}
}
