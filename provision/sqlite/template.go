package sqlite

import (
	"regexp"
	"strings"
)

// words are the types of Postgres that DocEX's tables have, and what it calls them in SQLite.
var words = strings.NewReplacer("varchar(", "VARCHAR(", "timestamp without time zone", "DATETIME", "timestamp", "DATETIME", " json", " JSON", " text", " TEXT",
	" integer", " INTEGER", " boolean", " BOOLEAN", " uuid", " CHAR(32)")

var (
	comment  = regexp.MustCompile(`(?m)--.*$`)
	tables   = regexp.MustCompile(`(?s)CREATE TABLE.*?\n\);`)
	noIndent = regexp.MustCompile(`  +`)
)

// Dialect makes statements for SQLite of those for Postgres that create a tenant's tables.
func Dialect(sql string) string {
	sql = comment.ReplaceAllString(sql, "")
	return tables.ReplaceAllStringFunc(sql, func(table string) string {
		lines := strings.Split(table, "\n")
		for i := 1; i < len(lines); i++ { // the first has the table's name
			name, rest, _ := strings.Cut(strings.TrimLeft(lines[i], " "), " ")
			lines[i] = "    " + name + " " + words.Replace(noIndent.ReplaceAllString(" "+rest, " "))
		}
		return strings.Join(lines, "\n")
	})
}

// registryTable is DocEX's own.
const registryTable = `
CREATE TABLE IF NOT EXISTS tenant_registry (
    tenant_id VARCHAR(255) NOT NULL PRIMARY KEY,
    display_name VARCHAR(255) NOT NULL,
    is_system BOOLEAN NOT NULL,
    isolation_strategy VARCHAR(50) NOT NULL,
    schema_name VARCHAR(255),
    database_path VARCHAR(500),
    created_at DATETIME NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    last_updated_at DATETIME NOT NULL,
    last_updated_by VARCHAR(255)
);`

// ownTables are what DocEX does not have.
const ownTables = `
CREATE TABLE IF NOT EXISTS tenant_route (
    tenant_id TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('provisioning', 'active', 'suspended', 'deleted')),
    version INTEGER NOT NULL DEFAULT 1,
    updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tenant_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id TEXT NOT NULL,
    verb TEXT NOT NULL,
    actor TEXT NOT NULL,
    at TEXT NOT NULL
);`
