package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	headerLength = 5
	// mostAnswered bounds what a few commands may be answered with, in bytes. Notices of a tenant's making count.
	mostAnswered = 1 << 20
)

// ErrLost says that the session has ended, or its connection: whoever wanted it may take another.
var ErrLost = errors.New("the session of the slot has ended")

// lost makes what ended the connection ErrLost, unless it was our own deadline.
func lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// wire runs commands over a slot's session. Whoever uses the connection afterwards reads it himself, so nothing may be
// left in the buffer when a run is over.
type wire struct {
	conn     net.Conn
	reported map[string]string
	total    int // bytes read
	from, to int // what is unread in buffer
	buffer   [4096]byte
}

// begin forgets the switch before.
func (w *wire) begin(conn net.Conn) {
	w.conn, w.reported = conn, make(map[string]string)
	w.total, w.from, w.to = 0, 0, 0
}

// run sends the commands in one write and reads their answers. Each is a Query, and so a transaction, of its own.
func (w *wire) run(commands ...command) error {
	var b []byte
	for _, c := range commands {
		b = append(b, 'Q')
		b = binary.BigEndian.AppendUint32(b, uint32(4+len(c.sql)+1))
		b = append(append(b, c.sql...), 0)
	}
	if _, err := w.conn.Write(b); err != nil {
		return fmt.Errorf("switching: %w", lost(err))
	}
	for _, c := range commands {
		if err := w.answer(c); err != nil {
			return fmt.Errorf("switching: %w", err)
		}
	}
	for w.from < w.to { // what the server says on its own account, on a reload of its configuration for example
		kind, body, err := w.next()
		if err != nil {
			return fmt.Errorf("switching: %w", err)
		}
		if !w.aside(kind, body) {
			return fmt.Errorf("switching: an unexpected message %q", kind)
		}
	}
	return nil
}

// answer reads up to ReadyForQuery, which has to say that no transaction is open.
func (w *wire) answer(c command) error {
	var failure error
	var done bool
	for {
		kind, body, err := w.next()
		if err != nil {
			return err
		}
		switch kind {
		case 'C':
			done = true
			failure = errors.Join(failure, c.mismatch(string(bytes.TrimRight(body, "\x00"))))
		case 'E':
			failure = errors.Join(failure, refusal(body))
		case 'T', 'D':
		case 'Z':
			switch {
			case failure != nil:
				return failure
			case !done || len(body) != 1 || body[0] != 'I':
				return fmt.Errorf("%s left the session in status %q", c.sql[:min(len(c.sql), 20)], body)
			}
			return nil
		default:
			if !w.aside(kind, body) {
				return fmt.Errorf("an unexpected message %q", kind)
			}
		}
	}
}

// aside takes a message that may come at any time (section 55.2.7), and reports whether it was one.
func (w *wire) aside(kind byte, body []byte) bool {
	switch kind {
	case 'S':
		name, value, _ := strings.Cut(strings.TrimRight(string(body), "\x00"), "\x00")
		w.reported[name] = value
		return true
	case 'N', 'A':
		return true
	}
	return false
}

// next reads one message. Its body is valid until the next call.
func (w *wire) next() (kind byte, body []byte, err error) {
	if err := w.fill(headerLength); err != nil {
		return 0, nil, err
	}
	kind = w.buffer[w.from]
	length := int64(binary.BigEndian.Uint32(w.buffer[w.from+1:])) - 4
	w.from += headerLength
	if w.total += headerLength; length < 0 || int64(w.total)+length > mostAnswered {
		return 0, nil, fmt.Errorf("a message %q of %d bytes", kind, length)
	}
	n := int(length)
	w.total += n
	if n > len(w.buffer) {
		body = make([]byte, n)
		had := copy(body, w.buffer[w.from:w.to])
		w.from += had
		if _, err = io.ReadFull(w.conn, body[had:]); err != nil {
			return 0, nil, lost(err)
		}
		return kind, body, nil
	}
	if err := w.fill(n); err != nil {
		return 0, nil, err
	}
	body = w.buffer[w.from : w.from+n]
	w.from += n
	return kind, body, nil
}

// fill reads until n bytes, no more than the buffer holds, are there.
func (w *wire) fill(n int) error {
	if w.from+n > len(w.buffer) {
		w.to = copy(w.buffer[:], w.buffer[w.from:w.to])
		w.from = 0
	}
	for w.to-w.from < n {
		read, err := w.conn.Read(w.buffer[w.to:])
		w.to += read
		if err != nil {
			return lost(err)
		}
	}
	return nil
}

// refusal reads an ErrorResponse (section 55.8).
func refusal(body []byte) error {
	e := &pgconn.PgError{}
	for len(body) > 1 {
		text, rest, found := bytes.Cut(body[1:], []byte{0})
		if !found {
			break
		}
		switch body[0] {
		case 'V':
			e.Severity = string(text)
		case 'C':
			e.Code = string(text)
		case 'M':
			e.Message = string(text)
		case 'D':
			e.Detail = string(text)
		}
		body = rest
	}
	return e
}

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal writes a string that means the same whatever standard_conforming_strings says (section 4.1.2.2).
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}
