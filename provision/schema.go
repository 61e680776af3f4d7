package provision

import (
	"context"
	_ "embed"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// businessTables creates DocEX's eleven tables in the schema that search_path names.
//
//go:embed template/0001_docex.sql
var businessTables string

const (
	businessTableCount = 11
	// schemaVersion is the number of the template's last file, for tenant_route.schema_version.
	schemaVersion = 1

	defaultSchemaTemplate = "tenant_{tenant_id}" // DocEX's default too
	templateVariable      = "{tenant_id}"
	systemSchema          = "docex_system"
	extensionSchema       = "ext"

	// maxIdentifier is what Postgres keeps of a name, in bytes (documentation, section 4.1.1). A longer one would be
	// cut, and two tenants could meet in one schema.
	maxIdentifier = 63
)

// schemaPattern is what DocEX accepts of a schema's name when it sets search_path, and what Postgres accepts
// without quotes: DocEX's startup options do not quote it.
var schemaPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// schemaName applies a schema template; "" is DocEX's default one. The error is an *InvalidRequestError.
func schemaName(template string, id registry.TenantID) (string, error) {
	if template == "" {
		template = defaultSchemaTemplate
	}
	if !strings.Contains(template, templateVariable) {
		return "", invalid("schema template %q does not contain %s: all tenants would share one schema", template, templateVariable)
	}
	name := strings.ReplaceAll(template, templateVariable, string(id))
	switch {
	case len(name) > maxIdentifier:
		return "", invalid("schema %q has %d bytes; Postgres keeps only %d of a name", name, len(name), maxIdentifier)
	case !schemaPattern.MatchString(name):
		return "", invalid("schema %q must contain only letters, digits and underscores and not start with a digit; "+
			"DocEX cannot use any other", name)
	case strings.HasPrefix(name, "pg_"):
		return "", invalid("schema %q starts with pg_, which Postgres reserves", name)
	}
	return name, nil
}

// RoleName is the login role of a tenant: its schema's name. The tenant's own name would have to be kept apart from
// other users of the cluster; the schema's already is, and psql's \dn and \du then read alike.
func RoleName(_ registry.TenantID, schema string) string { return schema }

// tenantSearchPath is where a tenant's unqualified names are looked for. public comes last: DocEX keeps pgvector there.
func tenantSearchPath(schema string) string {
	return strings.Join([]string{quote(schema), extensionSchema, "public"}, ", ")
}

// createBusinessTables creates what is missing of DocEX's tables in a schema, owned by the current role.
func (w *work) createBusinessTables(ctx context.Context, schema string) error {
	// pg_catalog is searched first although, and because, it is not named.
	if err := w.exec(ctx, "SET LOCAL search_path = "+quote(schema)); err != nil {
		return err
	}
	if err := w.exec(ctx, businessTables); err != nil {
		return err
	}
	return w.exec(ctx, "SET LOCAL search_path = pg_catalog")
}

// Tables are the statements that create DocEX's tables in the schema that search_path names.
func Tables() string { return businessTables }

var businessTable = regexp.MustCompile(`(?m)^CREATE TABLE IF NOT EXISTS (\w+)`)

// businessTableNames are the tables that the template creates.
func businessTableNames() []string {
	var names []string
	for _, found := range businessTable.FindAllStringSubmatch(businessTables, -1) {
		names = append(names, found[1])
	}
	return names
}

// quote makes an identifier of any name.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteLiteral makes a string constant, for statements that take no parameters. standard_conforming_strings is on.
func quoteLiteral(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
