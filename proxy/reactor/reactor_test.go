//go:build linux && (amd64 || arm64)

package reactor_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/docex-proxy/docex-proxy/proxy/reactor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// onEach runs a test on each kind of loop that the system has.
func onEach(t *testing.T, test func(t *testing.T, kind reactor.Kind)) {
	t.Helper()
	t.Run("epoll", func(t *testing.T) { test(t, reactor.Epoll) })
	if err := reactor.Probe(reactor.Ring); err != nil {
		t.Logf("not on a ring: %v", err)
		return
	}
	t.Run("ring", func(t *testing.T) { test(t, reactor.Ring) })
}

// running is a loop that works until the end of the test.
func running(t *testing.T, kind reactor.Kind) *reactor.Loop {
	t.Helper()
	l := made(t, kind)
	go l.Run()
	t.Cleanup(l.Stop)
	return l
}

func made(t *testing.T, kind reactor.Kind) *reactor.Loop {
	t.Helper()
	l, err := reactor.New(kind)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// on runs a function on the loop's thread and waits for it.
func on(t *testing.T, l *reactor.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(reactor.Func(func() { f(); close(done) })) {
		t.Fatal("the loop takes no tasks")
	}
	wait(t, done)
}

func wait[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing came in time")
	}
	return v
}

// pair is two ends of a socket, closed at the end of the test.
func pair(t *testing.T) (ours, theirs int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reactor.Close(fds[0]); reactor.Close(fds[1]) })
	return fds[0], fds[1]
}

// ear passes on what it is told.
type ear struct {
	socket reactor.Socket
	heard  chan reactor.Events
	count  atomic.Int64
	once   bool // wants nothing more after the first event
}

func newEar(t *testing.T, l *reactor.Loop, fd int, e reactor.Events, once bool) *ear {
	t.Helper()
	ear := &ear{heard: make(chan reactor.Events, 1000), once: once}
	on(t, l, func() {
		ear.socket.Join(l, fd, ear)
		if err := ear.socket.Want(e); err != nil {
			t.Error(err)
		}
	})
	return ear
}

// Ready implements reactor.Handler.
func (e *ear) Ready(events reactor.Events) {
	e.count.Add(1)
	if e.once {
		e.socket.Want(0)
	}
	select {
	case e.heard <- events:
	default:
	}
}

func send(t *testing.T, fd int, text string) {
	t.Helper()
	if n, err := reactor.Send(fd, []byte(text)); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
}

func TestASocketIsReportedForWhatItsOwnerWants(t *testing.T) {
	onEach(t, aSocketIsReportedForWhatItsOwnerWants)
}

func aSocketIsReportedForWhatItsOwnerWants(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	ours, theirs := pair(t)
	e := newEar(t, l, ours, reactor.Readable, true)
	send(t, theirs, "one")
	if got := wait(t, e.heard); got&reactor.Readable == 0 || got&reactor.Writable != 0 {
		t.Errorf("events %b", got)
	}
	time.Sleep(20 * time.Millisecond)
	if e.count.Load() != 1 {
		t.Errorf("a socket that nobody wants to hear of was reported %d times", e.count.Load()-1)
	}
	on(t, l, func() { e.socket.Want(reactor.Readable) }) // what is unread is still there
	wait(t, e.heard)
	on(t, l, func() { e.socket.Want(reactor.Writable) })
	if got := wait(t, e.heard); got&reactor.Writable == 0 {
		t.Errorf("events %b", got)
	}
	on(t, l, e.socket.Leave)
}

func TestAnEndIsToldAsWhateverIsWanted(t *testing.T) { onEach(t, anEndIsToldAsWhateverIsWanted) }

func anEndIsToldAsWhateverIsWanted(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	for _, want := range []reactor.Events{reactor.Readable, reactor.Writable} {
		ours, theirs := pair(t)
		syscall.Shutdown(theirs, syscall.SHUT_RDWR)
		e := newEar(t, l, ours, want, true)
		if got := wait(t, e.heard); got&want == 0 {
			t.Errorf("events %b, want %b", got, want)
		}
		on(t, l, e.socket.Leave)
	}
}

func TestASocketThatHasLeftIsNotReportedAndItsPlaceIsUsedAgain(t *testing.T) {
	onEach(t, aSocketThatHasLeftIsNotReportedAndItsPlaceIsUsedAgain)
}

func aSocketThatHasLeftIsNotReportedAndItsPlaceIsUsedAgain(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	for range 100 {
		ours, theirs := pair(t)
		e := newEar(t, l, ours, reactor.Readable, false)
		e.socket.Leave() // from another goroutine
		if !e.socket.Left() {
			t.Fatal("it has not left")
		}
		send(t, theirs, "unheard")
		next, _ := pair(t)
		other := newEar(t, l, next, reactor.Readable, false)
		on(t, l, func() { e.socket.Want(reactor.Readable) }) // too late
		if e.count.Load()+other.count.Load() > 0 {
			t.Fatal("a socket that has left, or one in its place, was reported")
		}
		other.socket.Leave()
		other.socket.Leave()
	}
}

// leaver is one of two sockets: the first that is told something has the other leave.
type leaver struct {
	ear
	other *leaver
}

