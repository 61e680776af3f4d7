package slots

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The roles, as docexctl makes them.
const (
	SwitcherRole = "docex_switcher"
	slotPrefix   = "docex_slot_"
	slotPattern  = "^docex_slot_[1-9][0-9]{0,8}$"
)

// oldest is the server_version_num of the first release in which a role cannot grant itself to others.
const oldest = 150000

// SQLSTATEs, appendix A.
const (
	insufficientPrivilege = "42501"
	tooManyConnections    = "53300"
)

const (
	// busyPause is for how long a slot is left alone on which another proxy, or a backend that has not ended yet, was found.
	busyPause = 2 * time.Second
	// relistInterval bounds how often the roles are listed anew when all known ones are taken.
	relistInterval = time.Second
	// cleanUpTimeout bounds the REVOKE after a switch that has failed.
	cleanUpTimeout = 5 * time.Second
)

// Options is what a Board is made with.
type Options struct {
	// Dial logs in to the board's database as a role, and returns a connection at ReadyForQuery.
	Dial func(ctx context.Context, role string) (*pgconn.HijackedConn, error)
	// Verifier makes what Postgres stores of a role's password, for a slot whose password a tenant has changed; "" where
	// no passwords are used.
	Verifier func(role string) string
	Logger   *slog.Logger
}

// Board is the slots of one database. Its methods may be called at the same time.
type Board struct {
	o        Options
	switcher *switcher

	mu     sync.Mutex
	roles  []string // of all slots
	listed time.Time
	taken  map[string]bool
	busy   map[string]time.Time // not to be tried before
}

// New makes a Board. It connects when it is first used. Every Board has to be closed.
func New(o Options) *Board {
	return &Board{o: o, switcher: newSwitcher(o.Dial), taken: make(map[string]bool), busy: make(map[string]time.Time)}
}

// NoSlotError says that no slot was free, of how many.
type NoSlotError struct {
	Slots int
	Err   error // of the last one tried; nil when none was
}

func (e *NoSlotError) Error() string {
	text := fmt.Sprintf("none of %d slots is free: `docexctl init --slots N` makes more", e.Slots)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *NoSlotError) Unwrap() error { return e.Err }

// Seat is a taken slot with its session.
type Seat struct {
	board *Board
	role  string
	fresh bool // nobody has used the session yet
	wire  wire
	free  sync.Once
}

// Recover connects the switcher and takes back whatever memberships a proxy that was killed has left. Open does the
// same; Recover is for a proxy that starts.
func (b *Board) Recover(ctx context.Context) error {
	_, err := b.switcher.query(ctx, "SELECT 1")
	return err
}

// Open takes a free slot, logs in as it, and looks whether it is as it must be. The connection has no rights at all
// until Switch. Release has to follow once its socket is closed.
//
// Errors: *NoSlotError, a *pgconn.PgError in the chain of any other where the server refused.
func (b *Board) Open(ctx context.Context) (*pgconn.HijackedConn, *Seat, error) {
	var last error
	for {
		role, count, err := b.take(ctx)
		if err != nil {
			return nil, nil, err
		}
		if role == "" {
			return nil, nil, &NoSlotError{Slots: count, Err: last}
		}
		conn, err := b.occupy(ctx, role)
		if err == nil {
			return conn, &Seat{board: b, role: role, fresh: true}, nil
		}
		occupied := hasCode(err, tooManyConnections)
		b.giveBack(role, occupied)
		if last = err; !occupied {
			return nil, nil, err
		}
	}
}

// occupy opens the one session of a slot.
func (b *Board) occupy(ctx context.Context, role string) (*pgconn.HijackedConn, error) {
	for attempt := 0; ; attempt++ {
		conn, err := b.o.Dial(ctx, role)
		if err == nil {
			var spoilt bool
			if spoilt, err = b.inspect(ctx, role); err == nil && !spoilt {
				return conn, nil
			}
			hangUp(conn)
		}
		switch {
		case attempt > 0 && err == nil:
			return nil, fmt.Errorf("the settings of role %s come back", role)
		case attempt > 0, err != nil && (hasCode(err, tooManyConnections) || ctx.Err() != nil):
			return nil, err // after any other failure: a setting that a tenant has left may keep every login out
		}
		if err := b.renew(ctx, role); err != nil {
			return nil, err
		}
	}
}

