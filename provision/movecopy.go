package provision

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	copyPause = 100 * time.Millisecond
	holdPause = 5 * time.Millisecond
	// caughtUp is how many bytes of the old server's log may be left when the tenant is held.
	caughtUp = 1 << 20
	// mostCopyErrors is after how many failures of the subscription it is given up: each is tried again every five seconds.
	mostCopyErrors = 3
)

// identity is the REPLICA IDENTITY of a table, which replication needs for UPDATE and DELETE.
type identity struct {
	Table string `json:"table"` // quoted
	Was   string `json:"was"`   // as ALTER TABLE spells it
}

// withoutIdentity finds the tables of schema $1 whose rows replication could not tell apart.
const withoutIdentity = `
SELECT c.oid, CASE relreplident WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'r' AND relpersistence = 'p'
   AND (relreplident = 'n' OR relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary))`

// publish makes the publication of the tenant's tables. Those without a primary key write whole rows to the log from here on;
// the registry knows of it before.
func (m *move) publish(ctx context.Context) error {
	m.say("publish the tables", 0, 0)
	if len(m.detail.Identities) == 0 {
		s, err := m.source.enter(ctx)
		if err != nil {
			return err
		}
		rows, err := s.conn.Query(ctx, `SELECT oid::regclass::text, was FROM (`+withoutIdentity+`) AS t (oid, was) ORDER BY 1`, m.source.schema)
		if err != nil {
			return m.source.wrap(err)
		}
		if m.detail.Identities, err = pgx.CollectRows(rows, pgx.RowToStructByPos[identity]); err != nil {
			return m.source.wrap(err)
		}
	}
	err := m.source.row(ctx, []any{&m.detail.Bytes}, `
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1 AND relkind = 'r'`, m.source.schema)
	if err != nil {
		return err
	}
	if err := m.enter(ctx, registry.MoveCopying, nil); err != nil {
		return err
	}
	var statements []string
	for _, t := range m.detail.Identities {
		statements = append(statements, "ALTER TABLE "+t.Table+" REPLICA IDENTITY FULL")
	}
	published, err := m.source.texts(ctx, `SELECT pubname::text FROM pg_publication WHERE pubname = $1`, m.source.mover)
	if err != nil {
		return err
	}
	if len(published) > 0 {
		return nil
	}
	tables, err := m.source.tables(ctx)
	if err != nil {
		return err
	}
	create := "CREATE PUBLICATION " + quote(m.source.mover)
	for i, table := range tables {
		if i == 0 {
			create += " FOR TABLE ONLY " + table
		} else {
			create += ", ONLY " + table
		}
	}
	return m.source.execute(ctx, append(statements, create)...)
}

// tables are those with rows, quoted.
func (e *end) tables(ctx context.Context) ([]string, error) {
	return e.texts(ctx, `
SELECT format('%I.%I', nspname, relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'r' AND relpersistence = 'p' ORDER BY pg_relation_size(c.oid) DESC, relname`, e.schema)
}

// createSlot waits for all transactions of the old server that write at the moment, however long. Nobody waits behind it.
func (m *move) createSlot(ctx context.Context) error {
	m.say("wait for the server's running transactions", 0, 0)
	var exists bool
	if err := m.source.row(ctx, []any{&exists}, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, m.source.mover); err != nil || exists {
		return err
	}
	return m.source.execute(ctx, "SET LOCAL lock_timeout = 0", "SELECT pg_create_logical_replication_slot("+quoteLiteral(m.source.mover)+", 'pgoutput')")
}

// subscribe makes the subscription, for the role that copies: Postgres wants a superuser to own one when it is made, and
// runs it with the rights that the role has afterwards.
func (m *move) subscribe(ctx context.Context) error {
	m.say("subscribe", 0, 0)
	subscribed, err := m.target.subscribed(ctx)
	if err != nil || subscribed {
		return err
	}
	info, err := m.source.connectionString()
	if err != nil {
		return err
	}
	name := quote(m.target.mover)
	options := "create_slot = false, slot_name = " + quoteLiteral(m.target.mover) + ", enabled = false, copy_data = true"
	statements := []string{
		"SET LOCAL log_statement = 'none'", "SET LOCAL log_min_duration_statement = -1", "SET LOCAL log_min_error_statement = 'panic'", // of a password
		"CREATE SUBSCRIPTION " + name + " CONNECTION " + quoteLiteral(info) + " PUBLICATION " + name + " WITH (" + options + ")",
		"ALTER ROLE " + name + " SUPERUSER", "ALTER SUBSCRIPTION " + name + " OWNER TO " + name, "ALTER ROLE " + name + " NOSUPERUSER",
	}
	if m.target.inside.work.version >= membershipOptions { // who is no superuser could not do without a password
		statements = append(statements, "ALTER SUBSCRIPTION "+name+" SET (password_required = false)")
	}
	return m.target.execute(ctx, append(statements, "ALTER SUBSCRIPTION "+name+" ENABLE")...)
}

