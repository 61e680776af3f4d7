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

// stepPatience bounds one step, the wait for a server connection included.
const stepPatience = 90 * time.Second

// client is one session, which speaks the protocol itself.
type client struct {
	conn    *net.TCPConn
	in      *bufio.Reader
	out     []byte // to be sent
	tenant  string
	tally   *tally
	process uint32
	key     []byte
	steps   []string // what it has done, for a report
	pinned  bool     // has left something that keeps it on its server connection
}

// answers is what came back up to a number of ReadyForQuery.
type answers struct {
	own    int      // marks of the tenant
	rows   []string // first columns, of small results
	codes  []string // SQLSTATEs
	kinds  []byte
	status byte // of the last ReadyForQuery
}

// refusedError is a login that was answered with an error.
type refusedError struct{ code, message string }

func (e *refusedError) Error() string { return e.code + ": " + e.message }

// dial logs in.
func dial(s *site, name string, t *tally) (*client, error) {
	conn, err := net.DialTimeout("tcp", s.address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn.(*net.TCPConn), in: bufio.NewReaderSize(conn, 8<<10), tenant: name, tally: t}
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	for _, text := range []string{"user", appLogin + "." + name, "database", database} {
		body = append(append(body, text...), 0)
	}
	body = append(body, 0)
	c.out = append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
	if err := c.flush(); err != nil {
		c.conn.Close()
		return nil, err
	}
	a, err := c.until(1)
	switch {
	case err != nil:
	case len(a.codes) > 0:
		err = &refusedError{a.codes[0], ""}
	case c.key == nil:
		err = errors.New("no BackendKeyData came")
	}
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// message puts one together, to be sent by flush.
func (c *client) message(kind byte, body ...[]byte) {
	length := 4
	for _, part := range body {
		length += len(part)
	}
	c.out = binary.BigEndian.AppendUint32(append(c.out, kind), uint32(length))
	for _, part := range body {
		c.out = append(c.out, part...)
	}
}

func text(s string) []byte { return append([]byte(s), 0) }

func (c *client) query(sql string) { c.message('Q', text(sql)) }

func (c *client) parse(name, sql string) { c.message('P', text(name), text(sql), []byte{0, 0}) }

// bind takes binary results when asked to.
func (c *client) bind(portal, statement string, binaryResult bool) {
	formats := []byte{0, 0}
	if binaryResult {
		formats = []byte{0, 1, 0, 1}
	}
	c.message('B', text(portal), text(statement), []byte{0, 0, 0, 0}, formats)
}

func (c *client) describe(kind byte, name string) { c.message('D', []byte{kind}, text(name)) }

func (c *client) execute(portal string, most uint32) {
	c.message('E', text(portal), binary.BigEndian.AppendUint32(nil, most))
}

func (c *client) sync() { c.message('S') }

func (c *client) flush() error {
	_ = c.conn.SetDeadline(time.Now().Add(stepPatience))
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// ask sends what was put together and reads up to so many ReadyForQuery.
func (c *client) ask(ready int) (answers, error) {
	if err := c.flush(); err != nil {
		return answers{}, err
	}
	return c.until(ready)
}

// until reads up to so many ReadyForQuery, and checks every answer on the way.
func (c *client) until(ready int) (a answers, err error) {
	for ready > 0 {
		kind, body, err := c.next()
		if err != nil {
			return a, err
		}
		if err := c.take(&a, kind, body); err != nil {
			return a, err
		}
		if kind == 'Z' {
			ready--
		}
	}
	return a, nil
}

func (c *client) next() (kind byte, body []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		return 0, nil, err
	}
	length := int(binary.BigEndian.Uint32(header[1:])) - 4
	if length < 0 || length > 64<<20 {
		return 0, nil, fmt.Errorf("out of step: a message %q of %d bytes", header[0], length)
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.in, body)
	return header[0], body, err
}

func (c *client) take(a *answers, kind byte, body []byte) error {
	a.kinds = append(a.kinds, kind)
	switch kind {
	case 'D', 'd', 'A', 'S', 'N', 'E', 'C':
		own, err := c.tally.check(c.tenant, body)
		if err != nil {
			return err
		}
		a.own += own
	case 'K':
		c.process, c.key = binary.BigEndian.Uint32(body), slices.Clone(body[4:])
	case 'Z':
		a.status = body[0]
	case 'R', 'T', 't', '1', '2', '3', 'n', 's', 'I', 'G', 'H', 'c':
	default:
		return fmt.Errorf("out of step: an unexpected message %q", kind)
	}
	switch kind {
	case 'E':
		a.codes = append(a.codes, code(body))
	case 'D':
		if len(body) >= 6 && len(a.rows) < 100 {
			if n := int32(binary.BigEndian.Uint32(body[2:])); n >= 0 && int(n) <= len(body)-6 && n < 1000 {
				a.rows = append(a.rows, string(body[6:6+n]))
			}
		}
	}
	return nil
}

// code is the SQLSTATE of an ErrorResponse.
func code(body []byte) string {
	for field := range strings.SplitSeq(string(body), "\x00") {
		if strings.HasPrefix(field, "C") {
			return field[1:]
		}
	}
	return ""
}

// cancel sends a cancel request for this session, over a connection of its own.
func (c *client) cancel(address string) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(c.key)))
	b = binary.BigEndian.AppendUint32(b, 1234<<16|5678)
	b = binary.BigEndian.AppendUint32(b, c.process)
	_, _ = conn.Write(append(b, c.key...))
	_, _ = io.Copy(io.Discard, conn)
}
