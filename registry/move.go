package registry

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// MoveStep is how far a tenant's move to another server has come. It is written down before it is acted on.
type MoveStep string

// The steps of tenant_move.step, in order.
const (
	MovePreparing MoveStep = "prepare"  // the new server gets role, place and structure
	MoveCopying   MoveStep = "copy"     // the rows are copied, and changes follow
	MoveHolding   MoveStep = "hold"     // the tenant is held; the old server is closed to it
	MoveOpening   MoveStep = "open"     // the new server is opened to it; then the route changes
	MoveKept      MoveStep = "kept"     // it is served by the new server; what is on the old one is kept, closed
	MoveFinishing MoveStep = "finish"   // what is on the old server is dropped
	MoveFinished  MoveStep = "finished" // nothing is left of the move
	MoveAborting  MoveStep = "abort"    // what has been done is taken back
	MoveAborted   MoveStep = "aborted"
)

// Ended reports whether nothing more is to be done about the move.
func (s MoveStep) Ended() bool { return s == MoveFinished || s == MoveAborted }

// Move is one row of tenant_move: a tenant's move that is under way, or its last.
type Move struct {
	Tenant     TenantID
	From, To   string // servers
	Step       MoveStep
	StartedAt  time.Time
	HeldAt     time.Time // zero: not yet
	FlippedAt  time.Time // likewise
	FinishedAt time.Time // likewise
	Detail     json.RawMessage
}

// SelectMoves reads rows for ScanMove.
const SelectMoves = `
SELECT tenant_id, from_server, to_server, step, started_at, coalesce(held_at, '0001-01-01Z'), coalesce(flipped_at, '0001-01-01Z'),
       coalesce(finished_at, '0001-01-01Z'), detail FROM docex_system.tenant_move`

// ScanMove reads one row of SelectMoves.
func ScanMove(row pgx.CollectableRow) (*Move, error) {
	var m Move
	err := row.Scan(&m.Tenant, &m.From, &m.To, &m.Step, &m.StartedAt, &m.HeldAt, &m.FlippedAt, &m.FinishedAt, &m.Detail)
	for _, at := range []*time.Time{&m.StartedAt, &m.HeldAt, &m.FlippedAt, &m.FinishedAt} {
		*at = at.UTC()
	}
	return &m, err
}

// undefinedTable is the SQLSTATE in a registry that an older version has made.
const undefinedTable = "42P01"

// Move reads a tenant's move. The error is ErrNotFound where there has been none.
func (s *Store) Move(ctx context.Context, id TenantID) (*Move, error) {
	m, err := readOne(ctx, s.pool, ScanMove, SelectMoves+` WHERE tenant_id = $1`, string(id))
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == undefinedTable {
		return nil, ErrNotFound
	}
	return m, err
}
