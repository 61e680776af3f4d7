package provision

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/docex-proxy/docex-proxy/registry"
)

// AbortMove takes a move back that has not reached its end: the tenant is served where it was, and nothing is left on the
// other server. A run that is ended goes on with the same request. To, Hold, Keep and Verify do not matter.
//
// Errors: ErrNotFound, *ConflictError for a tenant that is not being moved or is served by the other server already.
func (p *Provisioner) AbortMove(ctx context.Context, r MoveRequest) (MoveResult, error) {
	m, err := p.beginMove(ctx, r)
	if err != nil {
		return MoveResult{}, err
	}
	defer m.close(ctx)
	switch {
	case m.record == nil:
		return MoveResult{}, m.conflict("is not being moved")
	case m.record.Step == registry.MoveKept || m.record.Step == registry.MoveFinishing:
		return m.result(), m.conflict("is served by server %q already: `docexctl tenant move %s --to %s` moves it back", m.record.To, r.ID, m.record.From)
	}
	for _, s := range m.abortSteps() {
		if err := p.runStep(ctx, s); err != nil {
			return m.result(), err
		}
	}
	p.logger.Info("move aborted", slog.String("tenant", string(r.ID)), slog.String("to", m.record.To))
	return m.result(), nil
}

// abortSteps close the new server before they open the old one, and let the tenant go on before they clear away.
func (m *move) abortSteps() []step {
	return []step{
		{"begin to abort", func(ctx context.Context) error {
			if m.record.Step == registry.MoveAborting {
				return nil
			}
			m.detail.AbortedAt = m.record.Step
			return m.enter(ctx, registry.MoveAborting, nil)
		}},
		{"close the new server", m.closeTarget},
		{"open the old server", m.reopenSource},
		{"unsubscribe", m.unsubscribe},
		{"clear the new server", m.clearTarget},
		{"clear the old server", m.clearSource},
		{"end the abort", func(ctx context.Context) error {
			return m.enter(ctx, registry.MoveAborted, func(ctx context.Context, w *work) error { return m.event(ctx, w, "move_abort") })
		}},
	}
}

// closeTarget locks the tenant out of the new server, if it had been let in already, and marks what is there again. Nobody
// has been routed to it.
func (m *move) closeTarget(ctx context.Context) error {
	m.say("close the new server", 0, 0)
	if m.detail.AbortedAt != registry.MoveOpening {
		return nil // it has been closed all the time
	}
	s, err := m.target.administer(ctx)
	if err != nil {
		return err
	}
	return m.target.wrap(s.transact(ctx, func(w *work) error {
		var exists bool
		if err := w.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, m.target.role).Scan(&exists); err != nil || !exists {
			return err
		}
		if err := w.exec(ctx, "ALTER ROLE "+quote(m.target.role)+" NOLOGIN;\n"+
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = "+quoteLiteral(m.target.role)); err != nil {
			return err
		}
		if m.target.own {
			if err := w.exec(ctx, "COMMENT ON DATABASE "+quote(m.target.database)+" IS "+quoteLiteral(mark(m.request.ID, m.target.registry))); err != nil {
				return err
			}
		}
		return m.markRole(w)(ctx)
	}))
}

// reopenSource lets the tenant go on where it was.
func (m *move) reopenSource(ctx context.Context) error {
	m.say("open the old server", 0, 0)
	if m.tenant.Route.Status != registry.StatusMoving {
		return nil // it has never been closed, or is open again; somebody may have locked the role on purpose
	}
	if err := m.source.execute(ctx, "ALTER ROLE "+quote(m.source.role)+" LOGIN"); err != nil {
		return err
	}
	return m.enter(ctx, registry.MoveAborting, func(ctx context.Context, w *work) error { return m.setStatus(ctx, w, m.detail.Status) })
}

// unsubscribe drops the subscription without asking the old server, which may be gone.
func (m *move) unsubscribe(ctx context.Context) error {
	gone, err := m.target.gone(ctx)
	if err != nil || gone {
		return err
	}
	subscribed, err := m.target.subscribed(ctx)
	if err != nil {
		return err
	}
	name := quote(m.target.mover)
	var statements []string
	if subscribed {
		statements = append(statements, "ALTER SUBSCRIPTION "+name+" DISABLE", "ALTER SUBSCRIPTION "+name+" SET (slot_name = NONE)", "DROP SUBSCRIPTION "+name)
	}
	return m.target.execute(ctx, append(statements, "DROP EVENT TRIGGER IF EXISTS "+name, "DROP FUNCTION IF EXISTS "+extensionSchema+"."+name+"()")...)
}

// gone reports whether the tenant's database is not there.
func (e *end) gone(ctx context.Context) (gone bool, err error) {
	s, err := e.administer(ctx)
	if err != nil {
		return false, err
	}
	err = s.conn.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, e.database).Scan(&gone)
	return gone, e.wrap(err)
}

