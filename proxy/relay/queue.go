package relay

// kind says what the server owes for one message, and who is to see it.
type kind uint8

const (
	expectQuery       kind = iota + 1 // a client's Query: everything up to ReadyForQuery
	expectFunction                    // a client's FunctionCall: likewise
	expectSync                        // ReadyForQuery
	expectParse                       // ParseComplete, for the client
	expectBind                        // BindComplete
	expectDescribe                    // RowDescription or NoData
	expectExecute                     // CommandComplete, PortalSuspended or EmptyQueryResponse
	expectClose                       // CloseComplete
	expectOurParse                    // ParseComplete, swallowed
	expectOurDescribe                 // ParameterDescription with RowDescription or NoData, swallowed and read
	expectOurClose                    // CloseComplete, swallowed
	expectShown                       // ParseComplete or an error, swallowed
	expectOurSync                     // a Sync or Query of ours, whose answer is swallowed
	expectOurError                    // the ErrorResponse of a message made to fail, replaced by ours
	expectSetting                     // a Query of ours that brings the connection to the session, swallowed
	expectDiscard                     // our DISCARD ALL, swallowed; its tag has to say so
	expectAnswer                      // a Query of ours that asks for the session's state, swallowed and read
	expectRestore                     // a Query of ours that brings startup settings back, swallowed but for its ReadyForQuery
	answerParse                       // nothing: we answer ParseComplete ourselves when its turn comes
	answerClose                       // nothing: we answer CloseComplete
	markCopyEnd                       // nothing: the client's CopyDone or CopyFail
)

// extended reports whether an error skips to the next Sync when it strikes at this expectation.
func (k kind) extended() bool {
	switch k {
	case expectParse, expectBind, expectDescribe, expectExecute, expectClose,
		expectOurParse, expectOurDescribe, expectOurClose, expectShown, expectOurError, answerClose:
		return true
	}
	return false
}

// unanswered reports whether the server owes nothing.
func (k kind) unanswered() bool { return k == answerClose || k == markCopyEnd }

// expectation is one element of the queue.
type expectation struct {
	kind kind
	// named is the server's statement that the message makes or uses, nil for none.
	named *namedStatement
	// name and before undo what the client's Parse or Close did to the session's names, if the server skips it.
	// segment is the client's when it took the name away.
	name    string
	before  statement
	segment uint64
	// err replaces the server's error at expectOurError.
	err *Error
	// restores says that the ReadyForQuery is that of the expectRestore behind it.
	restores bool
}

// takesName reports whether the client's message took a name of its own away.
func (e *expectation) takesName() bool {
	return (e.kind == answerClose || e.kind == expectQuery || e.kind == expectExecute) && e.before.defined()
}

// queue is a ring of expectations. The zero value is empty.
type queue struct {
	ring  []expectation
	first int
	count int
	taken int // elements that took a name away
}

// queueSlots is how many expectations a queue keeps room for while it is empty.
const queueSlots = 64

// borrow uses the memory of a connection, so that a session without one has none, and giveBack returns it.
func (q *queue) borrow(ring *[]expectation) {
	if q.ring == nil {
		q.ring, *ring = *ring, nil
	}
}

func (q *queue) giveBack(ring *[]expectation) {
	if q.count == 0 {
		*ring, *q = q.ring, queue{}
	}
}

func (q *queue) len() int { return q.count }

func (q *queue) at(i int) *expectation { return &q.ring[(q.first+i)&(len(q.ring)-1)] }

func (q *queue) last() *expectation { return q.at(q.count - 1) }

func (q *queue) push(e expectation) {
	if q.count == len(q.ring) {
		grown := make([]expectation, max(8, 2*len(q.ring)))
		for i := range q.count {
			grown[i] = *q.at(i)
		}
		q.ring, q.first = grown, 0
	}
	q.count++
	*q.at(q.count - 1) = e
	if e.takesName() {
		q.taken++
	}
}

func (q *queue) pop() expectation {
	e := *q.at(0)
	if e.takesName() {
		q.taken--
	}
	*q.at(0) = expectation{}
	q.first = (q.first + 1) & (len(q.ring) - 1)
	q.count--
	if q.count == 0 && len(q.ring) > queueSlots {
		*q = queue{}
	}
	return e
}

// remove takes out the element at i, which took no name, and keeps the order of the others.
func (q *queue) remove(i int) {
	for ; i < q.count-1; i++ {
		*q.at(i) = *q.at(i + 1)
	}
	*q.at(q.count - 1) = expectation{}
	q.count--
}