// Ready implements reactor.Handler.
func (v *leaver) Ready(events reactor.Events) {
	v.other.socket.Leave()
	v.ear.Ready(events)
}

func TestASocketThatHasLeftAMomentAgoIsNotReported(t *testing.T) {
	onEach(t, aSocketThatHasLeftAMomentAgoIsNotReported)
}

func aSocketThatHasLeftAMomentAgoIsNotReported(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	one := leaver{ear: ear{heard: make(chan reactor.Events, 10), once: true}}
	two := leaver{ear: ear{heard: make(chan reactor.Events, 10), once: true}, other: &one}
	one.other = &two
	on(t, l, func() { // both are ready when the loop waits next
		for _, v := range []*leaver{&one, &two} {
			ours, theirs := pair(t)
			send(t, theirs, "something")
			v.socket.Join(l, ours, v)
			if err := v.socket.Want(reactor.Readable | reactor.Writable); err != nil {
				t.Error(err)
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	on(t, l, func() {
		if n := one.count.Load() + two.count.Load(); n != 1 {
			t.Errorf("%d sockets were reported, want the first alone", n)
		}
		one.socket.Leave()
		two.socket.Leave()
	})
}

func TestTasksAreDoneInOrderAndNotAfterStop(t *testing.T) {
	onEach(t, tasksAreDoneInOrderAndNotAfterStop)
}

func tasksAreDoneInOrderAndNotAfterStop(t *testing.T, kind reactor.Kind) {
	l := made(t, kind)
	var done []int
	for i := range 3 {
		l.Post(reactor.Func(func() {
			done = append(done, i)
			if i == 1 {
				l.Post(reactor.Func(func() { done = append(done, 10) }))
			}
		}))
	}
	go l.Run()
	time.Sleep(10 * time.Millisecond)
	last := make(chan struct{})
	l.Post(reactor.Func(func() { close(last) })) // wakes it
	wait(t, last)
	l.Stop()
	if len(done) != 4 || done[0] != 0 || done[2] != 2 || done[3] != 10 {
		t.Error(done)
	}
	if l.Post(reactor.Func(func() {})) {
		t.Error("a stopped loop took a task")
	}
}

func TestAlarmsRingInTimeAndOnlyWhenTheyAreSet(t *testing.T) {
	onEach(t, alarmsRingInTimeAndOnlyWhenTheyAreSet)
}

func alarmsRingInTimeAndOnlyWhenTheyAreSet(t *testing.T, kind reactor.Kind) {
	l := running(t, kind)
	type owner struct {
		alarm *reactor.Alarm
		began time.Time
	}
	rang := make(chan *owner, 10)
	var clock, never *reactor.Clock
	on(t, l, func() {
		ring := func(o any) {
			rung := o.(*owner)
			rung.alarm = rung.alarm.Stop()
			rang <- rung
		}
		clock, never = l.NewClock(60*time.Millisecond, ring), l.NewClock(0, ring)
	})
	owners := make([]owner, 4)
	for i := range owners {
		on(t, l, func() {
			owners[i].alarm, owners[i].began = clock.Set(&owners[i]), time.Now()
			if never.Set(&owners[i]) != nil {
				t.Error("an alarm that never rings was set")
			}
		})
		time.Sleep(5 * time.Millisecond)
	}
	on(t, l, func() {
		for _, i := range []int{1, 3} { // in the middle, and the last
			if !owners[i].alarm.Of(clock) || owners[i].alarm.Of(never) {
				t.Error("an alarm is of another clock")
			}
			owners[i].alarm = owners[i].alarm.Stop()
		}
	})
	for _, i := range []int{0, 2} {
		if got := wait(t, rang); got != &owners[i] {
			t.Error("the wrong alarm rang")
		}
		if took := time.Since(owners[i].began); took < 59*time.Millisecond {
			t.Errorf("it rang after %s", took)
		}
	}
	time.Sleep(70 * time.Millisecond)
	if len(rang) > 0 {
		t.Error("a stopped alarm rang")
	}
}

func TestADescriptorLeavesTheRuntimeAndComesBack(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := reactor.Duplicate(accepted.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	if _, err := reactor.Receive(fd, make([]byte, 10)); !errors.Is(err, reactor.ErrAgain) {
		t.Errorf("it is not non-blocking: %v", err)
	}
	send(t, fd, "raw")
	conn, err := reactor.Restore(fd)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("cooked"))
	conn.Close()
	if got, err := io.ReadAll(client); string(got) != "rawcooked" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAllIsSentOrTheDeadlineComes(t *testing.T) {
	ours, theirs := pair(t)
	large := make([]byte, 4<<20)
	if n, err := reactor.SendAll(ours, large, time.Now().Add(20*time.Millisecond)); n == len(large) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 1<<16)
		for {
			if _, err := reactor.Receive(theirs, buffer); err != nil && !errors.Is(err, reactor.ErrAgain) {
				return
			}
			time.Sleep(time.Microsecond)
		}
	}()
	if n, err := reactor.SendAll(ours, large, time.Now().Add(patience)); n != len(large) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	defer wait(t, read)
	syscall.Shutdown(ours, syscall.SHUT_RDWR)
	if _, err := reactor.SendAll(ours, large, time.Now().Add(patience)); !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}
