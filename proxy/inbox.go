package proxy

import (
	"io"
	"sync"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

const (
	clientBuffer = 4 << 10  // bytes, of a client's read buffer at rest
	clientBurst  = 32 << 10 // of one that has filled it
	serverBuffer = 32 << 10
	keptBuffer   = 64 << 10 // larger ones are not kept
)

// inbox is a read buffer in front of a machine: what is read in goes out in order, whole messages at a time. The zero
// value with a size is ready.
type inbox struct {
	buf        []byte
	start, end int
	size       int // of a new buffer
	need       int // the bytes that the next message takes in one piece
}

func (b *inbox) unread() []byte { return b.buf[b.start:b.end] }

// partial reports whether a message has begun to come in.
func (b *inbox) partial() bool { return b.end > b.start }

func (b *inbox) consume(n int) {
	if b.start += n; b.start < b.end {
		return
	}
	b.start, b.end = 0, 0
	if len(b.buf) > keptBuffer {
		b.buf = nil
	}
}

// fill reads once. It makes room first for what the next message needs.
func (b *inbox) fill(r io.Reader) (int, error) {
	if b.end == len(b.buf) || len(b.buf)-b.start < b.need {
		b.makeRoom()
	}
	n, err := r.Read(b.buf[b.end:])
	b.end += n
	if n > 0 {
		return n, nil
	}
	return 0, err
}

func (b *inbox) makeRoom() {
	size := max(len(b.buf), b.size)
	if b.end-b.start == len(b.buf) && len(b.buf) > 0 {
		size = max(clientBurst, 2*len(b.buf))
	}
	if size = max(size, b.need); size == len(b.buf) {
		copy(b.buf, b.unread())
	} else {
		grown := make([]byte, size)
		copy(grown, b.unread())
		b.buf = grown
	}
	b.start, b.end = 0, b.end-b.start
}

// serverInbox is an inbox for a server connection, with the output of the steps it is offered in. They are lent for
// the time of one attachment.
type serverInbox struct {
	inbox
	out relay.Output
}

var serverInboxes = sync.Pool{New: func() any {
	return &serverInbox{inbox: inbox{size: serverBuffer}}
}}

func (b *serverInbox) fill(r io.Reader) error {
	_, err := b.inbox.fill(r)
	return err
}

func (b *serverInbox) put() {
	b.start, b.end = 0, 0
	b.out.Reset()
	serverInboxes.Put(b)
}
