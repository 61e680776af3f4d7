package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

func (c *cli) checkOutput() error {
	if c.output != formatTable && c.output != formatJSON && c.output != formatYAML {
		return usagef("unknown output format %q: table, json or yaml", c.output)
	}
	return nil
}

// print writes the value as JSON or YAML, or what table writes, its tabs aligned.
func (c *cli) print(value any, table func(io.Writer)) error {
	switch c.output {
	case formatJSON:
		return encodeJSON(c.out, value)
	case formatYAML:
		return encodeYAML(c.out, value)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

func encodeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// encodeYAML has the same keys in the same order as encodeJSON: JSON is YAML, and only its style changes.
func encodeYAML(w io.Writer, value any) error {
	var text bytes.Buffer
	if err := encodeJSON(&text, value); err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text.Bytes(), &document); err != nil {
		return err
	}
	plain(&document)
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(&document), encoder.Close())
}

// plain takes the style of JSON off a node. A string keeps its tag, and so the quotes that it needs to stay one.
func plain(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		plain(child)
	}
}

func (c *cli) warn(text string) {
	if text != "" {
		fmt.Fprintln(c.err, "docexctl: warning: "+text)
	}
}

// nothingChanged ends a dry run. Standard output holds SQL only.
func (c *cli) nothingChanged() error {
	_, err := fmt.Fprintln(c.err, "docexctl: dry run, nothing has been changed")
	return err
}

// tenantView is a tenant as JSON shows it. Its keys are a promise to scripts.
type tenantView struct {
	TenantID          string     `json:"tenant_id"`
	DisplayName       string     `json:"display_name"`
	IsSystem          bool       `json:"is_system"`
	IsolationStrategy string     `json:"isolation_strategy"`
	SchemaName        *string    `json:"schema_name"`
	DatabasePath      *string    `json:"database_path"`
	CreatedAt         time.Time  `json:"created_at"`
	CreatedBy         string     `json:"created_by"`
	LastUpdatedAt     time.Time  `json:"last_updated_at"`
	LastUpdatedBy     *string    `json:"last_updated_by"`
	Route             *routeView `json:"route"` // null: not adopted
	Move              *moveView  `json:"move,omitempty"`
}

// routeView is tenantView's part that DocEX does not have.
type routeView struct {
	Status           string          `json:"status"`
	Isolation        string          `json:"isolation"`
	Server           string          `json:"server"`
	Database         string          `json:"database"`
	Role             string          `json:"role"`
	SecretGeneration int             `json:"secret_generation"`
	Limits           registry.Limits `json:"limits"`
	SchemaVersion    int             `json:"schema_version"`
	Version          int64           `json:"version"`
	UpdatedAt        time.Time       `json:"updated_at"`
}

func viewTenant(t *registry.Tenant) tenantView {
	view := tenantView{
		TenantID:          string(t.ID),
		DisplayName:       t.DisplayName,
		IsSystem:          t.IsSystem,
		IsolationStrategy: t.IsolationStrategy,
		SchemaName:        optional(t.SchemaName),
		DatabasePath:      optional(t.DatabasePath),
		CreatedAt:         t.CreatedAt.UTC(),
		CreatedBy:         t.CreatedBy,
		LastUpdatedAt:     t.LastUpdatedAt.UTC(),
		LastUpdatedBy:     optional(t.LastUpdatedBy),
	}
	if r := t.Route; r != nil {
		view.Route = &routeView{
			Status:           string(r.Status),
			Isolation:        string(r.Isolation),
			Server:           r.Server,
			Database:         r.Database,
			Role:             r.Role,
			SecretGeneration: r.SecretGeneration,
			Limits:           r.Limits,
			SchemaVersion:    r.SchemaVersion,
			Version:          r.Version,
			UpdatedAt:        r.UpdatedAt.UTC(),
		}
	}
	return view
}

// status is a word for people: the route's, or why there is none.
func (v tenantView) status() string {
	switch {
	case v.IsSystem:
		return "system"
	case v.Route == nil:
		return "not adopted"
	default:
		return v.Route.Status
	}
}

