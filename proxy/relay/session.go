package relay

import (
	"hash/maphash"
	"sync/atomic"
)

// Verdict is what a driver has to do after a step.
type Verdict uint8

// The verdicts. FromClient returns More, Attach, Hold or Terminate; FromServer returns More or Release.
const (
	// More: everything that can be done with these bytes is done. Write the output and read on.
	More Verdict = iota
	// Attach: the next client message needs a server connection. Get one, call Attach, offer the rest again; or
	// call Refuse, and offer the rest again.
	Attach
	// Hold: the next message depends on an answer that is outstanding, or too many are. Offer the rest again after the
	// next FromServer.
	Hold
	// Terminate: the client said goodbye.
	Terminate
	// Release: nothing ties the session to its server connection. Call Detach and give the connection back.
	Release
)

const (
	// wholeFrame is the largest message, in bytes, that is always forwarded in one piece.
	wholeFrame = 16 << 10
	// maxOutstanding bounds the queue: pipelines longer than this wait for the server.
	maxOutstanding = 16 << 10
	// maxServerFrame bounds a server message that has to be read whole (errors, tags, parameters), in bytes.
	maxServerFrame = 4 << 20
)

// Config is what a session is made with.
type Config struct {
	ID       uint64 // unique among the sessions of the process, not zero
	Settings Pairs  // the client's startup parameters that are settings; names in lower case
	// Role is what the session has to be on a connection that tenants share, which logs in as nobody in particular;
	// "" on a connection that is the tenant's own. Settings then hold the tenant's search_path. Seed is drawn for the
	// session and feeds Postgres's random().
	Role string
	Seed uint64
	// Occupies is the role that the connection is given to the session with, where the session's own SQL can leave that role
	// and not come back; "" where it cannot leave, or where Role says what it has to be. See Server.Strayed.
	Occupies string
	// Hears says whether notifications of a server process are for this session; nil hears all. Postgres delivers them
	// to whoever listens in the same database.
	Hears func(process uint32) bool
	// MaxStatementBytes bounds the text of one prepared statement, MaxStatements their number in this session.
	MaxStatementBytes, MaxStatements int
	// Session has the session keep its server connection from its first statement to its end.
	Session bool
	// Births orders what sessions prepare. All sessions that share server connections have the same; nil is one of its own.
	Births *Births
}

// Births counts the statements that are prepared in a process, so that it can be told which of two is the younger one. It
// may be used by several sessions at a time.
type Births struct {
	count  atomic.Uint64
	shapes shapes
}

// NewBirths begins to count.
func NewBirths() *Births { return &Births{shapes: shapes{maphash.MakeSeed()}} }

func (b *Births) next() uint64 { return b.count.Add(1) }

// Session is the protocol state of one client's session. See the package comment. It is not safe for concurrent use.
type Session struct {
	cfg    Config
	server *Server // nil while detached

	queue queue

	segment  uint64 // counts the client's Query, FunctionCall and Sync messages
	status   byte   // of the last ReadyForQuery
	unsynced bool   // extended-protocol messages wait for their Sync
	skipping bool   // an error struck; the client's messages are ignored up to its Sync
	copyIn   bool   // the server takes COPY data and the client has not ended it
	doubtful bool   // the count of answers is no longer certain: never release

	clientRest int // bytes of the client's current message still to come
	serverRest int
	need       int
	dropRest   bool // the rest of the client's message goes nowhere
	dropServer bool
	fatal      bool // the server sent a FATAL error

	statements     map[string]statement
	statementBytes int
	unnamed        statement
	unnamedSerial  uint64
	types          string // of the ParameterDescription that came last

	desired   Pairs  // the settings this session lives with
	reported  Pairs  // the parameters the client was told of
	settling  int    // Queries of ours that bring the connection to the session, under way
	restoring int    // and such as bring startup settings back
	resets    bool   // a message since the last Sync may have taken some away
	drop      drop   // what the portal that was bound last deallocates
	process   uint32 // by which the client knows the session, 0 for none

	leaves  traits   // what may have been left behind since Postgres was last asked
	asked   traits   // what the open question is about
	held    bool     // a message of the client's waits for an answer
	asking  bool     // a question of ours is open; the client's next message waits, as it may depend on the answer
	again   bool     // it is asked for the second time, as the first got an error
	customs []string // custom settings this session has named
	answer  answer
	pins    Pins

	refusal      *Error // answer the next request with this
	transactions uint64
	untaken      int
	newPins      Pins
	everPins     Pins
}

