package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// File is a tenant's file, open to be read.
type File struct{ db *sql.DB }

// OpenFile opens a file that is there. Whoever opens it closes it.
func OpenFile(path string) (*File, error) {
	db, err := open(path)
	if err != nil {
		return nil, err
	}
	return &File{db}, nil
}

// Close closes it.
func (f *File) Close() error { return f.db.Close() }

// Columns lists a table's columns in order; none where there is no such table.
func (f *File) Columns(ctx context.Context, table string) ([]string, error) {
	rows, err := f.db.QueryContext(ctx, `SELECT name FROM pragma_table_info(?) ORDER BY cid`, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// Rows calls a function with each row of a table, by its first column: the values as text, nil for NULL. What it is given is
// valid until it returns.
func (f *File) Rows(ctx context.Context, table string, columns []string, each func(values []*string) error) error {
	expressions := make([]string, len(columns))
	for i, column := range columns {
		expressions[i] = `CAST("` + strings.ReplaceAll(column, `"`, `""`) + `" AS TEXT)`
	}
	rows, err := f.db.QueryContext(ctx, fmt.Sprintf(`SELECT %s FROM "%s" ORDER BY 1`, strings.Join(expressions, ", "), table))
	if err != nil {
		return err
	}
	defer rows.Close()
	texts, values, targets := make([]sql.NullString, len(columns)), make([]*string, len(columns)), make([]any, len(columns))
	for i := range texts {
		targets[i] = &texts[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		for i := range texts {
			if values[i] = nil; texts[i].Valid {
				values[i] = &texts[i].String
			}
		}
		if err := each(values); err != nil {
			return err
		}
	}
	return rows.Err()
}
