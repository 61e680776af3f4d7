package pool

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/pool/slots"
)

// systemGeneration is the generation of the derived passwords of the slots and their switcher.
const systemGeneration = 1

// boards are the slots of a server's databases, made when they are first needed. The zero value is ready.
type boards struct {
	mu     sync.Mutex
	byName map[string]*slots.Board
}

// board returns the slots of a database.
func (s *server) board(database string) *slots.Board {
	s.boards.mu.Lock()
	defer s.boards.mu.Unlock()
	board := s.boards.byName[database]
	if board == nil {
		board = slots.New(s.slotOptions(database))
		if s.boards.byName == nil {
			s.boards.byName = make(map[string]*slots.Board)
		}
		s.boards.byName[database] = board
	}
	return board
}

func (s *server) slotOptions(database string) slots.Options {
	return slots.Options{
		Dial: func(ctx context.Context, role string) (*pgconn.HijackedConn, error) {
			t := Target{Database: database, Role: role, Generation: systemGeneration}
			return s.dialer.connect(ctx, t)
		},
		Verifier: s.verifier,
		Logger:   s.logger,
	}
}

// verifier makes what Postgres stores of a role's password; "" where no passwords are used.
func (s *server) verifier(role string) string {
	password := s.options.Password(role, systemGeneration)
	if password == "" {
		return ""
	}
	return scram.NewVerifier(password).String()
}

// moved has the switchers look for the server anew.
func (b *boards) moved() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, board := range b.byName {
		board.Reconnect()
	}
}

// closeBoards ends the switchers' connections. No connection of a slot is left by then.
func (s *server) closeBoards() {
	s.boards.mu.Lock()
	defer s.boards.mu.Unlock()
	for _, board := range s.boards.byName {
		board.Close()
	}
}

// dial opens a connection for a target. The seat is nil unless it is a slot's.
func (s *server) dial(t Target) (*pgconn.HijackedConn, *slots.Seat, error) {
	if !t.Slot {
		conn, err := s.dialer.dial(s.life, t)
		return conn, nil, err
	}
	ctx, cancel := context.WithTimeout(s.life, s.options.ConnectTimeout)
	defer cancel()
	conn, seat, err := s.board(t.Database).Open(ctx)
	if err != nil {
		s.dialer.complain(t, err)
		return nil, nil, fmt.Errorf("isolation level slot: %w", err)
	}
	return conn, seat, nil
}

// serve makes a slot's connection, which was just leased, the target's. Every other already is. It does not end with the
// context: a switch that is broken off costs the connection.
func (c *Conn) serve(ctx context.Context, t Target) error {
	if c.seat == nil || c.serves == t {
		return nil
	}
	s := c.server
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ConnectTimeout)
	defer cancel()
	began := time.Now()
	c.serves = Target{}
	reported, err := c.seat.Switch(ctx, c.NetConn(), t.Role)
	s.metrics.TenantSwitched(s.name, time.Since(began), err)
	if err != nil {
		s.dialer.complain(t, err)
		return &ConnectError{Server: s.name, Err: fmt.Errorf("isolation level slot: %w", err)}
	}
	c.serves, c.State = t, s.options.NewState()
	c.parameters = maps.Clone(c.parameters)
	maps.Copy(c.parameters, reported)
	return nil
}

// Unsettle has a slot's connection made its tenant's anew before the next lease: the session has left its role, to which
// its own SQL cannot return.
func (c *Conn) Unsettle() { c.serves = Target{} }

// Recover takes back what memberships of slots a proxy that was killed has left in a database. It is for a proxy that
// starts; every connection of a slot is looked at again when it is opened.
func (s *Set) Recover(ctx context.Context, serverName, database string) error {
	server, ok := s.servers[serverName]
	if !ok {
		return &ConnectError{Server: serverName, Err: errUnknownServer}
	}
	if err := server.board(database).Recover(ctx); err != nil {
		return &ConnectError{Server: serverName, Err: err}
	}
	return nil
}
