package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// load reads the move that has not ended, if there is one, and makes its two ends.
func (m *move) load(ctx context.Context) error {
	return m.home.transact(ctx, func(w *work) error {
		if err := w.enter(ctx); err != nil {
			return err
		}
		return w.as(ctx, OwnerRole, func(ctx context.Context) error {
			known, err := w.knowsMoves(ctx)
			if err != nil {
				return err
			}
			if !known {
				return fmt.Errorf("the registry is of an older version: run `docexctl init` once more")
			}
			record, err := w.unendedMove(ctx, m.request.ID)
			if err != nil || record == nil {
				return err
			}
			return m.take(record)
		})
	})
}

// take goes on with a move of the registry.
func (m *move) take(record *registry.Move) error {
	m.record = record
	if err := json.Unmarshal(record.Detail, &m.detail); err != nil {
		return fmt.Errorf("tenant_move.detail: %w", err)
	}
	if status := m.tenant.Route.Status; status != registry.StatusMoving { // it may have been suspended since
		m.detail.Status = status
	}
	m.source, m.target = m.endAt(record.From), m.endAt(record.To)
	return nil
}

// knowsMoves is false in a registry that an older version has made.
func (w *work) knowsMoves(ctx context.Context) (known bool, err error) {
	err = w.tx.QueryRow(ctx, `SELECT to_regclass('docex_system.tenant_move') IS NOT NULL`).Scan(&known)
	return known, err
}

// unendedMove is nil where there is none.
func (w *work) unendedMove(ctx context.Context, id registry.TenantID) (*registry.Move, error) {
	rows, err := w.tx.Query(ctx, registry.SelectMoves+` WHERE tenant_id = $1 AND finished_at IS NULL`, string(id))
	if err != nil {
		return nil, err
	}
	record, err := pgx.CollectOneRow(rows, registry.ScanMove)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return record, err
}

// refuseMoving refuses what must not be done to a tenant while a server has something of a move.
func (w *work) refuseMoving(ctx context.Context, id registry.TenantID) error {
	if known, err := w.knowsMoves(ctx); err != nil || !known {
		return err
	}
	record, err := w.unendedMove(ctx, id)
	if err != nil || record == nil {
		return err
	}
	remedy := "--abort takes the move back"
	if record.Step == registry.MoveKept || record.Step == registry.MoveFinishing {
		remedy = fmt.Sprintf("--finish drops what is left on server %q", record.From)
	}
	return &ConflictError{Object: "tenant", Name: string(id), Reason: fmt.Sprintf(
		"is being moved from server %q to %q, or has just been: `docexctl tenant move %s` %s", record.From, record.To, id, remedy)}
}

// start writes a new move down, or goes on with the one that there is.
func (m *move) start(ctx context.Context) error {
	if r := m.record; r != nil {
		switch {
		case r.Step == registry.MoveAborting:
			return m.conflict("is being taken back from server %q: `docexctl tenant move %s --abort` goes on", r.To, m.request.ID)
		case r.Step != registry.MoveKept && r.Step != registry.MoveFinishing && r.To != m.request.To:
			return m.conflict("is being moved to server %q: the same command goes on, `docexctl tenant move %s --abort` takes it back", r.To, m.request.ID)
		case r.To == m.request.To && r.Step != registry.MoveFinishing:
			return nil
		case r.From != m.request.To && m.detail.KeptUntil != nil && m.now().Before(*m.detail.KeptUntil):
			return m.conflict("is kept on server %q, too, until %s: `docexctl tenant move %s --finish` drops that copy now",
				r.From, m.detail.KeptUntil.Format(time.RFC3339), m.request.ID)
		}
		if err := m.finish(ctx); err != nil { // what an earlier move has left is not worth more than the tenant as it is
			return err
		}
		m.source.close(ctx)
		m.target.close(ctx)
	}
	from, status := m.tenant.Route.Server, m.tenant.Route.Status
	switch {
	case from == m.request.To:
		return m.conflict("is on server %q already", from)
	case status != registry.StatusActive && status != registry.StatusSuspended:
		return m.conflict("is %s: it is not moved%s", status, remedy(status))
	}
	for _, name := range []string{from, m.request.To} {
		if _, abroad := m.at(name); !abroad && name != defaultServer {
			return invalid("say with --server-dsn %s=DSN how server %q is reached", name, name)
		}
	}
	for _, name := range []string{from, m.request.To} {
		if m.isCitus(name) {
			return invalid("server %q is marked as Citus, whose distributed tables logical replication does not carry: only Citus moves a tenant, between its nodes", name)
		}
	}
	switch level := m.tenant.Route.Isolation; level {
	case registry.IsolationDatabase, registry.IsolationRole, registry.IsolationSlot:
	default:
		return invalid("a tenant at isolation %s is not moved: that takes isolation %s, %s or %s",
			level, registry.IsolationRole, registry.IsolationSlot, registry.IsolationDatabase)
	}
	m.detail = moveDetail{}
	if err := m.take(&registry.Move{Tenant: m.request.ID, From: from, To: m.request.To, Step: registry.MovePreparing, Detail: []byte("{}")}); err != nil {
		return err
	}
	if err := m.examine(ctx); err != nil { // before anything is written
		m.record = nil
		return err
	}
	return m.runStep(ctx, step{"write the move down", m.insert})
}

