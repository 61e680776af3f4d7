package provision

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// momentLock is for how long the lock is waited for that stops writers for the moment: others wait behind it.
	momentLock = "200ms"
	// momentPatience is for how long the new server may take to catch up while writers wait.
	momentPatience = time.Second
	momentPause    = time.Second
	momentTries    = 30
)

// errNoMoment is that both servers were not alike soon enough.
var errNoMoment = errors.New("the new server did not catch up")

// compareAtOnce compares all rows as they were at one moment, while the tenant goes on. For that moment its tables are locked
// against writers: until the new server has what the old one has, and both have been asked for a snapshot. What comes after
// it comes by the same log, and small tables are compared again when the tenant is held.
func (m *move) compareAtOnce(ctx context.Context) error {
	if m.request.Verify != CompareSnapshot {
		return nil
	}
	m.say("compare at one moment", 0, 0)
	tables, err := m.comparedTables(ctx)
	if err != nil || len(tables) == 0 {
		return err
	}
	for try := 1; ; try++ {
		err := m.takeSnapshots(ctx, tables)
		if err == nil {
			break
		}
		if endErr := m.endSnapshots(ctx); endErr != nil {
			return errors.Join(err, endErr)
		}
		switch {
		case !errors.Is(err, errNoMoment) && !hasCode(err, lockNotAvailable, deadlockDetected):
			return err
		case try == momentTries:
			return m.conflict("has written without a pause that would do to compare it: try again, or with --verify counts: %v", err)
		}
		if err := pause(ctx, momentPause); err != nil {
			return err
		}
	}
	for i := range tables {
		tables[i].sum = true
	}
	done, err := m.compareTables(ctx, tables)
	if err != nil {
		return err
	}
	m.detail.Tables, m.detail.Rows, m.detail.Summed = done.tables, done.rows, done.summed
	return m.endSnapshots(ctx)
}

// takeSnapshots begins a transaction on each connection that compares, all of which see the same rows.
func (m *move) takeSnapshots(ctx context.Context, tables []comparedTable) error {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "ONLY " + t.name
	}
	locker, err := m.source.openStarted(ctx, m.source.database, m.source.registry)
	if err != nil {
		return m.source.wrap(err)
	}
	defer locker.close(ctx)
	return locker.transact(ctx, func(w *work) error {
		if err := w.exec(ctx, "SET LOCAL lock_timeout = '"+momentLock+"';\nLOCK TABLE "+strings.Join(names, ", ")+" IN SHARE MODE"); err != nil {
			return err
		}
		arrived, err := m.arrive(ctx, momentPatience)
		if err == nil && !arrived {
			err = errNoMoment
		}
		if err != nil {
			return err
		}
		return m.eachConnection(func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT")
			return err
		})
	})
}

func (m *move) endSnapshots(ctx context.Context) error {
	return m.eachConnection(func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "ROLLBACK") // a warning where none has begun
		return err
	})
}

func (m *move) eachConnection(run func(*pgx.Conn) error) error {
	for _, p := range m.pairs {
		if err := errors.Join(run(p.source), run(p.target)); err != nil {
			return err
		}
	}
	return nil
}
