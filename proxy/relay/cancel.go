package relay

// Cancel is what a driver does with a cancel request for its session.
type Cancel uint8

// The answers of Session.Cancel.
const (
	// CancelNothing: nothing of the client's is under way.
	CancelNothing Cancel = iota
	// CancelNow: pass it on, what runs is the client's.
	CancelNow
	// CancelLater: what runs is a statement of ours, and the client's waits behind it. A cancel would hit the wrong one.
	CancelLater
)

// Cancel says what a cancel request for the session finds.
func (s *Session) Cancel() Cancel {
	if s.queue.len() == 0 || !s.head().ours() {
		if s.Busy() {
			return CancelNow
		}
		return CancelNothing
	}
	if s.held || s.unsynced {
		return CancelLater
	}
	for i := 1; i < s.queue.len(); i++ {
		if !s.queue.at(i).ours() {
			return CancelLater
		}
	}
	return CancelNothing
}
