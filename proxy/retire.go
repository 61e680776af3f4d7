package proxy

import (
	"context"
	"time"
)

// Retire makes room for another process that accepts clients from now on: this one accepts no more, and keeps its
// sessions until they end, or until Options.Outstay has passed, and then drains. Any goroutine may call it, more than
// once.
func (s *Server) Retire() { s.retire.Do(func() { close(s.retired) }) }

// accepting is ctx until the server retires.
func (s *Server) accepting(ctx context.Context) (accepting context.Context, stop func()) {
	accepting, stop = context.WithCancel(ctx)
	go func() {
		defer stop()
		select {
		case <-s.retired:
		case <-accepting.Done():
		}
	}()
	return accepting, stop
}

// outstay waits for the sessions to end, after the server has retired.
func (s *Server) outstay(ctx context.Context, gone <-chan struct{}) {
	s.endConsoles()
	var end <-chan time.Time
	if s.o.Outstay > 0 {
		timer := time.NewTimer(s.o.Outstay)
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-gone:
	case <-end:
	case <-ctx.Done():
	}
}

// CancelRequest serves one that another process has got: body is the message's, behind the request code. Whose key is
// not known here either goes to Options.Forward.
func (s *Server) CancelRequest(ctx context.Context, body []byte) {
	key, ok := parseCancelKey(body)
	if !ok || !s.stay() {
		return
	}
	defer s.connections.Done()
	s.cancel(ctx, key, false) //nolint:errcheck // it never fails
}

// stay has Serve wait for what is about to be done for a session, until connections.Done. It reports false when there is
// none.
func (s *Server) stay() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == 0 {
		return false
	}
	s.connections.Add(1) // which is not the first: a client is counted there at least as long
	return true
}
