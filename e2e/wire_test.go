package e2e_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// wire is a connection on which the test speaks the protocol itself. It reads and writes within patience.
type wire struct {
	net.Conn
	*pgproto3.Frontend
	t   testing.TB
	pid uint32 // of BackendKeyData, with its secret
	key []byte
}

// dialRaw opens a connection on which nothing has been said.
func (p *proxy) dialRaw(t testing.TB) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return wireOf(t, conn)
}

func wireOf(t testing.TB, conn net.Conn) *wire {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &wire{Conn: conn, Frontend: pgproto3.NewFrontend(conn, conn), t: t}
}

// takeOver makes a wire of a session that pgx has logged in.
func takeOver(t testing.TB, conn *pgx.Conn) *wire {
	t.Helper()
	if err := conn.PgConn().SyncConn(bounded(t)); err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hijacked.Conn.Close() })
	w := wireOf(t, hijacked.Conn)
	w.pid, w.key = hijacked.PID, hijacked.SecretKey
	return w
}

// raw writes bytes as they are.
func (w *wire) raw(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// say sends messages in one write.
func (w *wire) say(messages ...pgproto3.FrontendMessage) {
	w.t.Helper()
	for _, m := range messages {
		w.Send(m)
	}
	if err := w.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

// answers reads until n ReadyForQuery messages have come and writes down what did, one message a line.
func (w *wire) answers(n int) []string {
	w.t.Helper()
	return w.answersTo(func(m pgproto3.BackendMessage) bool {
		if _, ready := m.(*pgproto3.ReadyForQuery); ready {
			n--
		}
		return n == 0
	})
}

// answersTo reads up to the message for which last is true.
func (w *wire) answersTo(last func(pgproto3.BackendMessage) bool) []string {
	w.t.Helper()
	var seen []string
	for {
		message, err := w.Receive()
		if err != nil {
			w.t.Fatalf("after %s: %v", strings.Join(seen, "\n"), err)
		}
		seen = append(seen, written(w.t, message))
		if last(message) {
			return seen
		}
	}
}

// written is one line for a message. Of an error it has what the protocol promises, not the place in Postgres's
// source.
func written(t testing.TB, message pgproto3.BackendMessage) string {
	t.Helper()
	if e, ok := message.(*pgproto3.ErrorResponse); ok {
		return fmt.Sprintf("ErrorResponse %s %s %q detail %q hint %q position %d", e.Severity, e.Code, e.Message, e.Detail, e.Hint, e.Position)
	}
	text, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(fmt.Sprintf("%T ", message), "*pgproto3.") + string(text)
}

// refusal reads up to an ErrorResponse, and then the end of the connection.
func (w *wire) refusal() *pgproto3.ErrorResponse {
	w.t.Helper()
	for {
		message, err := w.Receive()
		if err != nil {
			w.t.Fatalf("no error: %v", err)
		}
		if refusal, ok := message.(*pgproto3.ErrorResponse); ok {
			kept := *refusal
			w.ends()
			return &kept
		}
	}
}

// ends waits for the other side to close the connection.
func (w *wire) ends() {
	w.t.Helper()
	for {
		if _, err := w.Receive(); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				w.t.Fatal("the connection was not closed")
			}
			return
		}
	}
}

// closedSilently waits for the other side to close the connection, with nothing said.
func (w *wire) closedSilently() {
	w.t.Helper()
	rest, err := io.ReadAll(w.Conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		w.t.Fatal("the connection was not closed")
	}
	if len(rest) > 0 {
		w.t.Fatalf("%q was said", rest)
	}
}

// Codes of the packets that open a connection.
const (
	protocol30        = 3 << 16
	sslRequestCode    = 80877103
	gssEncRequestCode = 80877104
	cancelRequestCode = 80877102
)

// packet is one of the messages that have no type byte: length, code, body.
func packet(code uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

// startup is a StartupMessage of the given version; parameters are names and values in turn.
func startup(version uint32, parameters ...string) []byte {
	var body []byte
	for _, text := range parameters {
		body = append(append(body, text...), 0)
	}
	return packet(version, append(body, 0)...)
}