func (e *end) subscribed(ctx context.Context) (subscribed bool, err error) {
	err = e.row(ctx, []any{&subscribed}, `
SELECT EXISTS (SELECT FROM pg_subscription WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))`, e.mover)
	return subscribed, err
}

// connectionString is how the new server reaches this one.
func (e *end) connectionString() (string, error) {
	config, err := e.moverConfig()
	if err != nil {
		return "", err
	}
	words := []string{
		"host", config.Host, "port", strconv.Itoa(int(config.Port)), "dbname", config.Database, "user", config.User, "password", config.Password,
		"sslmode", sslMode(&config.Config),
	}
	if certificate := parameter(e.dsn, "sslrootcert"); certificate != "" {
		words = append(words, "sslrootcert", certificate)
	}
	var text strings.Builder
	for i := 0; i < len(words); i += 2 {
		fmt.Fprintf(&text, "%s='%s' ", words[i], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(words[i+1]))
	}
	return strings.TrimSpace(text.String()), nil
}

// awaitCopy waits until all tables are copied and little of the log is left.
func (m *move) awaitCopy(ctx context.Context) error {
	for {
		var failures, left, written, copied int64
		var lost bool
		err := m.target.row(ctx, []any{&left, &failures, &copied}, `
SELECT (SELECT count(*) FROM pg_subscription_rel WHERE srsubid = s.oid AND srsubstate <> 'r'),
       coalesce((SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats AS e WHERE e.subid = s.oid), 0),
       (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $2 AND relkind = 'r')
  FROM pg_subscription AS s WHERE subname = $1`, m.target.mover, m.target.schema)
		if errors.Is(err, pgx.ErrNoRows) {
			return m.conflict("has lost its subscription on server %q: --abort takes the move back", m.target.server)
		}
		if err != nil {
			return err
		}
		if failures >= mostCopyErrors {
			return m.conflict("cannot be copied: server %q says in its log what is wrong with subscription %s; --abort takes the move back", m.target.server, m.target.mover)
		}
		received, err := m.target.received(ctx)
		if err != nil {
			return err
		}
		err = m.source.row(ctx, []any{&written, &lost}, `
SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), nullif($2, '')::pg_lsn), -1)::bigint, coalesce(bool_or(wal_status = 'lost'), true)
  FROM pg_replication_slots WHERE slot_name = $1`, m.source.mover, received)
		if err != nil {
			return err
		}
		if lost {
			return m.conflict("has lost its replication slot on server %q: --abort takes the move back", m.source.server)
		}
		m.say("copy the rows", min(copied, m.detail.Bytes), m.detail.Bytes)
		if left == 0 && written >= 0 && written < caughtUp {
			return nil
		}
		if err := pause(ctx, copyPause); err != nil {
			return err
		}
	}
}

// received is how far the subscription has come in the old server's log: what is before has been applied. "": it does not
// run at the moment.
func (e *end) received(ctx context.Context) (lsn string, err error) {
	err = e.row(ctx, []any{&lsn}, `SELECT coalesce((SELECT received_lsn::text FROM pg_stat_subscription WHERE subname = $1 AND relid IS NULL AND pid IS NOT NULL), '')`, e.mover)
	return lsn, err
}

// arrive waits until the new server has what the old one has written up to now, and reports whether it has.
func (m *move) arrive(ctx context.Context, patience time.Duration) (bool, error) {
	// Only what has been flushed is sent, and a tenant may commit without: this commit flushes it.
	if err := m.source.execute(ctx, "SELECT pg_current_xact_id()"); err != nil {
		return false, err
	}
	var last string
	if err := m.source.row(ctx, []any{&last}, `SELECT pg_current_wal_insert_lsn()::text`); err != nil {
		return false, err
	}
	for began := time.Now(); time.Since(began) < patience; {
		received, err := m.target.received(ctx)
		if err != nil {
			return false, err
		}
		var arrived bool
		if err := m.target.row(ctx, []any{&arrived}, `SELECT coalesce(nullif($1, '')::pg_lsn >= $2::pg_lsn, false)`, received, last); err != nil || arrived {
			return arrived, err
		}
		if err := pause(ctx, holdPause); err != nil {
			return false, err
		}
	}
	return false, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