// NewSession starts a detached session.
func NewSession(cfg Config) *Session {
	if cfg.Births == nil {
		cfg.Births = NewBirths()
	}
	return &Session{cfg: cfg, status: 'I', desired: cfg.Settings}
}

// Introduce says what process id the client has been told as its own.
func (s *Session) Introduce(process uint32) { s.process = process }

// Need is the number of bytes that the client's next message takes at least in one piece; 0 when any will do.
func (s *Session) Need() int { return s.need }

// Attached reports whether a server connection serves the session.
func (s *Session) Attached() bool { return s.server != nil }

// Shares reports whether the session runs on connections that tenants share.
func (s *Session) Shares() bool { return s.cfg.Role != "" }

// Busy reports whether the server owes an answer.
func (s *Session) Busy() bool { return s.queue.len() > 0 || s.unsynced && !s.skipping }

// Serving reports whether the client has a request under way or a transaction open: what is done for it, as against what is
// asked when it has been told that all is done.
func (s *Session) Serving() bool {
	return s.server != nil && (s.status != 'I' || s.Busy() && !s.asking)
}

// MidFrame reports whether the client stopped inside a message.
func (s *Session) MidFrame() bool { return s.clientRest > 0 }

// Clean reports whether the server connection may serve another session now.
func (s *Session) Clean() bool {
	return s.queue.len() == 0 && s.status == 'I' && !s.unsynced && !s.skipping && !s.doubtful && !s.fatal &&
		s.pins == 0 && s.leaves == 0 && !s.asking && s.serverRest == 0 && (s.clientRest == 0 || s.dropRest)
}

// SawFatal reports whether the server ended the connection with a FATAL error, which the client has been told.
func (s *Session) SawFatal() bool { return s.fatal }

// Status is the transaction status of the last ReadyForQuery: I, T or E.
func (s *Session) Status() byte { return s.status }

// Pins returns what ties the session to its connection.
func (s *Session) Pins() Pins { return s.pins }

// Transactions counts the ReadyForQuery messages with status I that the client got.
func (s *Session) Transactions() uint64 { return s.transactions }

// TakeTransactions counts those since it was last called.
func (s *Session) TakeTransactions() int {
	n := s.untaken
	s.untaken = 0
	return n
}

// pin is what ties the session to its connection from now on.
func (s *Session) pin(now Pins) {
	s.newPins |= now &^ s.pins
	s.everPins |= now
	s.pins = now
}

// EverPinned returns what has tied the session to a connection at any time.
func (s *Session) EverPinned() Pins { return s.everPins }

// TakePins returns the reasons that have come up since it was last called.
func (s *Session) TakePins() Pins {
	pins := s.newPins
	s.newPins = 0
	return pins
}

func (s *Session) countTransaction() {
	s.transactions++
	s.untaken++
}

// Attach gives the session a connection. What brings the connection to the session's settings is written to
// out.ToServer, and what the client has to be told to out.ToClient.
func (s *Session) Attach(server *Server, out *Output) {
	s.server, s.status, s.fatal = server, 'I', false
	s.queue.borrow(&server.ring)
	if server.shownTo != 0 && server.shownTo != s.cfg.ID {
		s.hide(out)
	}
	if s.cfg.Role != "" && server.role != s.cfg.Role {
		s.become(out)
	}
	if server.applied != s.desired {
		s.applySettings(out)
	}
	if s.settling == 0 {
		s.reconcile(out)
	}
}

// Detach takes the connection away. Call it after Release, or when the connection is lost.
func (s *Session) Detach() {
	s.queue.giveBack(&s.server.ring)
	s.server = nil
}

// Parameters returns what the client has been told of, for a later session with the same settings.
func (s *Session) Parameters() Pairs { return s.reported }

// Report tells the client of parameters known from an earlier session, so that a login needs no connection.
func (s *Session) Report(parameters Pairs, out *Output) { s.report(parameters, out) }

// Refuse answers the client's next request with an error instead of a server's answer, and leaves the session usable.
func (s *Session) Refuse(err *Error) { s.refusal = err }
