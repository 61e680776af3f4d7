package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// stepPatience bounds one step, the wait for a server connection included: what takes longer hangs.
const stepPatience = 90 * time.Second

// client is one session, which speaks the protocol itself. What it knows of itself decides what it has to be answered.
type client struct {
	questions
	conn     *net.TCPConn
	in       *bufio.Reader
	out      []byte // to be sent
	tenant   string
	tally    *tally
	process  uint32
	key      []byte
	steps    []string        // what it has done, for a report
	spoken   string          // another tenant that it has named
	prepared map[string]bool // its named statements
	pinned   bool            // has left something that keeps it on its server connection
}

// answers is what came back.
type answers struct {
	own    int      // marks of the tenant
	rows   []string // first columns, of small results
	codes  []string // SQLSTATEs
	shape  []byte   // kinds of messages, one for a row of rows or lines; without what may come at any time
	status byte     // of the last ReadyForQuery
}

// refusedError is a login that was answered with an error.
type refusedError struct{ code string }

func (e *refusedError) Error() string { return "refused with " + e.code }

// dial logs in.
func dial(s *site, name string, t *tally) (*client, error) {
	c, err := knock(s, name, t)
	if err != nil {
		return nil, err
	}
	a, err := c.until('Z', 1)
	switch {
	case err != nil:
	case len(a.codes) > 0:
		err = &refusedError{a.codes[0]}
	case string(a.shape) != "RKZ":
		err = fmt.Errorf("out of step: the login was answered %q", a.shape)
	}
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// knock sends the startup packet and does not wait.
func knock(s *site, name string, t *tally) (*client, error) {
	conn, err := net.DialTimeout("tcp", s.proxy.Address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	c := &client{
		conn: conn.(*net.TCPConn), in: bufio.NewReaderSize(conn, 8<<10),
		tenant: name, tally: t, prepared: make(map[string]bool), questions: questions{session: s.sessions.Add(1)},
	}
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	for _, parameter := range []string{"user", appLogin + "." + name, "database", database} {
		body = append(body, text(parameter)...)
	}
	body = append(body, 0)
	c.out = append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
	if err := c.flush(); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// own is the tenant's mark.
func (c *client) own() string { return "own-" + c.tenant }

// never is what rows say that are never committed.
func (c *client) never() string { return c.own() + neverCommitted }

const neverCommitted = ", never"

// all reads the tenant's table. The text bears the tenant's mark, so that a statement or cursor that is left behind is
// known, and the answer the question's.
func (c *client) all() string {
	return "SELECT tenant, '" + c.ask() + "' FROM mine /* " + c.own() + " */"
}

func (c *client) flush() error {
	if err := c.conn.SetDeadline(time.Now().Add(stepPatience)); err != nil {
		return err
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// ready sends what was put together and reads up to so many ReadyForQuery.
func (c *client) ready(ready int) (answers, error) {
	if err := c.flush(); err != nil {
		return answers{}, err
	}
	return c.until('Z', ready)
}

// until reads up to so many messages of a kind, and checks every answer on the way. An error ends the wait for others than
// ReadyForQuery: they will not come.
func (c *client) until(last byte, times int) (a answers, err error) {
	for times > 0 {
		kind, body, err := c.next()
		if err != nil {
			return a, fmt.Errorf("after %q: %w", a.shape, err)
		}
		if err := c.take(&a, kind, body); err != nil {
			return a, err
		}
		if kind == last {
			times--
		}
		if kind == 'E' && (last != 'Z' || severity(body) == "FATAL") { // nothing else comes by itself
			return a, &refusedError{field(body, 'C')}
		}
	}
	return a, nil
}

// largest is more than any answer has.
const largest = 1 << 20

func (c *client) next() (kind byte, body []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		return 0, nil, err
	}
	length := int(binary.BigEndian.Uint32(header[1:])) - 4
	if length < 0 || length > largest {
		return 0, nil, fmt.Errorf("out of step: a message %q of %d bytes", header[0], length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return header[0], body, err
}

func (c *client) take(a *answers, kind byte, body []byte) error {
	spoken := ""
	if kind == 'E' {
		spoken = c.spoken
	}
	own, err := c.tally.check(c.tenant, spoken, body)
	if err != nil {
		return err
	}
	if err := c.answered(body); err != nil {
		return err
	}
	a.own += own
	switch kind {
	case 'A', 'S', 'N':
		return nil
	case 'K':
		c.process, c.key = binary.BigEndian.Uint32(body), slices.Clone(body[4:])
	case 'Z':
		a.status = body[0]
	case 'E':
		a.codes = append(a.codes, field(body, 'C'))
		c.tally.count("errors " + field(body, 'C'))
	case 'D':
		if first, ok := firstColumn(body); ok && len(a.rows) < 300 {
			a.rows = append(a.rows, first)
		}
	}
	if n := len(a.shape); n == 0 || a.shape[n-1] != kind || kind != 'D' && kind != 'd' {
		a.shape = append(a.shape, kind)
	}
	return nil
}

// firstColumn is that of a DataRow, if it is there and small.
func firstColumn(body []byte) (string, bool) {
	if len(body) < 6 {
		return "", false
	}
	n := int32(binary.BigEndian.Uint32(body[2:]))
	if n < 0 || int(n) > len(body)-6 || n > 1000 {
		return "", false
	}
	return string(body[6 : 6+n]), true
}

// field is one of an ErrorResponse.
func field(body []byte, kind byte) string {
	for f := range strings.SplitSeq(string(body), "\x00") {
		if f != "" && f[0] == kind {
			return f[1:]
		}
	}
	return ""
}

func severity(body []byte) string { return field(body, 'V') }

// cancelKey is what a cancel request names a session with.
type cancelKey struct {
	process uint32
	secret  []byte
}

// cancel sends a cancel request, over a connection of its own.
func cancel(address string, key cancelKey) error {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(stepPatience)); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(key.secret)))
	b = binary.BigEndian.AppendUint32(b, 1234<<16|5678)
	b = binary.BigEndian.AppendUint32(b, key.process)
	if _, err := conn.Write(append(b, key.secret...)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fmt.Errorf("a cancel request: %w", err)
	}
	return nil // an RST in the place of an end says as much
}
