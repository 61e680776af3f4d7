package relay

import (
	"strconv"
	"unique"
)

// statementText is the content of a Parse: two statements with the same content share one name on a server.
type statementText struct {
	query string
	types string // the parameter types as on the wire: a count and object ids
}

// statement is what a session's name stands for. The zero value stands for none.
type statement struct {
	text   unique.Handle[statementText]
	traits traits
	size   int // bytes of the text, for the session's account
	serial uint64
	drops  string       // the name of the statement that it deallocates, "" for any other text; unnamed ones only
	born   uint64       // by Config.Births, when the client prepared it
	told   *description // what the client was told of it, nil before
}

func (s statement) defined() bool { return s != statement{} }

// namedStatement is a prepared statement of ours on one server connection.
type namedStatement struct {
	text unique.Handle[statementText]
	name string
	// ready says that ParseComplete has come. Until then the Parse is under way, sent in segment.
	ready   bool
	segment uint64
	born    uint64      // by Config.Births
	shape   description // what it is, once it has been described; else the zero value
	asked   bool        // a Describe of ours is under way
	// ours says that the Parse was put in by us for a Bind or Describe, not sent by the client.
	ours       bool
	prev, next *namedStatement
}

// Server is what is known about one server connection's session state. It lives as long as the connection and
// belongs to the Session that is attached to it.
type Server struct {
	process  uint32 // of the server's backend
	standby  bool   // it is one, by its last report
	readOnly bool   // default_transaction_read_only, by its last report
	params   Pairs  // what ParameterStatus last reported
	applied  Pairs  // the settings in force beyond the connection's own startup
	role     string // what a shared connection is now, "" when it is not certain
	strayed  bool   // left the role that it was given with; see Strayed
	byText   map[unique.Handle[statementText]]*namedStatement
	recent   namedStatement // ring: recent.next is the most recently used
	held     int            // statements in the ring
	capacity int
	serial   uint64 // of the last name given

	shownTo uint64 // whose own names the statements have, 0 for nobody's

	unnamedOwner, unnamedSerial uint64 // whose unnamed statement the connection holds

	ring []expectation // the memory of a queue, while no session is attached
}

// NewServer makes the state of a fresh connection to a process of the server's. capacity bounds the prepared statements kept
// on it.
func NewServer(process uint32, parameters map[string]string, capacity int) *Server {
	s := &Server{process: process, params: NewPairs(parameters), capacity: capacity}
	for name, value := range parameters {
		s.note(name, value)
	}
	s.forgetStatements()
	return s
}

// Strayed reports whether a session's SQL has left the role of Config.Occupies. The connection then has to be given that
// role anew before the next session gets it.
func (s *Server) Strayed() bool { return s.strayed }

// note takes a reported parameter that says what kind of server it is.
func (s *Server) note(name, value string) {
	switch name {
	case "in_hot_standby":
		s.standby = value == "on"
	case parameterReadOnly:
		s.readOnly = value == "on"
	}
}

const parameterReadOnly = "default_transaction_read_only"

// Kind says whether the server is a standby by now, and whether its transactions are read-only unless they say otherwise.
// What a session has set for itself is not the server's. It is for a connection that is Clean.
func (s *Server) Kind() (standby, readOnly bool) {
	return s.standby, s.readOnly && s.applied.Map()[parameterReadOnly] == ""
}

func (s *Server) forgetStatements() {
	s.byText = make(map[unique.Handle[statementText]]*namedStatement)
	s.recent.next, s.recent.prev, s.held = &s.recent, &s.recent, 0
	s.unnamedOwner, s.unnamedSerial = 0, 0
}

// prepare gives the text a new name. The statement stays unknown until ParseComplete.
func (s *Server) prepare(text unique.Handle[statementText], segment, born uint64, ours bool) *namedStatement {
	s.serial++
	n := &namedStatement{text: text, name: "dx" + strconv.FormatUint(s.serial, 10), segment: segment, born: born, ours: ours}
	s.insert(n) // one of the same text that cannot be relied on stays in the ring until it is closed
	return n
}

func (s *Server) insert(n *namedStatement) {
	s.byText[n.text] = n
	s.held++
	n.prev, n.next = &s.recent, s.recent.next
	n.prev.next, n.next.prev = n, n
}

func (s *Server) unlink(n *namedStatement) {
	if n.next == nil {
		return
	}
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
	s.held--
}

func (s *Server) touch(n *namedStatement) {
	if s.recent.next != n && n.next != nil {
		s.unlink(n)
		s.insert(n)
	}
}

// forget drops a statement that the server does not have after all.
func (s *Server) forget(n *namedStatement) {
	s.unlink(n)
	if s.byText[n.text] == n {
		delete(s.byText, n.text)
	}
}

// abandon has nobody use a statement any more. It is closed when room is made.
func (s *Server) abandon(n *namedStatement) {
	if s.byText[n.text] == n {
		delete(s.byText, n.text)
	}
}

// excess returns the least recently used statement while there are too many, nil otherwise. Statements under way
// are never given up.
func (s *Server) excess() *namedStatement {
	if s.held <= s.capacity {
		return nil
	}
	for n := s.recent.prev; n != &s.recent; n = n.prev {
		if n.ready {
			return n
		}
	}
	return nil
}
