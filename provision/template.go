package provision

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Template is what a tenant's schema gets: numbered files of SQL, in order. They run as the tenant's role in a transaction
// each, with names looked up in the tenant's schema, then ext and public. A file must be able to run again: a run that is
// killed may not have noted down that it has.
type Template struct{ files []templateFile }

// templateFile is one version of a template.
type templateFile struct {
	version int
	name    string
	sql     string
}

// defaultTemplate makes DocEX's tables.
func defaultTemplate() Template {
	return Template{[]templateFile{{schemaVersion, "0001_docex.sql", businessTables}}}
}

var templateName = regexp.MustCompile(`^(\d{1,9})_.+\.sql$`)

// LoadTemplate reads the files of a directory that are called NUMBER_NAME.sql, as 0001_tables.sql; others are not looked
// at. "" is DocEX's own template. The error is an *InvalidRequestError, or what the system said.
func LoadTemplate(dir string) (Template, error) {
	if dir == "" {
		return defaultTemplate(), nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Template{}, invalid("the template: %v", err)
	}
	var t Template
	for _, entry := range entries {
		found := templateName.FindStringSubmatch(entry.Name())
		if found == nil {
			continue
		}
		sql, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return Template{}, err
		}
		version, err := strconv.Atoi(found[1])
		if err != nil || version == 0 {
			return Template{}, invalid("the template's file %s: versions begin at 1", entry.Name())
		}
		t.files = append(t.files, templateFile{version, entry.Name(), string(sql)})
	}
	slices.SortFunc(t.files, func(a, b templateFile) int { return a.version - b.version })
	for i := 1; i < len(t.files); i++ {
		if t.files[i].version == t.files[i-1].version {
			return Template{}, invalid("the template's files %s and %s have the same number", t.files[i-1].name, t.files[i].name)
		}
	}
	if len(t.files) == 0 {
		return Template{}, invalid("there is no file like 0001_tables.sql in %s", dir)
	}
	return t, nil
}

// Version is the number of the last file.
func (t Template) Version() int { return t.files[len(t.files)-1].version }

// orDefault makes the zero value DocEX's template.
func (t Template) orDefault() Template {
	if len(t.files) == 0 {
		return defaultTemplate()
	}
	return t
}

// docex reports whether it is DocEX's own.
func (t Template) docex() bool { return len(t.files) == 1 && t.files[0].sql == businessTables }

// fill creates what the template has in a schema, owned by the current role.
func (w *work) fill(ctx context.Context, t Template, schema string) error {
	if t.docex() {
		return w.createBusinessTables(ctx, schema)
	}
	if err := w.exec(ctx, "SET LOCAL search_path = "+tenantSearchPath(schema)); err != nil {
		return err
	}
	for _, file := range t.files {
		if err := w.exec(ctx, file.sql); err != nil {
			return fmt.Errorf("%s: %w", file.name, err)
		}
		if w.tx != nil && w.tx.Conn().PgConn().TxStatus() != 'T' {
			return invalid("the template's file %s ends the transaction that it runs in", file.name)
		}
	}
	return w.exec(ctx, "SET LOCAL search_path = pg_catalog")
}
