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

// ErrUnsupported is New's answer where there is no epoll.
var ErrUnsupported = errors.New("reactor: not supported on this system")

// bufferSize is the most that is read at a time, in bytes: it bounds what one session does before it is another's turn.
const bufferSize = 64 << 10

// slot is where the kernel's answer leads to. The generation tells its owners apart.
type slot struct {
	socket     *Socket
	handler    Handler
	generation uint32
}

// Loop is one thread that waits for sockets. Run has to be called once, and Stop.
type Loop struct {
	poller poller
	slots  []slot
	free   []uint32 // slots without an owner
	clocks []*Clock
	spare  *Alarm // alarms that are not set
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

// New makes a Loop.
func New() (*Loop, error) {
	l := &Loop{buffer: make([]byte, bufferSize), began: time.Now(), done: make(chan struct{})}
	if err := l.poller.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// Run works until Stop.
func (l *Loop) Run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(l.done)
	for l.work() {
		n := l.poller.wait(l.patience())
		l.asleep.Store(false)
		l.now = time.Since(l.began)
		for i := range n {
			l.tell(l.poller.event(i))
		}
		for _, c := range l.clocks {
			c.expire(l.now)
		}
	}
}

// tell tells a socket's owner what it wants to hear. Of one that has left, by what another's owner did a moment ago, the
// kernel may have said something before.
func (l *Loop) tell(at, generation uint32, events Events) {
	if at >= uint32(len(l.slots)) || l.slots[at].generation != generation {
		return
	}
	slot := &l.slots[at]
	if events &= slot.socket.Wants(); events != 0 {
		slot.handler.Ready(events)
	}
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
	l.poller.close()
}

// rouse wakes the thread, if it waits. Called with mu held.
func (l *Loop) rouse() {
	if l.asleep.Swap(false) {
		l.poller.rouse()
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
		if first := c.first; first != nil {
			if left := max(0, first.due-l.now); patience < 0 || left < patience {
				patience = left
			}
		}
	}
	return patience
}
