package provision_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// The catalog of a schema in the form of testdata, which lists one that DocEX itself created.
const (
	columnsQuery = `
SELECT concat_ws(E'\t', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attnotnull THEN 'NO' ELSE 'YES' END, coalesce(pg_get_expr(d.adbin, d.adrelid), ''))
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'`
	constraintsQuery = `
SELECT concat_ws(E'\t', conrelid::regclass, conname, contype, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE connamespace = $1::regnamespace AND contype <> 'n'`
	indexesQuery = `
SELECT concat_ws(E'\t', tablename, indexname, replace(indexdef, ' ON ' || schemaname || '.', ' ON '))
  FROM pg_indexes WHERE schemaname = $1`
	relationsQuery = `SELECT relkind::text || ' ' || relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind NOT IN ('r', 'i')`
)

// compareCatalog demands that the schema's tables are the golden ones: nothing more, nothing less. Of a schema that
// holds other tables too, keep says which ones count.
func compareCatalog(t *testing.T, conn *pgx.Conn, schema string, keep func(table string) bool) {
	t.Helper()
	execute(t, conn, "SET search_path = "+pgx.Identifier{schema}.Sanitize())
	for file, query := range map[string]string{"columns.tsv": columnsQuery, "constraints.tsv": constraintsQuery, "indexes.tsv": indexesQuery} {
		golden, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.TrimRight(string(golden), "\n"), "\n")
		got := lines(t, conn, query, schema)
		got = slices.DeleteFunc(got, func(line string) bool { table, _, _ := strings.Cut(line, "\t"); return !keep(table) })
		slices.Sort(want)
		slices.Sort(got)
		if len(got) != len(want) {
			t.Errorf("%s: %d lines, want %d", file, len(got), len(want))
		}
		t.Run(file, func(t *testing.T) { equal(t, strings.Join(want, "\n"), strings.Join(got, "\n")) })
	}
}

func all(string) bool { return true }

func TestATenantsCatalogIsTheOneThatDocEXCreates(t *testing.T) {
	s := newInitialisedSite(t)
	s.create(t, "acme")
	compareCatalog(t, s.conn, "tenant_acme", all)
	if others := lines(t, s.conn, relationsQuery, "tenant_acme"); len(others) > 0 {
		t.Errorf("besides tables and indexes: %q", others)
	}
	foreign := lines(t, s.conn, `SELECT relname::text FROM pg_class WHERE relnamespace = 'tenant_acme'::regnamespace AND relowner <> 'tenant_acme'::regrole`)
	if len(foreign) > 0 {
		t.Errorf("not owned by the tenant: %q", foreign)
	}
}