func (m *move) insert(ctx context.Context) error {
	detail, err := m.detail.encode()
	if err != nil {
		return err
	}
	return m.write(ctx, func(ctx context.Context, w *work) error {
		if _, err := w.tx.Exec(ctx, `DELETE FROM docex_system.tenant_move WHERE tenant_id = $1 AND finished_at IS NOT NULL`, string(m.request.ID)); err != nil {
			return err
		}
		_, err := w.tx.Exec(ctx, `INSERT INTO docex_system.tenant_move (tenant_id, from_server, to_server, step, detail) VALUES ($1, $2, $3, $4, $5)`,
			string(m.request.ID), m.record.From, m.record.To, m.record.Step, detail)
		if err != nil {
			return err
		}
		return m.event(ctx, w, "move")
	})
}

// write runs a transaction on the registry. It is the connection that holds the tenant's lock: whoever has lost the lock
// can write no more.
func (m *move) write(ctx context.Context, run func(context.Context, *work) error) error {
	return m.home.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) error { return run(ctx, w) })
	})
}

// enter writes the next step down, and what else belongs to it.
func (m *move) enter(ctx context.Context, next registry.MoveStep, and func(context.Context, *work) error) error {
	detail, err := m.detail.encode()
	if err != nil {
		return err
	}
	err = m.write(ctx, func(ctx context.Context, w *work) error {
		tag, err := w.tx.Exec(ctx, `
UPDATE docex_system.tenant_move SET step = $3, detail = $4, held_at = CASE WHEN $3 = 'hold' THEN now() ELSE held_at END,
       flipped_at = CASE WHEN $3 = 'kept' THEN now() ELSE flipped_at END,
       finished_at = CASE WHEN $3 IN ('finished', 'aborted') THEN now() END
 WHERE tenant_id = $1 AND step = $2`, string(m.request.ID), string(m.record.Step), string(next), detail)
		if err != nil {
			return err
		}
		if tag.RowsAffected() != 1 {
			return m.conflict("has been moved on by another run of docexctl")
		}
		if and == nil {
			return nil
		}
		return and(ctx, w)
	})
	if err == nil {
		m.record.Step = next
	}
	return err
}

// setStatus changes the tenant's status within a transaction of the registry: proxies hear of it when that commits.
func (m *move) setStatus(ctx context.Context, w *work, status registry.Status) error {
	_, err := w.tx.Exec(ctx, `UPDATE docex_system.tenant_route SET status = $2 WHERE tenant_id = $1`, string(m.request.ID), string(status))
	return err
}

func (m *move) event(ctx context.Context, w *work, verb string) error {
	return registry.InsertEvent(ctx, w.tx, m.request.ID, verb, m.request.Actor, struct {
		From string  `json:"from"`
		To   string  `json:"to"`
		Held float64 `json:"held_seconds,omitempty"`
	}{m.record.From, m.record.To, m.detail.HeldFor})
}
