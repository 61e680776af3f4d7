package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// wire is a connection on which the attack writes the protocol itself, malformed where it wants to.
type wire struct {
	net.Conn
	t      *trial
	in     *bufio.Reader
	pid    uint32
	secret []byte
}

// frame is one message of the server.
type frame struct {
	kind byte
	body []byte
}

// maxFrame is more than any answer to an attack has.
const maxFrame = 1 << 20

// dial opens a connection to the proxy on which nothing has been said.
func (t *trial) dial() *wire {
	conn, err := net.DialTimeout("tcp", t.proxy.Address, patience)
	t.must(err)
	return t.wireOf(&overheardConn{Conn: conn, by: &t.heard})
}

func (t *trial) wireOf(conn net.Conn) *wire {
	t.must(conn.SetDeadline(time.Now().Add(patience)))
	t.atEnd(func() { conn.Close() })
	return &wire{Conn: conn, t: t, in: bufio.NewReader(conn)}
}

// hijack takes over a session that has been logged in.
func (s *session) hijack() *wire {
	s.t.must(s.conn.SyncConn(s.t.ctx))
	h, err := s.conn.Hijack()
	s.t.must(err)
	w := s.t.wireOf(h.Conn)
	w.pid, w.secret = h.PID, h.SecretKey
	return w
}

// say sends bytes in one write.
func (w *wire) say(messages ...[]byte) {
	_, err := w.Write(slices.Concat(messages...))
	w.t.must(err)
}

func (w *wire) next() (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return frame{}, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > maxFrame {
		return frame{}, fmt.Errorf("a message %q of %d bytes", head[0], length)
	}
	f := frame{kind: head[0], body: make([]byte, length-4)}
	_, err := io.ReadFull(w.in, f.body)
	return f, err
}

// until reads up to a message of the given kind.
func (w *wire) until(kind byte) []frame {
	var seen []frame
	for {
		f, err := w.next()
		if err != nil {
			w.t.abandon(fmt.Errorf("waiting for a message %q: %w", kind, err))
		}
		seen = append(seen, f)
		if f.kind == kind {
			return seen
		}
	}
}

// refusal reads up to an ErrorResponse and returns it; an end without one is an error of its own.
func (w *wire) refusal() error {
	for {
		f, err := w.next()
		if err != nil {
			return fmt.Errorf("no ErrorResponse: %w", err)
		}
		if f.kind == 'E' {
			return f.refusal()
		}
	}
}

// ended reports whether the other side closes the connection, whatever it says before.
func (w *wire) ended() bool {
	_, err := io.Copy(io.Discard, w.in)
	timeout, ok := errors.AsType[net.Error](err)
	return !ok || !timeout.Timeout()
}

// refusal decodes an ErrorResponse.
func (f frame) refusal() *pgconn.PgError {
	e := &pgconn.PgError{}
	for rest := f.body; len(rest) > 1; {
		kind := rest[0]
		text := cString(rest[1:])
		switch kind {
		case 'S':
			e.Severity = text
		case 'C':
			e.Code = text
		case 'M':
			e.Message = text
		}
		rest = rest[min(len(rest), len(text)+2):]
	}
	return e
}

func cString(b []byte) string {
	if end := slices.Index(b, 0); end >= 0 {
		return string(b[:end])
	}
	return string(b)
}

// message is a message of the given kind.
func message(kind byte, body ...[]byte) []byte {
	joined := slices.Concat(body...)
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(joined)+4)), joined...)
}

func cText(text string) []byte { return append([]byte(text), 0) }

func int16s(values ...uint16) []byte {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func int32s(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func queryMessage(sql string) []byte { return message('Q', cText(sql)) }

func parseMessage(name, sql string) []byte {
	return message('P', cText(name), cText(sql), int16s(0))
}

func bindMessage(portal, name string) []byte {
	return message('B', cText(portal), cText(name), int16s(0, 0, 0))
}

func executeMessage(portal string) []byte { return message('E', cText(portal), int32s(0)) }

func syncMessage() []byte { return message('S') }

func terminateMessage() []byte { return message('X') }

// callMessage is a FunctionCall with arguments and result as text.
func callMessage(oid uint32, arguments ...string) []byte {
	body := slices.Concat(int32s(oid), int16s(0), int16s(uint16(len(arguments))))
	for _, a := range arguments {
		body = append(append(body, int32s(uint32(len(a)))...), a...)
	}
	return message('F', body, int16s(0))
}

// Codes of the packets that open a connection.
const (
	protocol30        = 3 << 16
	sslRequestCode    = 80877103
	cancelRequestCode = 80877102
)

// packet is one of the messages without a type byte.
func packet(code uint32, body ...byte) []byte {
	return append(int32s(uint32(8+len(body)), code), body...)
}

func startupPacket(parameters ...string) []byte {
	var body []byte
	for _, p := range parameters {
		body = append(body, cText(p)...)
	}
	return packet(protocol30, append(body, 0)...)
}
