package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Comparison is how the rows on both servers are compared.
type Comparison string

// The comparisons.
const (
	// CompareSnapshot compares all rows by number and checksum as they were at one moment shortly before the tenant is held,
	// and those of small tables once more while it is.
	CompareSnapshot Comparison = "snapshot"
	CompareFull     Comparison = "full"   // all rows by number and checksum while the tenant is held, however long that takes
	CompareCounts   Comparison = "counts" // their number alone, while the tenant is held
	CompareNone     Comparison = "none"
)

func (c Comparison) valid() bool {
	return c == CompareSnapshot || c == CompareFull || c == CompareCounts || c == CompareNone
}

const (
	// smallTable is how many bytes a table may have to be read whole while the tenant is held: some 10 ms.
	smallTable = 1 << 20
	// smallTenant bounds what is read so of all tables; the largest come last.
	smallTenant = 8 << 20
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

// compare demands, while the tenant is held, that both servers have the same rows.
func (m *move) compare(ctx context.Context) error {
	m.say("compare", 0, 0)
	tables, err := m.comparedTables(ctx)
	if err != nil {
		return err
	}
	var total int64
	last := len(tables)
	switch m.request.Verify {
	case CompareNone:
		return nil
	case CompareSnapshot:
		last = slices.IndexFunc(tables, func(t comparedTable) bool {
			total += t.size
			return t.size > smallTable || total > smallTenant
		})
		if last < 0 {
			last = len(tables)
		}
	}
	for i := range tables {
		tables[i].sum = m.request.Verify != CompareCounts
	}
	figures, err := m.compareTables(ctx, tables[:last])
	if m.request.Verify != CompareSnapshot {
		m.detail.Tables, m.detail.Rows, m.detail.Summed = figures.tables, figures.rows, figures.summed
	}
	return err
}

// compared is how much has been compared.
type compared struct {
	tables, summed int
	rows           int64
}

// compareTables compares a few at a time, each on both servers at once.
func (m *move) compareTables(ctx context.Context, tables []comparedTable) (compared, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan comparedTable, len(tables))
	for _, t := range tables {
		work <- t
	}
	close(work)
	var mu sync.Mutex
	var group sync.WaitGroup
	var done compared
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
				done.tables++
				done.rows += rows
				if t.sum {
					done.summed++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if failed != nil {
		return done, m.conflict("is not the same on both servers, or cannot be compared: %v", failed)
	}
	return done, nil
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
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (t comparedTable, err error) {
		err = row.Scan(&t.name, &t.size)
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
