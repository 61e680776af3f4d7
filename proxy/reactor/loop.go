package reactor

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Handler owns a socket and is told that it can be read or written.
type Handler interface{ Ready(Events) }

// Task is something to be done on the loop's thread.
type Task interface{ Run() }

// Func is a function as a Task.
type Func func()

// Run implements Task.
func (f Func) Run() { f() }

// Events are what a socket can be watched for. An error or a hang-up is told as whatever the socket is watched for: the
// next read or write says what it is.
type Events uint32

// Kind is how a Loop speaks with the kernel.
type Kind int

// The kinds of Loops.
const (
	Epoll Kind = iota
	// Ring is io_uring: what is received comes with the news of it, and what is sent goes with the next wait, so that one
	// call serves all sockets. It needs Linux 6.1, and leave to use it.
	Ring
)

// ErrUnsupported is New's answer where the system has none of the kind.
var ErrUnsupported = errors.New("reactor: not supported on this system")

// bufferSize is the most that is read at a time, in bytes: it bounds what one session does before it is another's turn.
const bufferSize = 64 << 10

// engine is how a Loop speaks with the kernel. All of it is for the loop's thread, except rouse, close after the thread
// has ended, and want for a socket that leaves.
type engine interface {
	start() error                         // on the thread that the loop will have
	turn(l *Loop, patience time.Duration) // waits for something to happen, and tells the sockets' owners; negative: for ever
	rouse()                               // ends the wait that is under way, or else the next one
	close()                               // no socket is left
	join(s *Socket)                       // s is new
	want(s *Socket, before, after Events) error
	receive(s *Socket, b []byte) (int, error)
	send(s *Socket, b []byte) (int, error)
	rest(s *Socket) (unsent, unread []byte)
}

// slot is where the kernel's answer leads to. The generation tells its owners apart.
type slot struct {
	socket     *Socket
	handler    Handler
	generation uint32
}

// Loop is one thread that waits for sockets. Run has to be called once, and Stop.
type Loop struct {
	engine engine
	slots  []slot
	free   []uint32 // slots without an owner
	clocks []*Clock // with alarms
	spare  *Alarm   // alarms that are not set
	buffer []byte
	began  time.Time
	now    time.Duration // since began, at the last wake-up
	done   chan struct{} // closed when Run has returned
	asleep atomic.Bool   // a Post has to wake the thread

	mu      sync.Mutex // guards what follows
	posted  []Task
	running []Task // what posted was, while it is worked off
	stopped bool
}

// New makes a Loop of a kind. An error says why there can be none here.
func New(kind Kind) (*Loop, error) {
	open := newEpoll
	if kind == Ring {
		open = newRing
	}
	engine, err := open()
	if err != nil {
		return nil, err
	}
	return &Loop{engine: engine, buffer: make([]byte, bufferSize), began: time.Now(), done: make(chan struct{})}, nil
}

// Probe says why there can be no Loop of a kind, nil when there can be one.
func Probe(kind Kind) error {
	l, err := New(kind)
	if err != nil {
		return err
	}
	l.engine.close()
	return nil
}

// Run works until Stop.
func (l *Loop) Run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(l.done)
	if err := l.engine.start(); err != nil {
		panic(err) // it was made, so that it can be used
	}
	for l.work() {
		l.engine.turn(l, l.patience())
		l.expire()
	}
}

// wake is what follows the wait.
func (l *Loop) wake() {
	l.asleep.Store(false)
	l.now = time.Since(l.began)
}

// socketAt is the socket in a slot, nil when it is not that of the generation any more: of one that has left, by what
// another's owner did a moment ago, the kernel may have said something before.
func (l *Loop) socketAt(at, generation uint32) *Socket {
	if at >= uint32(len(l.slots)) || l.slots[at].generation != generation {
		return nil
	}
	return l.slots[at].socket
}

// Buffer is memory for one read, shared by all: its content is nobody's after the handler has returned.
func (l *Loop) Buffer() []byte { return l.buffer }

// Post has a task done soon, after those that were posted before. Any goroutine may call it. It reports false, and does
// nothing, after Stop.
func (l *Loop) Post(t Task) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.posted = append(l.posted, t)
	l.rouse()
	return true
}

// Stop ends Run, after what has been posted, and frees the loop. No socket may be watched any more. Any goroutine but
// the loop's may call it, once.
func (l *Loop) Stop() {
	l.mu.Lock()
	l.stopped = true
	l.rouse()
	l.mu.Unlock()
	<-l.done
	l.engine.close()
}

// rouse wakes the thread, if it waits. Called with mu held.
func (l *Loop) rouse() {
	if l.asleep.Swap(false) {
		l.engine.rouse()
	}
}

// work does what has been posted, and reports whether the loop goes on. When it returns true, a Post from now on wakes
// the thread.
func (l *Loop) work() bool {
	for {
		tasks, stopped := l.take()
		if len(tasks) == 0 {
			return !stopped
		}
		for i, t := range tasks {
			tasks[i] = nil
			t.Run()
		}
	}
}

// take returns what has been posted. Where that is nothing, the thread counts as asleep.
func (l *Loop) take() (tasks []Task, stopped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.posted) == 0 {
		l.asleep.Store(true)
		return nil, l.stopped
	}
	l.posted, l.running = l.running[:0], l.posted
	return l.running, false
}

// patience is how long the loop may wait for sockets; negative is for ever.
func (l *Loop) patience() time.Duration {
	patience := time.Duration(-1)
	for _, c := range l.clocks {
		if left := max(0, c.first.due-l.now); patience < 0 || left < patience {
			patience = left
		}
	}
	return patience
}
