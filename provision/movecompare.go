package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Comparison is how the rows on both servers are compared while the tenant is held.
type Comparison string

// The comparisons.
const (
	CompareSmall  Comparison = "small"  // by number and checksum where a table is small, else by number
	CompareFull   Comparison = "full"   // by number and checksum, however long that takes
	CompareCounts Comparison = "counts" // by number
	CompareNone   Comparison = "none"   // not at all
)

func (c Comparison) valid() bool {
	return c == CompareSmall || c == CompareFull || c == CompareCounts || c == CompareNone
}

const (
	// smallTable is how many bytes a table may have to be read whole while the tenant is held: about 0.1 s.
	smallTable = 16 << 20
	// smallTenant bounds what is read so of all tables; the largest come last.
	smallTenant = 64 << 20
	// comparers is how many tables are compared at a time.
	comparers = 2
)

// pair is a connection to each server, as the role that copies.
type pair struct{ source, target *pgx.Conn }

func (p pair) close(ctx context.Context) {
	for _, conn := range []*pgx.Conn{p.source, p.target} {
		if conn != nil {
			closeDetached(ctx, conn)
		}
	}
}

func (m *move) openPairs(ctx context.Context) error {
	for len(m.pairs) < comparers {
		var p pair
		var err error
		if p.source, err = m.source.asMover(ctx); err != nil {
			return err
		}
		if p.target, err = m.target.asMover(ctx); err != nil {
			p.close(ctx)
			return err
		}
		m.pairs = append(m.pairs, p)
	}
	return nil
}

// comparedTable is a table that is compared.
type comparedTable struct {
	name string // quoted
	size int64
	sum  bool
}

// compare demands that both servers have the same rows.
func (m *move) compare(ctx context.Context) error {
	m.say("compare", 0, 0)
	m.detail.Tables, m.detail.Rows, m.detail.Summed = 0, 0, 0
	if m.request.Verify == CompareNone {
		return nil
	}
	tables, err := m.comparedTables(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan comparedTable, len(tables))
	for _, t := range tables {
		work <- t
	}
	close(work)
	var mu sync.Mutex
	var group sync.WaitGroup
	var failed error
	for _, p := range m.pairs {
		group.Go(func() {
			for t := range work {
				rows, err := p.compare(ctx, t)
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, err)
					cancel(err)
				}
				m.detail.Tables++
				m.detail.Rows += rows
				if t.sum {
					m.detail.Summed++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if failed != nil {
		return m.conflict("is not the same on both servers, or cannot be compared: %v", failed)
	}
	return nil
}

// comparedTables are the tenant's tables, the smallest first.
func (m *move) comparedTables(ctx context.Context) ([]comparedTable, error) {
	if err := m.openPairs(ctx); err != nil {
		return nil, err
	}
	s, err := m.source.enter(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := s.conn.Query(ctx, `
SELECT format('%I.%I', nspname, relname), pg_table_size(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'r' AND relpersistence = 'p' ORDER BY 2, 1`, m.source.schema)
	if err != nil {
		return nil, m.source.wrap(err)
	}
	var total int64
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (t comparedTable, err error) {
		err = row.Scan(&t.name, &t.size)
		total += t.size
		switch m.request.Verify {
		case CompareFull:
			t.sum = true
		case CompareSmall:
			t.sum = t.size <= smallTable && total <= smallTenant
		}
		return t, err
	})
}

// compare reads a table on both servers at once. A row's text is the same on both: the connections have the same settings, and
// format() knows of no cast that a tenant may have made.
func (p pair) compare(ctx context.Context, t comparedTable) (rows int64, err error) {
	query := "SELECT count(*), '' FROM ONLY " + t.name
	if t.sum {
		query = "SELECT count(*), coalesce(sum(hashtextextended(format('%s', ROW(docex_row.*)), 0)::numeric), 0)::text FROM ONLY " + t.name + " AS docex_row"
	}
	type figures struct {
		rows int64
		sum  string
	}
	var there figures
	answered := make(chan error, 1)
	go func() { answered <- p.target.QueryRow(ctx, query).Scan(&there.rows, &there.sum) }()
	var here figures
	err = errors.Join(p.source.QueryRow(ctx, query).Scan(&here.rows, &here.sum), <-answered)
	switch {
	case err != nil:
		return 0, fmt.Errorf("table %s: %w", t.name, err)
	case here.rows != there.rows:
		return 0, fmt.Errorf("table %s has %d rows, and %d on the new server", t.name, here.rows, there.rows)
	case here.sum != there.sum:
		return 0, fmt.Errorf("table %s has other rows on the new server", t.name)
	}
	return here.rows, nil
}
