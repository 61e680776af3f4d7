package relay_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/docex-proxy/docex-proxy/proxy/relay"
)

// message builds one protocol message; strings are NUL-terminated, bytes and []byte go as they are.
func message(kind byte, parts ...any) []byte {
	b := []byte{kind, 0, 0, 0, 0}
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			b = append(append(b, part...), 0)
		case []byte:
			b = append(b, part...)
		case byte:
			b = append(b, part)
		case rune:
			b = append(b, byte(part))
		case int:
			b = binary.BigEndian.AppendUint16(b, uint16(part))
		default:
			panic(fmt.Sprintf("message part %T", part))
		}
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

func query(sql string) []byte           { return message('Q', sql) }
func parse(name, sql string) []byte     { return message('P', name, sql, 0) }
func bind(name string) []byte           { return message('B', "", name, 0, 0, 0) }
func describe(name string) []byte       { return message('D', 'S', name) }
func closeStatement(name string) []byte { return message('C', 'S', name) }
func execute() []byte                   { return message('E', "", []byte{0, 0, 0, 0}) }
func sync() []byte                      { return message('S') }
func join(messages ...[]byte) []byte    { return bytes.Join(messages, nil) }

// split cuts a stream into messages and gives each as "kind:body", non-printing bytes left out.
func split(stream []byte) []string {
	var found []string
	for len(stream) >= 5 {
		total := 1 + int(binary.BigEndian.Uint32(stream[1:]))
		body := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, string(stream[5:total]))
		found = append(found, string(stream[0])+":"+body)
		stream = stream[total:]
	}
	if len(stream) > 0 {
		found = append(found, fmt.Sprintf("broken:%x", stream))
	}
	return found
}

// double answers like Postgres, as far as the machine looks: prepared statements by name, skipping after errors,
// transaction status, COPY. A text with "fail" in it fails.
type double struct {
	in         []byte
	out        []byte
	statements map[string]string
	bound      string
	status     byte
	skipping   bool
	copying    bool
	seen       []string          // every message it was sent, in words
	settings   string            // rows of the answer to a question about the session's state: name=value,...
	column     string            // the name of the only column of the table t
	planned    map[string]string // what it was when a statement was prepared
	broken     string            // a text that cannot be prepared
	restored   int               // startup settings were brought back so often
	reports    map[string]string // parameters, with the next answer to a Query
	cancel     int               // so many of the next questions, or settings, are canceled
}

func newDouble() *double {
	return &double{statements: map[string]string{}, planned: map[string]string{}, status: 'I', column: "a"}
}

// stale reports whether a statement reads the table t, which has been changed since it was prepared.
func (d *double) stale(name string) bool {
	return strings.Contains(d.statements[name], "FROM t") && d.planned[name] != d.column
}

func (d *double) write(b []byte) {
	d.in = append(d.in, b...)
	for len(d.in) >= 5 {
		total := 1 + int(binary.BigEndian.Uint32(d.in[1:]))
		if len(d.in) < total {
			return
		}
		d.take(d.in[0], d.in[5:total])
		d.in = d.in[total:]
	}
}

func (d *double) say(kind byte, parts ...any) { d.out = append(d.out, message(kind, parts...)...) }

func (d *double) fail(code, text string) {
	routine := map[string]string{"26000": "FetchPreparedStatement", "42P05": "StorePreparedStatement"}[code]
	if routine == "" {
		d.say('E', 'S', "ERROR", 'V', "ERROR", 'C', code, 'M', text, byte(0))
	} else {
		d.say('E', 'S', "ERROR", 'V', "ERROR", 'C', code, 'M', text, 'F', "prepare.c", 'R', routine, byte(0))
	}
	if d.status == 'T' {
		d.status = 'E'
	}
}

func (d *double) failExtended(code, text string) {
	d.fail(code, text)
	d.skipping = true
}

func (d *double) take(kind byte, body []byte) {
	fields := strings.Split(string(body), "\x00")
	d.seen = append(d.seen, string(kind)+":"+strings.Join(fields, "|"))
	if d.copying {
		switch kind {
		case 'c':
			d.copying = false
			d.say('C', "COPY 1")
			d.say('Z', d.status)
		case 'f':
			d.copying = false
			d.fail("57014", "COPY failed")
			d.say('Z', d.status)
		}
		return
	}
	if d.skipping && kind != 'S' {
		return
	}
	switch kind {
	case 'Q':
		delete(d.statements, "")
		d.query(fields[0])
	case 'P':
		_, exists := d.statements[fields[0]]
		switch {
		case strings.Contains(fields[1], "fail"), d.broken != "" && fields[1] == d.broken:
			d.failExtended("42601", "syntax error")
		case exists && fields[0] != "":
			d.failExtended("42P05", `prepared statement "`+fields[0]+`" already exists`)
		default:
			d.statements[fields[0]], d.planned[fields[0]] = fields[1], d.column
			d.say('1')
		}
	case 'B':
		sql, ok := d.statements[fields[1]]
		if !ok {
			d.failExtended("26000", `prepared statement "`+fields[1]+`" does not exist`)
			return
		}
		if d.stale(fields[1]) {
			d.failExtended("0A000", "cached plan must not change result type")
			return
		}
		d.bound = sql
		d.say('2')
	case 'D':
		if name := fields[0][1:]; fields[0][0] == 'S' {
			if _, ok := d.statements[name]; !ok {
				d.failExtended("26000", `prepared statement "`+name+`" does not exist`)
				return
			}
			if d.stale(name) {
				d.failExtended("0A000", "cached plan must not change result type")
				return
			}
			d.say('t', 0)
			if strings.Contains(d.statements[name], "FROM t") {
				d.say('T', 1, d.column, make([]byte, 18))
				return
			}
		}
		d.say('n')
	case 'E':
		if strings.Contains(d.bound, "crash") {
			d.failExtended("22012", "division by zero")
			return
		}
		d.say('D', 1, []byte{0, 0, 0, byte(len(d.bound))}, []byte(d.bound))
		d.say('C', tagOf(d.bound))
	case 'C':
		delete(d.statements, fields[0][1:])
		d.say('3')
	case 'S':
		d.skipping = false
		d.say('Z', d.status)
	case 'F':
		d.say('V', []byte{0xff, 0xff, 0xff, 0xff})
		d.say('Z', d.status)
	}
}

