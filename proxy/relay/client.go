package relay

import (
	"encoding/binary"
	"slices"
	"strconv"
)

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
	if s.cfg.Session && s.pins == 0 {
		s.pin(PinSession)
	}
	body := msg[headerLength:]
	switch kind {
	case 'Q':
		return s.query(body, msg, total, out)
	case 'F':
		s.noticeFunction(body)
		s.request(expectFunction)
	case 'S':
		if s.copyIn {
			return false, More, nil // Postgres ignores Sync and Flush while it takes COPY data
		}
		s.skipping = false
		return s.sync(msg, out)
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
		s.execute(body)
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
	if name, ok := s.deallocatedBy(body); ok && len(msg) == total {
		s.forwardDeallocate(name, out)
		return false, More, nil
	}
	found := scan(body)
	if found&traitShow != 0 {
		s.show(out)
	}
	s.notice(body, found)
	s.unnamed = statement{} // a simple Query drops the unnamed statement
	s.server.unnamedOwner = 0
	s.request(expectQuery)
	out.ToServer.pass(msg)
	if found&traitReset != 0 && len(msg) == total {
		s.mend(out)
	}
	return true, More, nil
}

func (s *Session) sync(msg []byte, out *Output) (bool, Verdict, error) {
	s.request(expectSync)
	out.ToServer.pass(msg)
	if s.resets {
		s.resets = false
		s.mend(out)
	}
	return true, More, nil
}

// mend brings startup settings back behind the request that has just been sent, before the client is told that it is done.
func (s *Session) mend(out *Output) {
	if s.cfg.Settings != (Pairs{}) {
		s.queue.last().restores = true
		s.restore(out)
	}
}

// largeObjectIDs are the object ids of lo_open, lo_close, loread, lowrite, lo_lseek, lo_creat, lo_tell, lo_unlink, lo_create,
// lo_truncate, and the three with 64 bits.
var largeObjectIDs = [...]uint32{952, 953, 954, 955, 956, 957, 958, 964, 715, 1004, 3170, 3171, 3172}

// setConfigID is the object id of set_config(text, text, boolean).
const setConfigID = 2078

// noticeFunction does the same for a FunctionCall (section 55.7). All but the functions for large objects may do anything.
func (s *Session) noticeFunction(body []byte) {
	if len(body) < 4 {
		return
	}
	id := binary.BigEndian.Uint32(body)
	if slices.Contains(largeObjectIDs[:], id) {
		return
	}
	s.leaves |= allTraits
	if id == setConfigID {
		s.customs = mergeNames(s.customs, appendCustom(nil, firstArgument(body)))
	}
}

// firstArgument is the text that a FunctionCall passes first, "" where there is none.
func firstArgument(body []byte) string {
	if len(body) < 6 {
		return ""
	}
	at := 6 + 2*int(binary.BigEndian.Uint16(body[4:])) + 2 // behind the formats and the number of arguments
	if len(body) < at+4 {
		return ""
	}
	length := int(int32(binary.BigEndian.Uint32(body[at:])))
	if length < 0 || length > len(body)-at-4 {
		return ""
	}
	return string(body[at+4 : at+4+length])
}

// notice remembers what a text may leave behind.
func (s *Session) notice(text []byte, found traits) {
	s.leaves |= found & lasting
	if found&traitSettings != 0 || startsSet(text) {
		s.customs = mergeNames(s.customs, customNames(text))
	}
}