// clearTarget drops what bears the mark.
func (m *move) clearTarget(ctx context.Context) error {
	m.say("clear the new server", 0, 0)
	s, err := m.target.administer(ctx)
	if err != nil {
		return err
	}
	var known, exists bool // without docex_owner nothing has ever been made there
	err = s.conn.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), EXISTS (SELECT FROM pg_database WHERE datname = $2)`, OwnerRole, m.target.database).Scan(&known, &exists)
	if err != nil || !known {
		return m.target.wrap(err)
	}
	if exists {
		if err := m.target.dropMover(ctx); err != nil {
			return err
		}
		if !m.target.own {
			return m.clearShared(ctx)
		}
	}
	m.target.leave(ctx)
	if err := s.lock(ctx, sideLockClass, string(m.request.ID)); err != nil {
		return m.target.wrap(err)
	}
	if m.target.own && m.detail.AbortedAt != registry.MovePreparing { // the database is this move's: whoever is in it is not the tenant
		if _, err := s.conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, m.target.database); err != nil {
			return m.target.wrap(err)
		}
	}
	return m.target.wrap(s.clearAway(ctx, m.request.ID, leftovers{}))
}

// clearSource takes off the old server what replication needed.
func (m *move) clearSource(ctx context.Context) error {
	if err := m.dropSlot(ctx); err != nil {
		return err
	}
	statements := []string{"DROP PUBLICATION IF EXISTS " + quote(m.source.mover)}
	for _, t := range m.detail.Identities {
		var there bool // the tenant may have dropped it, or said itself what it shall be
		if err := m.source.row(ctx, []any{&there}, `SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND relreplident = 'f')`, t.Table); err != nil {
			return err
		}
		if there {
			statements = append(statements, "ALTER TABLE "+t.Table+" REPLICA IDENTITY "+t.Was)
		}
	}
	if err := m.source.execute(ctx, statements...); err != nil {
		return err
	}
	return m.source.dropMover(ctx)
}

// dropSlot ends the server process that uses the slot, and those by which tables were copied.
func (m *move) dropSlot(ctx context.Context) error {
	for {
		slots, err := m.source.texts(ctx, `
SELECT slot_name::text FROM pg_replication_slots AS s WHERE slot_name = $1 AND (active_pid IS NULL OR NOT pg_terminate_backend(active_pid))
UNION ALL SELECT '' FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL`, m.source.mover)
		if err != nil || len(slots) == 0 {
			return err
		}
		if slots[0] != "" {
			err := m.source.execute(ctx, "SELECT pg_drop_replication_slot("+quoteLiteral(m.source.mover)+")")
			if !hasCode(err, objectInUse) {
				return err
			}
		}
		if err := pause(ctx, copyPause); err != nil {
			return err
		}
	}
}

// objectInUse is the SQLSTATE for a slot that another connection uses.
const objectInUse = "55006"

// tidy drops what the move has needed, after the tenant is served by the new server.
func (m *move) tidy(ctx context.Context) error {
	m.say("tidy up", 0, 0)
	if err := m.unsubscribe(ctx); err != nil {
		return err
	}
	for _, p := range m.pairs {
		p.close(ctx)
	}
	m.pairs = nil
	if err := m.target.dropMover(ctx); err != nil {
		return err
	}
	gone, err := m.source.gone(ctx)
	if err != nil || gone {
		return err
	}
	return m.clearSource(ctx)
}

// FinishMove drops what a move has left on the old server, however long it was to be kept. A run that is ended goes on with
// the same request.
//
// Errors: ErrNotFound, *ConflictError for a tenant of which nothing is kept.
func (p *Provisioner) FinishMove(ctx context.Context, r MoveRequest) (MoveResult, error) {
	m, err := p.beginMove(ctx, r)
	if err != nil {
		return MoveResult{}, err
	}
	defer m.close(ctx)
	if m.record == nil {
		return MoveResult{}, m.conflict("has nothing left on another server")
	}
	if m.record.Step != registry.MoveKept && m.record.Step != registry.MoveFinishing {
		return m.result(), m.conflict("is being moved to server %q: `docexctl tenant move %s --to %[1]s` goes on, --abort takes it back", m.record.To, r.ID)
	}
	return m.result(), m.finish(ctx)
}

func (m *move) finish(ctx context.Context) error {
	for _, s := range []step{
		{"tidy up before the end", m.tidy},
		{"begin to finish", func(ctx context.Context) error {
			if m.tenant.Route.Server != m.record.To {
				return fmt.Errorf("the route of tenant '%s' leads to server %q: what is on %q is not dropped", m.request.ID, m.tenant.Route.Server, m.record.From)
			}
			return m.enter(ctx, registry.MoveFinishing, nil)
		}},
		{"drop the old copy", m.dropSource},
		{"end the move", func(ctx context.Context) error {
			return m.enter(ctx, registry.MoveFinished, func(ctx context.Context, w *work) error { return m.event(ctx, w, "move_finish") })
		}},
	} {
		if err := m.runStep(ctx, s); err != nil {
			return err
		}
	}
	m.logger.Info("move finished", slog.String("tenant", string(m.request.ID)), slog.String("from", m.record.From))
	return nil
}

// dropSource drops the closed copy.
func (m *move) dropSource(ctx context.Context) error {
	m.say("drop the old copy", 0, 0)
	if !m.source.own {
		s, err := m.source.enter(ctx)
		if err != nil {
			return err
		}
		return m.source.wrap(s.transact(ctx, func(w *work) error {
			g := m.source.purge(m, w)
			if err := g.dropSchemaHere(ctx); err != nil {
				return err
			}
			return g.dropRoleHere(ctx, true)
		}))
	}
	m.source.leave(ctx)
	s, err := m.source.administer(ctx)
	if err != nil {
		return err
	}
	if err := m.source.purge(m, &s.work).refuseForeign(ctx, s); err != nil {
		return err
	}
	if err := s.exec(ctx, "DROP DATABASE IF EXISTS "+quote(m.source.database)+" WITH (FORCE)"); err != nil {
		return m.source.wrap(err)
	}
	return m.source.wrap(s.transact(ctx, func(w *work) error { return m.source.purge(m, w).dropRoleHere(ctx, false) }))
}
