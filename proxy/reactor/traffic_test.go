//go:build linux && (amd64 || arm64)

package reactor_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy/reactor"
)

// mouth is a socket that receives all that it can, and sends back what it is given to say. It is the loop's.
type mouth struct {
	socket                  reactor.Socket
	said                    []byte
	toSay                   []byte
	ended                   error
	limit                   int           // bytes for each Receive
	piece                   int           // bytes for each Send, 0: all
	enough                  int           // told over done when so many have come, or the end
	done                    chan struct{} // closed then
	finished, isEmpty, last bool
	once                    bool          // wants nothing more after what it is told
	emptied                 chan struct{} // closed when all is said, and last is set
}

func newMouth(t *testing.T, l *reactor.Loop, fd, limit, enough int) *mouth {
	t.Helper()
	m := &mouth{limit: limit, enough: enough, done: make(chan struct{}), emptied: make(chan struct{})}
	on(t, l, func() {
		m.socket.Join(l, fd, m)
		if err := m.socket.Want(reactor.Readable); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Ready implements reactor.Handler.
func (m *mouth) Ready(e reactor.Events) {
	if e&reactor.Writable != 0 {
		m.say(nil)
	}
	if e&reactor.Readable == 0 {
		return
	}
	b := make([]byte, m.limit)
	n, err := m.socket.Receive(b)
	m.said = append(m.said, b[:n]...)
	if err != nil && !errors.Is(err, reactor.ErrAgain) {
		m.ended = err
		m.socket.Want(0)
	}
	if m.once {
		m.socket.Want(0)
	}
	if (m.ended != nil || len(m.said) >= m.enough) && !m.finished {
		m.finished = true
		close(m.done)
	}
}

func (m *mouth) say(b []byte) {
	m.toSay = append(m.toSay, b...)
	now := m.toSay
	if m.piece > 0 && len(now) > m.piece {
		now = now[:m.piece]
	}
	n, err := m.socket.Send(now)
	if err != nil && !errors.Is(err, reactor.ErrAgain) {
		m.ended = err
		return
	}
	m.toSay = m.toSay[n:]
	want := reactor.Readable
	if len(m.toSay) > 0 {
		want |= reactor.Writable
	} else if m.last && !m.isEmpty {
		m.isEmpty = true
		close(m.emptied)
	}
	m.socket.Want(want)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// sendAll is the other end, which blocks.
func sendAll(t *testing.T, fd int, b []byte) {
	t.Helper()
	if _, err := reactor.SendAll(fd, b, time.Now().Add(patience)); err != nil {
		t.Error(err)
	}
}

func receiveAll(t *testing.T, fd, n int) []byte {
	t.Helper()
	all, buffer := make([]byte, 0, n), make([]byte, 1<<16)
	for end := time.Now().Add(patience); len(all) < n; {
		got, err := reactor.Receive(fd, buffer)
		all = append(all, buffer[:got]...)
		if err != nil && !errors.Is(err, reactor.ErrAgain) || time.Now().After(end) {
			t.Errorf("%d bytes of %d, %v", len(all), n, err)
			return all
		}
		if got == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return all
}

func TestWhatIsReceivedIsWhatWasSentHoweverItIsFetched(t *testing.T) {
	onEach(t, whatIsReceivedIsWhatWasSent)
}

func whatIsReceivedIsWhatWasSent(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	for _, limit := range []int{7, 4096, 1 << 20} { // less than a lent buffer, and more
		want := pattern(300_000)
		if limit == 7 {
			want = want[:40_000]
		}
		ours, theirs := pair(t)
		m := newMouth(t, l, ours, limit, len(want)+1)
		done := m.done
		sendAll(t, theirs, want)
		syscall.Shutdown(theirs, syscall.SHUT_WR)
		wait(t, done)
		on(t, l, func() {
			if !bytes.Equal(m.said, want) || m.ended != io.EOF {
				t.Errorf("by %d: %d bytes, end %v", limit, len(m.said), m.ended)
			}
			m.socket.Rest()
			m.socket.Leave()
		})
	}
}

func TestWhatASocketDoesNotTakeAtOnceFollowsInOrder(t *testing.T) { onEach(t, whatASocketDoesNotTake) }

func whatASocketDoesNotTake(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	for _, piece := range []int{900, 10_000, 100_000} {
		want := pattern(3_000_000)
		ours, theirs := pair(t)
		m := newMouth(t, l, ours, 100, 1)
		emptied := m.emptied
		go func() { // the owner speaks in pieces, several in one turn, and keeps what is not taken, in order
			for rest := want; len(rest) > 0; {
				l.Post(reactor.Func(func() {
					for range 3 {
						n := min(piece, len(rest))
						m.toSay = append(m.toSay, rest[:n]...)
						if rest = rest[n:]; len(rest) == 0 {
							break
						}
						if len(m.toSay) == n {
							m.say(nil)
						}
					}
				}))
				comeBy(l)
			}
			l.Post(reactor.Func(func() { m.last = true; m.say(nil) }))
		}()
		if got := receiveAll(t, theirs, len(want)); !bytes.Equal(got, want) {
			t.Errorf("by %d: %d bytes came, or others", piece, len(got))
		}
		wait(t, emptied)
		on(t, l, func() { m.socket.Rest(); m.socket.Leave() })
	}
}

// comeBy waits until the loop has come by.
func comeBy(l *reactor.Loop) {
	c := make(chan struct{})
	if l.Post(reactor.Func(func() { close(c) })) {
		<-c
	}
}

func TestAtRestNothingIsUnderWayAndNothingIsLost(t *testing.T) { onEach(t, atRest) }

func atRest(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	for round := range 200 {
		ours, theirs := pair(t)
		m := newMouth(t, l, ours, 4, 1)
		go syscall.Write(theirs, []byte("abcdefgh")) // it comes before Rest, meanwhile, or after
		if round%2 == 0 {
			time.Sleep(time.Duration(round) * time.Microsecond)
		}
		var unread []byte
		on(t, l, func() {
			m.say([]byte("taken"))
			m.socket.Want(0) // on epoll it stays watched otherwise
			_, unread = m.socket.Rest()
		})
		if got := receiveAll(t, theirs, 5); string(got) != "taken" {
			t.Fatalf("what was taken before the rest came as %q", got)
		}
		rest := receiveAll(t, ours, 8-len(m.said)-len(unread)) // the descriptor is ours again
		if got := string(m.said) + string(unread) + string(rest); got != "abcdefgh" {
			t.Fatalf("%q, %q and %q came", m.said, unread, rest)
		}
		if round%3 == 0 { // and it goes on as if nothing had been
			on(t, l, func() { m.said = nil; m.socket.Want(reactor.Readable) })
			send(t, theirs, "more")
			for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
				var said string
				on(t, l, func() { said = string(m.said) })
				if said == "more" {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%q came after the rest", said)
				}
			}
		}
		on(t, l, func() { m.socket.Rest(); m.socket.Leave() })
	}
}

func TestWhatCouldNotBeSentIsGivenBackAtRest(t *testing.T) { onEach(t, whatCouldNotBeSent) }

func whatCouldNotBeSent(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	ours, theirs := pair(t)
	m := newMouth(t, l, ours, 4, 1)
	want := pattern(2_000_000)
	on(t, l, func() { m.say(want) })
	time.Sleep(20 * time.Millisecond) // as much as fits is on its way
	var unsent, kept []byte
	on(t, l, func() {
		m.socket.Want(0)
		unsent, _ = m.socket.Rest()
		kept = m.toSay
	})
	sent := len(want) - len(unsent) - len(kept)
	if sent <= 0 || len(kept) == 0 {
		t.Fatalf("%d bytes were sent, %d kept: the test is of no use", sent, len(kept))
	}
	got := receiveAll(t, theirs, sent)
	if !bytes.Equal(append(append(got, unsent...), kept...), want) {
		t.Error("what was sent, given back and kept is not what there was to send")
	}
	if n, err := reactor.Receive(theirs, make([]byte, 1)); n > 0 || !errors.Is(err, reactor.ErrAgain) {
		t.Errorf("more came after the rest: %d, %v", n, err)
	}
	on(t, l, func() { m.socket.Leave() })
}

func TestMoreSocketsAreReadyThanThereIsRoomFor(t *testing.T) { onEach(t, moreSocketsThanRoom) }

func moreSocketsThanRoom(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	const sockets = 1500 // more than a ring's queue and its lent buffers
	mouths, peers := make([]*mouth, sockets), make([]int, sockets)
	for i := range sockets {
		ours, theirs := pair(t)
		peers[i] = theirs
		mouths[i] = &mouth{limit: 64, enough: 20, done: make(chan struct{})}
		m := mouths[i]
		on(t, l, func() { m.socket.Join(l, ours, m) })
	}
	on(t, l, func() {
		for _, m := range mouths {
			if err := m.socket.Want(reactor.Readable); err != nil {
				t.Error(err)
			}
		}
	})
	hold, held := make(chan struct{}), make(chan struct{})
	l.Post(reactor.Func(func() { close(held); <-hold })) // so that all have something at the next wait
	wait(t, held)
	text := func(i int) string { return fmt.Sprintf("socket %4d says it.", i)[:19] + "!" }
	for i, fd := range peers {
		send(t, fd, text(i))
	}
	done := make([]chan struct{}, sockets)
	for i, m := range mouths {
		done[i] = m.done
	}
	close(hold)
	for i, m := range mouths {
		wait(t, done[i])
		if string(m.said) != text(i) {
			t.Fatalf("socket %d: %q", i, m.said)
		}
	}
	on(t, l, func() {
		for i, m := range mouths {
			m.say([]byte(text(i)))
		}
	})
	for i, fd := range peers {
		if got := receiveAll(t, fd, 20); string(got) != text(i) {
			t.Fatalf("socket %d was answered %q", i, got)
		}
	}
	on(t, l, func() {
		for _, m := range mouths {
			m.socket.Rest()
			m.socket.Leave()
		}
	})
}

func TestAPeerThatIsGoneIsFoundOut(t *testing.T) { onEach(t, aPeerThatIsGone) }

func aPeerThatIsGone(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	ours, theirs := pair(t)
	m := newMouth(t, l, ours, 64, 1)
	on(t, l, func() { m.socket.Want(0) }) // it is not read from
	reactor.Close(theirs)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var err error
		on(t, l, func() { _, err = m.socket.Send([]byte("is anybody there?")) })
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("what is sent to nobody: %v", err)
		}
	}
	on(t, l, func() { m.socket.Rest(); m.socket.Leave() })
}

func TestWhatIsLeftUnreadStaysWhileOthersReceive(t *testing.T) { onEach(t, whatIsLeftUnread) }

func whatIsLeftUnread(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	ours, theirs := pair(t)
	m := newMouth(t, l, ours, 1, 1)
	done := m.done
	on(t, l, func() { m.once = true })
	send(t, theirs, "a secret of one")
	wait(t, done)
	others, peer := pair(t)
	other := newMouth(t, l, others, 64, 1<<30)
	for range 300 { // more than there are lent buffers
		send(t, peer, "what another says, which is longer")
		comeBy(l)
	}
	on(t, l, func() {
		m.once = false
		m.socket.Want(reactor.Readable)
	})
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var said string
		on(t, l, func() { said = string(m.said) })
		if said == "a secret of one" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it reads %q", said)
		}
	}
	on(t, l, func() {
		for _, one := range []*mouth{m, other} {
			one.socket.Rest()
			one.socket.Leave()
		}
	})
}

func TestASlowReaderGetsAllWithNothingElseGoingOn(t *testing.T) { onEach(t, aSlowReaderGetsAll) }

func aSlowReaderGetsAll(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	for _, piece := range []int{3000, 12_000, 40_000} { // sent with the wait, or with a call of its own
		want := pattern(2_000_000 + piece)
		ours, theirs := pair(t)
		m := newMouth(t, l, ours, 100, 1)
		m.piece, m.last = piece, true
		on(t, l, func() { m.say(want) })
		var got []byte
		buffer := make([]byte, 9000)
		for end := time.Now().Add(patience); len(got) < len(want); {
			n, err := reactor.Receive(theirs, buffer)
			got = append(got, buffer[:n]...)
			if err != nil && !errors.Is(err, reactor.ErrAgain) || time.Now().After(end) {
				t.Fatalf("by %d: %d bytes of %d, %v", piece, len(got), len(want), err)
			}
			if err != nil {
				time.Sleep(50 * time.Microsecond)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("by %d: other bytes came", piece)
		}
		wait(t, m.emptied)
		on(t, l, func() { m.socket.Rest(); m.socket.Leave() })
	}
}