// writeLines shows a tenant as DocEX does, with what DocEX does not know.
func (v tenantView) writeLines(w io.Writer, title string) {
	fmt.Fprintln(w, title)
	fmt.Fprintf(w, "  Display Name:\t%s\n", v.DisplayName)
	fmt.Fprintf(w, "  Status:\t%s\n", v.status())
	if v.Route != nil {
		fmt.Fprintf(w, "  Isolation:\t%s\n", v.Route.Isolation)
		fmt.Fprintf(w, "  Server:\t%s\n", v.Route.Server)
		fmt.Fprintf(w, "  Database:\t%s\n", v.Route.Database)
	}
	if v.Move != nil {
		v.Move.writeLine(w)
	}
	fmt.Fprintf(w, "  Isolation Strategy:\t%s\n", v.IsolationStrategy)
	if v.SchemaName != nil {
		fmt.Fprintf(w, "  Schema:\t%s\n", *v.SchemaName)
	}
	if v.DatabasePath != nil {
		fmt.Fprintf(w, "  Database Path:\t%s\n", *v.DatabasePath)
	}
	if v.Route != nil {
		fmt.Fprintf(w, "  Role:\t%s\n", v.Route.Role)
	}
	fmt.Fprintf(w, "  Created At:\t%s\n", stamp(v.CreatedAt))
	fmt.Fprintf(w, "  Created By:\t%s\n", v.CreatedBy)
	if v.LastUpdatedBy != nil {
		fmt.Fprintf(w, "  Updated:\t%s by %s\n", stamp(v.LastUpdatedAt), *v.LastUpdatedBy)
	}
}

func (c *cli) printTenants(tenants []*registry.Tenant) error {
	views := make([]tenantView, len(tenants))
	for i, tenant := range tenants {
		views[i] = viewTenant(tenant)
	}
	return c.print(views, func(w io.Writer) {
		fmt.Fprintln(w, "TENANT\tDISPLAY NAME\tSTATUS\tISOLATION\tSERVER\tDATABASE\tSCHEMA\tCREATED AT\tCREATED BY")
		for _, v := range views {
			isolation, server, database := "-", "-", "-"
			if v.Route != nil {
				isolation, server, database = v.Route.Isolation, v.Route.Server, v.Route.Database
			}
			schema := "-"
			if v.SchemaName != nil {
				schema = *v.SchemaName
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
				v.TenantID, v.DisplayName, v.status(), isolation, server, database, schema, stamp(v.CreatedAt), v.CreatedBy)
		}
	})
}

// loginView is a login as JSON shows it. Password is there once: when docexctl has drawn it.
type loginView struct {
	Login      string     `json:"login"`
	Password   string     `json:"password,omitempty"`
	Tenants    []string   `json:"tenants,omitempty"`
	AllTenants bool       `json:"all_tenants,omitempty"`
	ValidUntil *time.Time `json:"valid_until,omitempty"`
}

func (v loginView) writePassword(w io.Writer) {
	if v.Password != "" {
		fmt.Fprintf(w, "  Password:\t%s\n\nThe password is not stored and not shown again.\n", v.Password)
	}
}

// createdTenant is what tenant create prints.
type createdTenant struct {
	tenantView
	Placement *provision.Placement `json:"placement,omitempty"` // where the server was chosen
	Login     *loginView           `json:"login,omitempty"`
}

func (c *cli) printCreated(v createdTenant) error {
	return c.print(v, func(w io.Writer) {
		v.writeLines(w, fmt.Sprintf("Tenant '%s' provisioned", v.TenantID))
		if v.Placement != nil {
			fmt.Fprintf(w, "  Placement:\t%s\n", v.Placement.Reason)
		}
		if v.Login != nil {
			fmt.Fprintf(w, "  Login:\t%s\n", v.Login.Login)
			v.Login.writePassword(w)
		}
	})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// list is never nil, so that JSON shows an empty list.
func list(texts []string) []string { return append([]string{}, texts...) }

func ids(tenants []registry.TenantID) []string {
	texts := make([]string, len(tenants))
	for i, id := range tenants {
		texts[i] = string(id)
	}
	return texts
}