// inspect looks at a slot that this proxy has the session of, and takes back the memberships that it has. Spoilt means
// that a tenant has left settings, which the session has started with.
func (b *Board) inspect(ctx context.Context, role string) (spoilt bool, err error) {
	question := `SELECT rolcanlogin AND rolconnlimit = 1 AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR ` +
		`rolreplication OR rolbypassrls OR rolinherit), EXISTS (SELECT FROM pg_catalog.pg_db_role_setting WHERE setrole = r.oid), ` +
		`(SELECT pg_catalog.string_agg(g.rolname, E'\\n') FROM pg_catalog.pg_auth_members AS m ` +
		`JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid WHERE m.member = r.oid) ` +
		`FROM pg_catalog.pg_roles AS r WHERE rolname = ` + literal(role)
	rows, err := b.switcher.query(ctx, question)
	switch {
	case err != nil:
		return false, fmt.Errorf("looking at role %s: %w", role, err)
	case len(rows) != 1 || rows[0][0] != "t":
		return false, fmt.Errorf("role %s is not what a slot has to be: LOGIN, NOINHERIT, CONNECTION LIMIT 1 and no powers", role)
	}
	if memberships := rows[0][2]; memberships != "" {
		b.o.Logger.Warn("a slot had memberships, of a proxy that did not end its switch", "slot", role, "memberships", memberships)
		for tenant := range strings.SplitSeq(memberships, "\n") {
			if err := b.switcher.do(ctx, seat(tenant, role, false)); err != nil {
				return false, fmt.Errorf("taking back the memberships of role %s: %w", role, err)
			}
		}
		again, err := b.switcher.query(ctx, question)
		if err != nil || len(again) != 1 || again[0][2] != "" {
			return false, fmt.Errorf("role %s has memberships that %s cannot take back: %s", role, SwitcherRole, memberships)
		}
	}
	return rows[0][1] == "t", nil
}

// renew gives a slot that a tenant has spoilt its password and its settings back.
func (b *Board) renew(ctx context.Context, role string) error {
	verifier := "NULL"
	if stored := b.o.Verifier(role); stored != "" {
		verifier = literal(stored)
	}
	number := role[len(slotPrefix):]
	if _, err := b.switcher.query(ctx, "SELECT docex_system.renew_slot("+number+", "+verifier+")"); err != nil {
		return fmt.Errorf("making role %s anew: %w", role, err)
	}
	b.o.Logger.Warn("a slot could not be used as it was, and was made anew: a tenant may have changed its password or settings", "slot", role)
	return nil
}

// take marks a free slot as taken; "" when there is none. count is how many there are.
func (b *Board) take(ctx context.Context) (role string, count int, err error) {
	for {
		role, count, stale := b.pick()
		if role != "" || !stale {
			return role, count, nil
		}
		if err := b.list(ctx); err != nil {
			return "", 0, err
		}
	}
}

// pick is take with the slots that are known. stale says that it is worth listing them anew.
func (b *Board) pick() (role string, count int, stale bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, role := range b.roles {
		if b.taken[role] || now.Before(b.busy[role]) {
			continue
		}
		b.taken[role] = true
		return role, len(b.roles), false
	}
	return "", len(b.roles), now.Sub(b.listed) > relistInterval
}

func (b *Board) list(ctx context.Context) error {
	rows, err := b.switcher.query(ctx, "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname ~ '"+slotPattern+"' "+
		"AND pg_catalog.has_database_privilege(rolname, pg_catalog.current_database(), 'CONNECT') "+
		"ORDER BY pg_catalog.length(rolname), rolname")
	if err != nil {
		return err
	}
	roles := make([]string, len(rows))
	for i, row := range rows {
		roles[i] = row[0]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roles, b.listed = roles, time.Now()
	return nil
}

func (b *Board) giveBack(role string, busy bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.taken, role)
	if busy {
		b.busy[role] = time.Now().Add(busyPause)
	} else {
		delete(b.busy, role)
	}
}

// Reconnect has the switcher connect anew before its next order: its server may be another one now.
func (b *Board) Reconnect() { b.switcher.reconnect() }

// Close ends the switcher's connection. No Switch may be under way.
func (b *Board) Close() { b.switcher.close() }

// Role is the slot's role.
func (s *Seat) Role() string { return s.role }

// Release gives the slot back, after its session's socket was closed.
func (s *Seat) Release() { s.free.Do(func() { s.board.giveBack(s.role, false) }) }

// hangUp ends a connection that nobody has used.
func hangUp(conn *pgconn.HijackedConn) {
	_ = conn.Conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Conn.Write([]byte{'X', 0, 0, 0, 4})
	var rest [512]byte
	for { // until the server has ended its session, which is when the role is free again
		if _, err := conn.Conn.Read(rest[:]); err != nil {
			break
		}
	}
	conn.Conn.Close()
}

func hasCode(err error, codes ...string) bool {
	var refusal *pgconn.PgError
	return errors.As(err, &refusal) && slices.Contains(codes, refusal.Code)
}
