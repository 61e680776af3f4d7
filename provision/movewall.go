package provision

import (
	"context"
	"time"
)

// The wall around the old server: from the moment in which it is closed nobody is let in as the tenant there, and when the
// last session of its has ended nothing that it writes can be missed. It is Postgres that keeps it, whatever proxies know.

// settle is for how long sessions of the tenant may go on after proxies have been told, before those that wait for a query
// are ended: a proxy that has not heard of it yet may be about to send one.
const settle = 50 * time.Millisecond

// closeSource lets nobody in as the tenant any more, and no slot become it.
func (m *move) closeSource(ctx context.Context) error {
	return m.source.behindBarrier(ctx, "ALTER ROLE "+quote(m.source.role)+" NOLOGIN")
}

// drain waits for the tenant's transactions, and ends its sessions between two of them.
func (m *move) drain(ctx context.Context) error {
	m.say("wait for running transactions", 0, 0)
	began := time.Now()
	for empty := 0; empty < 2; { // twice: a session may have been let in just before the role was closed
		sessions, busy, err := m.source.sessions(ctx)
		if err != nil {
			return err
		}
		waited := time.Since(began)
		switch {
		case sessions == 0:
			empty++
		case waited > m.request.Hold:
			return m.conflict("has had %d transactions running on server %q for %v: try again, with a longer --hold, or end them", busy, m.source.server, m.request.Hold)
		default:
			empty = 0
			if waited <= settle {
				break
			}
			err := m.source.endIdle(ctx)
			if err != nil && !hasCode(err, lockNotAvailable) { // which is tried again for as long as the hold may last
				return err
			}
		}
		if err := pause(ctx, holdPause); err != nil {
			return err
		}
	}
	return nil
}

// endIdle ends the tenant's sessions that wait for a query. The slots among them become nobody else's meanwhile.
func (e *end) endIdle(ctx context.Context) error {
	return e.behindBarrier(ctx, "SELECT pg_terminate_backend(pid) FROM ("+e.sessionsQuery()+") AS of_tenant WHERE state = 'idle'")
}

// behindBarrier runs a statement in the tenant's database, at level slot while no slot is being lent.
func (e *end) behindBarrier(ctx context.Context, sql string) error {
	s, err := e.enter(ctx)
	if err != nil {
		return err
	}
	if e.seated {
		sql = seatBarrier + "; " + sql // one message is one transaction (section 55.2.2.1)
	}
	_, err = s.conn.Exec(ctx, sql)
	return e.wrap(err)
}

// sessionsQuery finds the tenant's sessions: pid, state. At level slot they are those of the slots that were lent to it last,
// and of those of which nobody has said anything yet: a slot that was lent before docexctl init made its record.
func (e *end) sessionsQuery() string {
	role := quoteLiteral(e.role)
	query := "SELECT pid, state FROM pg_stat_activity WHERE usename = " + role
	if e.seated {
		query += `
UNION ALL SELECT pid, state FROM pg_roles AS r, pg_stat_activity AS a JOIN pg_sequences AS s ON sequencename = usename
 WHERE rolname = ` + role + ` AND schemaname = 'docex_system' AND datname = current_database() AND coalesce(last_value, r.oid::bigint) = r.oid::bigint`
	}
	return query
}

// sessions counts those of the tenant, and of them those in a transaction; one that is prepared is a transaction too. Whoever
// leaves its role first prepares it as the slot: of such a one nobody knows whose it is.
func (e *end) sessions(ctx context.Context) (all, busy int, err error) {
	prepared := "owner = " + quoteLiteral(e.role)
	if e.seated {
		prepared += " OR owner ~ " + quoteLiteral(slotPattern) + " AND database = current_database()"
	}
	err = e.row(ctx, []any{&all, &busy}, `
SELECT count(*), count(*) FILTER (WHERE state IS DISTINCT FROM 'idle') FROM (`+e.sessionsQuery()+`
UNION ALL SELECT 0, 'prepared' FROM pg_prepared_xacts WHERE `+prepared+`) AS of_tenant`)
	return all, busy, err
}
