package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// session is a client's session through the proxy.
type session struct {
	t    *trial
	conn *pgconn.PgConn
}

// change is what a connection differs in from what its account makes of it.
type change func(*pgconn.Config)

func with(parameter, value string) change {
	return func(c *pgconn.Config) { c.RuntimeParams[parameter] = value }
}

func as(user string) change { return func(c *pgconn.Config) { c.User = user } }

func database(name string) change { return func(c *pgconn.Config) { c.Database = name } }

// notified calls a function for each NotificationResponse.
func notified(receive func(payload string)) change {
	return func(c *pgconn.Config) {
		c.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { receive(n.Payload) }
	}
}

// sabotaged replaces the startup packet by what a function makes of it.
func sabotaged(spoil func(packet []byte) []byte) change {
	return func(c *pgconn.Config) {
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return &sabotagedConn{Conn: conn, spoil: spoil}, err
		}
	}
}

type sabotagedConn struct {
	net.Conn
	spoil func([]byte) []byte
	once  sync.Once
}

func (c *sabotagedConn) Write(b []byte) (int, error) {
	send := b
	c.once.Do(func() { send = c.spoil(b) })
	if _, err := c.Conn.Write(send); err != nil {
		return 0, err
	}
	return len(b), nil
}

// overheard is everything that was sent to the hostile tenant's connections in a trial.
type overheard struct {
	mutex sync.Mutex
	text  strings.Builder
}

func (o *overheard) has(text string) bool {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return strings.Contains(o.text.String(), text)
}

type overheardConn struct {
	net.Conn
	by *overheard
}

func (c *overheardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.by.mutex.Lock()
	c.by.text.Write(b[:n])
	c.by.mutex.Unlock()
	return n, err
}

// open logs in. What the proxy sends to an account of the hostile tenant is remembered.
func (t *trial) open(who account, changes ...change) (*session, error) {
	config, err := pgconn.ParseConfig(t.dsn(who))
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = patience
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || who == t.prey {
			return conn, err
		}
		return &overheardConn{Conn: conn, by: &t.heard}, nil
	}
	for _, c := range changes {
		c(config)
	}
	conn, err := pgconn.ConnectConfig(t.ctx, config)
	if err != nil {
		return nil, err
	}
	s := &session{t: t, conn: conn}
	t.atEnd(s.close)
	return s, nil
}

// mustOpen is open for a login that has to succeed.
func (t *trial) mustOpen(who account, changes ...change) *session {
	s, err := t.open(who, changes...)
	t.must(err)
	return s
}

func (t *trial) hostile(changes ...change) *session { return t.mustOpen(t.attacker, changes...) }

func (t *trial) victim(changes ...change) *session { return t.mustOpen(t.prey, changes...) }

// run executes a text by the simple protocol.
func (s *session) run(sql string) ([][]string, error) {
	return rowsOf(s.conn.Exec(s.t.ctx, s.t.named(sql)))
}

// runExtended executes a statement by the extended protocol.
func (s *session) runExtended(sql string) ([][]string, error) {
	result := s.conn.ExecParams(s.t.ctx, s.t.named(sql), nil, nil, nil, nil).Read()
	return textRows(result.Rows), result.Err
}

// runPipelined executes statements by the extended protocol, all in one write, with one Sync.
func (s *session) runPipelined(statements ...string) error {
	batch := &pgconn.Batch{}
	for _, sql := range statements {
		batch.ExecParams(s.t.named(sql), nil, nil, nil, nil)
	}
	_, err := s.conn.ExecBatch(s.t.ctx, batch).ReadAll()
	return err
}

// must runs a text that has to succeed and returns its last row's first value.
func (s *session) must(sql string) string {
	rows, err := s.run(sql)
	if err != nil {
		s.t.abandon(fmt.Errorf("%s: %w", sql, err))
	}
	if len(rows) == 0 || len(rows[len(rows)-1]) == 0 {
		return ""
	}
	return rows[len(rows)-1][0]
}

// backend is the process id of the server connection that serves the session now.
func (s *session) backend() string { return s.must("SELECT pg_backend_pid()") }

// close says goodbye.
func (s *session) close() {
	if s.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s.conn.Close(ctx) //nolint:errcheck // many attacks end the connection another way
}

// cut closes the socket without a goodbye.
func (s *session) cut() { s.hijack().Close() }
