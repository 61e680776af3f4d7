package provision

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

// releasePatience bounds what is done to let a tenant go on after a failure.
const releasePatience = 30 * time.Second

// getReady does what takes time and can be done before the tenant is held.
func (m *move) getReady(ctx context.Context) error {
	m.say("get ready", 0, 0)
	if err := m.analyze(ctx); err != nil {
		return err
	}
	return m.openPairs(ctx)
}

// analyze gives the planner of the new server what it knows on the old one, marks pages whose rows everybody sees, so that they
// are counted by index, and gives materialized views their rows.
func (m *move) analyze(ctx context.Context) error {
	conn, err := m.target.asMover(ctx)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	views, err := m.target.texts(ctx, `
SELECT format('REFRESH MATERIALIZED VIEW %I.%I', nspname, relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'm' ORDER BY c.oid`, m.target.schema) // made in the order in which they need each other
	if err != nil {
		return err
	}
	tables, err := m.target.tables(ctx)
	if err != nil {
		return err
	}
	for _, table := range tables {
		views = append(views, "VACUUM (ANALYZE) "+table)
	}
	for _, sql := range views {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return m.target.wrap(fmt.Errorf("%s: %w", sql, err))
		}
	}
	return nil
}

// hold has proxies keep new transactions back.
func (m *move) hold(ctx context.Context) error {
	m.say("hold the tenant", 0, 0)
	m.heldSince = m.now()
	return m.enter(ctx, registry.MoveHolding, func(ctx context.Context, w *work) error {
		if err := m.setStatus(ctx, w, registry.StatusMoving); err != nil {
			return err
		}
		return m.event(ctx, w, "move_hold")
	})
}

// awaitLastChange waits until the new server has all that the old one has written. Nothing can come after it.
func (m *move) awaitLastChange(ctx context.Context) error {
	m.say("wait for the last change", 0, 0)
	structure, err := m.structure(ctx)
	if err != nil {
		return err
	}
	if structure != m.detail.Structure {
		return m.conflict("has changed its tables while they were copied: `docexctl tenant move %s --abort`, and move it again", m.request.ID)
	}
	if err := m.target.execute(ctx, "ALTER SUBSCRIPTION "+quote(m.target.mover)+" ENABLE"); err != nil { // a run that was ended may have ended it
		return err
	}
	arrived, err := m.arrive(ctx, m.request.Hold)
	if err == nil && !arrived {
		err = m.conflict("has changes that server %q has not got within %v: try again when it has less to do", m.target.server, m.request.Hold)
	}
	return err
}

// copySequences sets them on the new server as they are on the old one.
func (m *move) copySequences(ctx context.Context) error {
	sequences, err := m.source.texts(ctx, `
SELECT format('SELECT %L, last_value, is_called FROM %1$s', format('%I.%I', nspname, relname)) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'S'`, m.source.schema)
	if err != nil {
		return err
	}
	// At the least this commit makes the new server write what it has applied to its disk.
	statements := []string{"SELECT pg_current_xact_id()"}
	if len(sequences) > 0 {
		if err := m.openPairs(ctx); err != nil { // they are open but in a run after one that was ended
			return err
		}
		values, err := m.pairs[0].source.Query(ctx, strings.Join(sequences, " UNION ALL "))
		if err != nil {
			return m.source.wrap(err)
		}
		for values.Next() {
			var name string
			var last int64
			var called bool
			if err := values.Scan(&name, &last, &called); err != nil {
				return err
			}
			statements = append(statements, fmt.Sprintf("SELECT setval(%s, %d, %t)", quoteLiteral(name), last, called))
		}
		if err := values.Err(); err != nil {
			return m.source.wrap(err)
		}
	}
	return m.target.execute(ctx, statements...)
}

// endSubscription is the last that happens before there is no way back but by closing the new server again.
func (m *move) endSubscription(ctx context.Context) error {
	if all, _, err := m.source.sessions(ctx); err != nil || all > 0 {
		if err == nil {
			err = m.conflict("has got a session on server %q although that is closed: try again", m.source.server)
		}
		return err
	}
	return m.target.execute(ctx, "ALTER SUBSCRIPTION "+quote(m.target.mover)+" DISABLE")
}

// openTarget lets the tenant in on the new server, and takes the marks off.
func (m *move) openTarget(ctx context.Context) error {
	m.say("open the new server", 0, 0)
	enable, err := m.source.texts(ctx, alwaysTriggers("'ALTER TABLE %s ENABLE %3$s TRIGGER %2$I'"), m.source.schema)
	if err != nil {
		return err
	}
	route := m.tenant.Route
	role := quote(m.target.role)
	statements := append(enable, "ALTER ROLE "+role+" LOGIN PASSWORD "+quoteLiteral(derivedVerifier(m.key, route.Role, route.SecretGeneration)),
		"COMMENT ON ROLE "+role+" IS NULL")
	if m.target.own {
		statements = append(statements, "COMMENT ON DATABASE "+quote(m.target.database)+" IS NULL")
	}
	return m.target.execute(ctx, statements...)
}

// flip changes the route, in one transaction.
func (m *move) flip(ctx context.Context) error {
	until := m.timestamp().Add(m.request.Keep)
	m.detail.KeptUntil = &until
	if m.heldSince.IsZero() { // by a run that was ended
		m.heldSince = m.record.HeldAt
	}
	m.detail.HeldFor = m.now().Sub(m.heldSince).Seconds()
	return m.enter(ctx, registry.MoveKept, func(ctx context.Context, w *work) error {
		_, err := w.tx.Exec(ctx, `UPDATE docex_system.tenant_route SET server = $2, status = $3 WHERE tenant_id = $1`,
			string(m.request.ID), m.record.To, string(m.detail.Status))
		if err != nil {
			return err
		}
		if _, err := w.tx.Exec(ctx, `UPDATE docex_system.tenant_registry SET last_updated_at = $2, last_updated_by = $3 WHERE tenant_id = $1`,
			string(m.request.ID), m.timestamp(), m.request.Actor); err != nil {
			return err
		}
		return m.event(ctx, w, "move_flip")
	})
}

// release lets a tenant that is held go on where it was. The old server is opened within the transaction in which this run
// knows that the new one has not been.
func (m *move) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
	defer cancel()
	return m.enter(ctx, registry.MoveCopying, func(ctx context.Context, w *work) error {
		// The subscription may have been ended already.
		if err := m.target.execute(ctx, "ALTER SUBSCRIPTION "+quote(m.target.mover)+" ENABLE"); err != nil {
			return err
		}
		if err := m.source.execute(ctx, "ALTER ROLE "+quote(m.source.role)+" LOGIN"); err != nil {
			return err
		}
		if err := m.setStatus(ctx, w, m.detail.Status); err != nil {
			return err
		}
		return m.event(ctx, w, "move_release")
	})
}
