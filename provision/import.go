package provision

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// Source is a tenant's file: package sqlite has it. Rows come by their first column, in the order of its bytes, their values
// as text, nil for NULL.
type Source interface {
	Columns(ctx context.Context, table string) ([]string, error)
	Rows(ctx context.Context, table string, columns []string, each func(values []*string) error) error
}

// ImportRequest asks for the rows of a tenant of DocEX on SQLite.
type ImportRequest struct {
	ID    registry.TenantID // must exist here, with DocEX's tables, empty
	From  Source            // only read
	Actor string            // "": "cli_user"
}

// ImportResult says what has been copied and compared.
type ImportResult struct {
	Tables int
	Rows   int64
}

// ImportTenant copies all rows of DocEX's tables from a file, in one transaction as the tenant's role, and compares
// the number and a checksum of each table's rows, value by value, before it commits. Columns that the file lacks get their
// defaults; what the file has beside DocEX's tables is not copied.
//
// Errors: ErrNotFound, *ConflictError for a tenant that has rows already, whatever Postgres says of a value.
func (p *Provisioner) ImportTenant(ctx context.Context, r ImportRequest) (ImportResult, error) {
	if err := checkText("actor", r.Actor); err != nil {
		return ImportResult{}, err
	}
	withDefault(&r.Actor, defaultCreatedBy)
	_, config, err := p.tenantConfig(ctx, r.ID)
	if err != nil {
		return ImportResult{}, err
	}
	conn, err := connectAsTenant(ctx, r.ID, config)
	if err != nil {
		return ImportResult{}, err
	}
	defer closeDetached(ctx, conn)
	i := &importation{request: r, file: r.From}
	if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return i.run(ctx, tx) }); err != nil {
		return ImportResult{}, err
	}
	err = p.transact(ctx, func(w *work) []step {
		return []step{{"write the audit trail", func(ctx context.Context) error {
			return w.as(ctx, OwnerRole, func(ctx context.Context) error {
				return registry.InsertEvent(ctx, w.tx, r.ID, "import", r.Actor, struct {
					Tables int   `json:"tables"`
					Rows   int64 `json:"rows"`
				}{i.result.Tables, i.result.Rows})
			})
		}}}
	})
	p.logger.Info("tenant imported", slog.String("tenant", string(r.ID)), slog.Int64("rows", i.result.Rows))
	return i.result, err
}

// importation is one run of ImportTenant.
type importation struct {
	request ImportRequest
	file    Source
	result  ImportResult
}

// importColumn is a column that both sides have.
type importColumn struct {
	name, kind string // kind is Postgres's type
}

// run copies in the template's order, in which a table comes after those that it refers to.
func (i *importation) run(ctx context.Context, tx pgx.Tx) error {
	for _, table := range businessTableNames() {
		if err := i.table(ctx, tx, table); err != nil {
			return fmt.Errorf("table %q: %w", table, err)
		}
	}
	return nil
}

func (i *importation) table(ctx context.Context, tx pgx.Tx, table string) error {
	var used bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+quote(table)+")").Scan(&used); err != nil {
		return err
	}
	if used {
		return &ConflictError{Object: "tenant", Name: string(i.request.ID), Reason: fmt.Sprintf("has rows in table %q already: an import is for an empty tenant", table)}
	}
	columns, err := i.columns(ctx, tx, table)
	if err != nil || len(columns) == 0 {
		return err
	}
	names := make([]string, len(columns))
	quoted := make([]string, len(columns))
	for n, c := range columns {
		names[n], quoted[n] = c.name, quote(c.name)
	}
	sum, rows := sha256.New(), int64(0)
	reader, writer := io.Pipe()
	go func() { // ends when the copy has: the pipe is closed then
		buffer := bytes.Buffer{}
		writer.CloseWithError(i.file.Rows(ctx, table, names, func(values []*string) error {
			rows++
			buffer.Reset()
			for n, value := range values {
				text, err := canonical(value, columns[n].kind)
				if err != nil {
					return fmt.Errorf("column %q: %w", columns[n].name, err)
				}
				add(sum, text)
				if n > 0 {
					buffer.WriteByte('\t')
				}
				writeCopy(&buffer, text)
			}
			buffer.WriteByte('\n')
			_, err := writer.Write(buffer.Bytes())
			return err
		}))
	}()
	_, err = tx.Conn().PgConn().CopyFrom(ctx, reader, fmt.Sprintf("COPY %s (%s) FROM STDIN", quote(table), strings.Join(quoted, ", ")))
	reader.CloseWithError(errors.New("the copy has ended"))
	if err != nil {
		return err
	}
	there, copied, err := checksum(ctx, tx, table, columns)
	switch {
	case err != nil:
		return err
	case copied != rows || !bytes.Equal(there, sum.Sum(nil)):
		return fmt.Errorf("what has arrived differs: %d rows of %d, or a value", copied, rows)
	}
	i.result.Tables++
	i.result.Rows += rows
	return nil
}