func tagOf(sql string) string { return strings.ToUpper(strings.Fields(sql + " x")[0]) }

func (d *double) query(sql string) {
	for name, value := range d.reports {
		d.say('S', name, value)
	}
	d.reports = nil
	switch {
	case d.cancel > 0 && strings.Contains(sql, "pg_catalog."):
		d.cancel--
		d.fail("57014", "canceling statement due to user request")
	case strings.HasPrefix(sql, "SELECT pg_catalog.set_config(v.name"):
		d.restored++
		d.say('S', "TimeZone", "Asia/Tokyo")
		d.say('T', 0)
		d.say('C', "SELECT 1")
	case strings.HasPrefix(sql, "RESET"):
		d.say('C', "RESET")
		d.say('S', "TimeZone", "Etc/UTC")
	case strings.Contains(sql, "pg_catalog.pg_settings"):
		d.say('T', 0)
		for pair := range strings.SplitSeq(d.settings, ",") {
			if name, value, ok := strings.Cut(pair, "="); ok {
				d.say('D', 2, []byte{0, 0, 0, byte(len(name))}, []byte(name), []byte{0, 0, 0, byte(len(value))}, []byte(value))
			}
		}
		d.say('C', "SELECT 1")
	case strings.Contains(sql, "fail"):
		d.fail("42601", "syntax error")
	case strings.HasPrefix(sql, "COPY"):
		d.say('G', byte(0), 0)
		d.copying = true
		return
	case sql == "BEGIN":
		d.status = 'T'
		d.say('C', "BEGIN")
	case strings.HasPrefix(sql, "ROLLBACK TO"):
		if d.status == 'E' {
			d.status = 'T'
		}
		d.say('C', "ROLLBACK")
	case sql == "COMMIT" || sql == "ROLLBACK":
		d.status = 'I'
		d.say('C', sql)
	case sql == "DISCARD ALL":
		clear(d.statements)
		d.say('C', sql)
	case strings.Contains(sql, "SET ROLE missing") || strings.Contains(sql, `SET ROLE "missing"`):
		d.fail("22023", `role "missing" does not exist`)
	default:
		d.say('T', 0)
		d.say('D', 1, []byte{0, 0, 0, byte(len(sql))}, []byte(sql))
		d.say('C', tagOf(sql))
	}
	d.say('Z', d.status)
}

// stage is a session with its driver reduced to the essential: a pool of one connection, which is given whenever it is
// asked for, and byte streams cut where the test wants.
type stage struct {
	session  *relay.Session
	server   *relay.Server
	double   *double
	toClient []byte
	pending  []byte // client bytes not yet consumed
	released int
	err      error
	ended    bool
	cut      func(n int) int // how many of n available server bytes to read at once
}

func newStage(cfg relay.Config) *stage {
	cfg.ID = 1
	if cfg.MaxStatementBytes == 0 {
		cfg.MaxStatementBytes, cfg.MaxStatements = 1<<20, 100
	}
	return &stage{
		session: relay.NewSession(cfg), server: relay.NewServer(7, map[string]string{"server_version": "15"}, 10), double: newDouble(),
		cut: func(n int) int { return n },
	}
}

// send offers client bytes and lets both sides run until nothing moves.
func (s *stage) send(b []byte) {
	s.pending = append(s.pending, b...)
	var out relay.Output
	for s.err == nil && !s.ended {
		n, verdict, err := s.session.FromClient(s.pending, &out)
		s.flush(&out)
		s.pending = append([]byte(nil), s.pending[n:]...)
		if s.err = err; err != nil {
			return
		}
		switch verdict {
		case relay.Attach:
			s.session.Attach(s.server, &out)
			s.flush(&out)
			continue
		case relay.Terminate:
			s.ended = true
		}
		moved := s.serverSpeaks()
		if verdict == relay.More && !moved {
			return
		}
	}
}

// serverSpeaks hands over what the server has said, in pieces.
func (s *stage) serverSpeaks() (moved bool) {
	var out relay.Output
	var unread []byte
	for len(s.double.out) > 0 && s.session.Attached() {
		n := max(1, s.cut(len(s.double.out)))
		unread = append(unread, s.double.out[:n]...)
		s.double.out = append([]byte(nil), s.double.out[n:]...)
		consumed, verdict, err := s.session.FromServer(unread, &out)
		s.flush(&out)
		unread = append([]byte(nil), unread[consumed:]...)
		moved = true
		if s.err = err; err != nil {
			return true
		}
		if verdict == relay.Release {
			s.session.Detach()
			s.released++
		}
	}
	s.double.out = append(unread, s.double.out...)
	return moved
}

func (s *stage) flush(out *relay.Output) {
	s.double.write(out.ToServer.Bytes())
	s.toClient = append(s.toClient, out.ToClient.Bytes()...)
	out.Reset()
}

// got returns what the client was sent since it was last asked, without ParameterStatus.
func (s *stage) got() []string {
	var found []string
	for _, m := range split(s.toClient) {
		if !strings.HasPrefix(m, "S:") {
			found = append(found, m)
		}
	}
	s.toClient = nil
	return found
}
