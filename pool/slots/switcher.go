package slots

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// orderTimeout bounds one round of the switcher. The server's own timeouts, in prepareSession, are shorter.
	orderTimeout = 5 * time.Second
	// mostOrders bounds what is done in one transaction.
	mostOrders = 64
)

// prepareSession makes the switcher's session quick and keeps it from waiting. A commit that a crash of the server
// loses does no harm: the sessions of all slots end with it, and slots are looked at before they get another.
const prepareSession = "SET synchronous_commit = off; SET lock_timeout = '2s'; SET statement_timeout = '4s'; SET search_path = pg_catalog"

// switcher is the one connection of a Board that may grant. Orders are done in the order in which they were given; those
// that wait at the same time share a transaction.
type switcher struct {
	dial func(ctx context.Context, role string) (*pgconn.HijackedConn, error)
	work sync.WaitGroup

	mu      sync.Mutex
	queue   []*order
	running bool // a goroutine serves the queue, and owns conn
	closing bool // no connection is opened any more
	stale   bool // the connection is to be replaced

	conn *pgconn.PgConn // nil: not connected. Of the goroutine that serves, else of nobody
}

// order is a statement and what has become of it.
type order struct {
	sql   string
	rows  [][]string
	err   error
	done  chan struct{}
	alone bool // not in one transaction with others
}

func newSwitcher(dial func(context.Context, string) (*pgconn.HijackedConn, error)) *switcher {
	return &switcher{dial: dial}
}

// do has a statement executed and committed. When the context ends first it may be executed all the same.
func (s *switcher) do(ctx context.Context, sql string) error {
	_, err := s.give(ctx, &order{sql: sql, done: make(chan struct{})})
	return err
}

// query is do for a statement that returns rows, as text; NULL is "".
func (s *switcher) query(ctx context.Context, sql string) ([][]string, error) {
	return s.give(ctx, &order{sql: sql, alone: true, done: make(chan struct{})})
}

func (s *switcher) give(ctx context.Context, o *order) ([][]string, error) {
	s.mu.Lock()
	s.queue = append(s.queue, o)
	if !s.running {
		s.running = true
		s.work.Go(func() { s.serve(context.WithoutCancel(ctx)) })
	}
	s.mu.Unlock()
	select {
	case <-o.done:
		return o.rows, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// serve works the queue off and ends.
func (s *switcher) serve(ctx context.Context) {
	for {
		orders := s.take()
		if len(orders) == 0 {
			return
		}
		s.execute(ctx, orders)
		for _, o := range orders {
			close(o.done)
		}
	}
}

// take removes the orders that are done next, together; none ends the goroutine's turn.
func (s *switcher) take() []*order {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.queue) && n < mostOrders && (n == 0 || !s.queue[n].alone && !s.queue[0].alone) {
		n++
	}
	orders := s.queue[:n:n]
	s.queue = s.queue[n:]
	s.running = n > 0
	return orders
}

// execute does orders in one transaction, or each by itself when that fails, so that one which cannot be done keeps
// none of the others from it.
func (s *switcher) execute(ctx context.Context, orders []*order) {
	var unreachable error // found out once, and not by each order after the other
	if len(orders) > 1 {
		var sql strings.Builder
		for _, o := range orders {
			sql.WriteString(o.sql + ";\n")
		}
		_, err := s.run(ctx, sql.String())
		if err == nil {
			return
		}
		if s.conn == nil {
			unreachable = err
		}
	}
	for _, o := range orders {
		if o.err = unreachable; o.err != nil {
			continue
		}
		if o.rows, o.err = s.run(ctx, o.sql); o.err != nil && s.conn == nil {
			unreachable = o.err
		}
	}
}

// run executes SQL, all or nothing, over the connection that is there or a new one. All that it is used for may be
// done twice.
func (s *switcher) run(ctx context.Context, sql string) ([][]string, error) {
	ctx, stop := context.WithTimeout(ctx, orderTimeout)
	defer stop()
	had := s.conn != nil
	rows, err := s.attempt(ctx, sql)
	if err != nil && had && s.conn == nil && ctx.Err() == nil { // the connection had broken, unnoticed
		rows, err = s.attempt(ctx, sql)
	}
	return rows, err
}

func (s *switcher) attempt(ctx context.Context, sql string) ([][]string, error) {
	if s.takeStale() && s.conn != nil {
		s.hangUp(ctx)
	}
	if s.conn == nil {
		if s.isClosing() {
			return nil, errClosing
		}
		if err := s.connect(ctx); err != nil {
			return nil, fmt.Errorf("connecting as %s: %w", SwitcherRole, err)
		}
	}
	rows, err := exec(ctx, s.conn, sql)
	if err != nil && s.conn.IsClosed() {
		s.conn = nil
	}
	return rows, err
}

// connect logs in, and takes back every membership of every slot: what exists now is of a switch that did not come to
// its end.
func (s *switcher) connect(ctx context.Context) error {
	hijacked, err := s.dial(ctx, SwitcherRole)
	if err != nil {
		return err
	}
	conn, err := pgconn.Construct(hijacked)
	if err != nil {
		return errors.Join(err, hijacked.Conn.Close())
	}
	if err := begin(ctx, conn); err != nil {
		return errors.Join(err, conn.Close(ctx))
	}
	s.conn = conn
	return nil
}

func begin(ctx context.Context, conn *pgconn.PgConn) error {
	if _, err := exec(ctx, conn, prepareSession); err != nil {
		return err
	}
	rows, err := exec(ctx, conn, "SELECT pg_catalog.current_setting('server_version_num')")
	if err != nil {
		return err
	}
	if version, err := strconv.Atoi(rows[0][0]); err != nil || version < oldest {
		return fmt.Errorf("isolation level slot needs Postgres 15 or later; server_version_num is %s", rows[0][0])
	}
	left, err := exec(ctx, conn, `SELECT g.rolname, s.rolname FROM pg_catalog.pg_auth_members AS m `+
		`JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid JOIN pg_catalog.pg_roles AS s ON s.oid = m.member WHERE s.rolname ~ '`+slotPattern+`'`)
	if err != nil {
		return err
	}
	for _, row := range left {
		if _, err := exec(ctx, conn, seat(row[0], row[1], false)); err != nil {
			return err
		}
	}
	return nil
}

// exec runs a simple query and returns the rows of its last result.
func exec(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	last := results[len(results)-1]
	rows := make([][]string, len(last.Rows))
	for i, row := range last.Rows {
		rows[i] = make([]string, len(row))
		for j, value := range row {
			rows[i][j] = string(value)
		}
	}
	return rows, nil
}

// errClosing is what becomes of orders that there is no connection for any more. What they would have taken back is taken
// back when the next switcher connects.
var errClosing = errors.New("the proxy is shutting down")

func (s *switcher) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// reconnect has the connection replaced before the next order.
func (s *switcher) reconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale = true
}

func (s *switcher) takeStale() (stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stale, s.stale = s.stale, false
	return stale
}

// close waits for what is under way and ends the connection.
func (s *switcher) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.work.Wait()
	if s.conn == nil {
		return
	}
	s.hangUp(context.Background())
}

// hangUp ends the connection.
func (s *switcher) hangUp(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	_ = s.conn.Close(ctx) // it says goodbye; there is nothing to do if it cannot
	s.conn = nil
}