// columns are those that both sides have, the first one first: rows are compared in its order.
func (i *importation) columns(ctx context.Context, tx pgx.Tx, table string) ([]importColumn, error) {
	there, err := i.file.Columns(ctx, table)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
SELECT attname, atttypid::pg_catalog.regtype::pg_catalog.text FROM pg_catalog.pg_attribute
 WHERE attrelid = $1::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, quote(table))
	if err != nil {
		return nil, err
	}
	var all []importColumn
	var c importColumn
	_, err = pgx.ForEachRow(rows, []any{&c.name, &c.kind}, func() error {
		if slices.Contains(there, c.name) {
			all = append(all, c)
		}
		return nil
	})
	return all, err
}

// checksum is of what Postgres holds, in the form that canonical gives.
func checksum(ctx context.Context, tx pgx.Tx, table string, columns []importColumn) (sum []byte, count int64, err error) {
	expressions := make([]string, len(columns))
	for n, c := range columns {
		switch name := quote(c.name); c.kind {
		case "timestamp without time zone":
			expressions[n] = "pg_catalog.to_char(" + name + ", 'YYYY-MM-DD HH24:MI:SS.US')"
		case "boolean":
			expressions[n] = name + "::pg_catalog.int4::pg_catalog.text"
		default:
			expressions[n] = name + "::pg_catalog.text"
		}
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT %s FROM %s ORDER BY %s COLLATE "C"`, strings.Join(expressions, ", "), quote(table), quote(columns[0].name)))
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	h := sha256.New()
	for rows.Next() {
		count++
		for _, raw := range rows.RawValues() {
			if raw == nil {
				add(h, nil)
				continue
			}
			text := string(raw)
			add(h, &text)
		}
	}
	return h.Sum(nil), count, rows.Err()
}

// add makes values and their bounds part of a sum.
func add(h hash.Hash, value *string) {
	if value == nil {
		io.WriteString(h, "-\n") //nolint:errcheck // a hash takes everything
		return
	}
	fmt.Fprintf(h, "%d %s\n", len(*value), *value)
}

// canonical is a value of SQLite as Postgres shows it when it is asked as checksum asks.
func canonical(value *string, kind string) (*string, error) {
	if value == nil {
		return nil, nil
	}
	text := *value
	switch kind {
	case "timestamp without time zone":
		moment, err := sqliteTime(text)
		if err != nil {
			return nil, err
		}
		text = moment.Format("2006-01-02 15:04:05.000000")
	case "boolean":
		switch text {
		case "0", "1":
		default:
			return nil, fmt.Errorf("%q is no boolean", text)
		}
	case "uuid":
		bare := strings.ToLower(strings.ReplaceAll(text, "-", ""))
		if len(bare) != 32 {
			return nil, fmt.Errorf("%q is no UUID", text)
		}
		text = strings.Join([]string{bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]}, "-")
	}
	return &text, nil
}

// sqliteTime reads a time as SQLAlchemy stores it, or as SQLite's own functions do.
func sqliteTime(text string) (time.Time, error) {
	var first error
	for _, layout := range []string{"2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.RFC3339Nano, "2006-01-02"} {
		moment, err := time.Parse(layout, text)
		if err == nil {
			return moment.UTC().Truncate(time.Microsecond), nil
		}
		first = cmp.Or(first, err)
	}
	return time.Time{}, fmt.Errorf("%q is no time: %w", text, first)
}

var copyEscapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// writeCopy writes a value in COPY's text format (Postgres documentation, COPY, section File Formats).
func writeCopy(buffer *bytes.Buffer, value *string) {
	if value == nil {
		buffer.WriteString(`\N`)
		return
	}
	copyEscapes.WriteString(buffer, *value) //nolint:errcheck // a buffer takes everything
}
