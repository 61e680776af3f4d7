package registry

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// TenantID names one tenant. Values come from ParseTenantID, or from rows of the registry; nothing else
// converts a string to it.
type TenantID string

// SystemTenantID is the tenant that owns the registry. It never serves business sessions.
const SystemTenantID TenantID = "_docex_system_"

// maxTenantIDLength is DocEX's bound: with the default template "tenant_" + 30 stays below the 63 bytes that
// Postgres keeps of an identifier (Postgres documentation, section 4.1.1).
const maxTenantIDLength = 30

var (
	systemPattern = regexp.MustCompile(`^_docex_.*_$`)
	idPattern     = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// InvalidTenantIDError says why a text is no tenant id, in DocEX's own words.
type InvalidTenantIDError struct {
	Text   string
	Reason string
	System bool // the text matches the pattern that is reserved for system tenants
}

func (e *InvalidTenantIDError) Error() string { return e.Reason }

// ParseTenantID applies the rules of DocEX's TenantProvisioner.validate_tenant_id, in its order and with its
// messages. The error is always an *InvalidTenantIDError.
func ParseTenantID(text string) (TenantID, error) {
	switch {
	case text == "":
		return "", &InvalidTenantIDError{Text: text, Reason: "Tenant ID cannot be empty"}
	case TenantID(text).IsSystem():
		return "", &InvalidTenantIDError{Text: text, System: true, Reason: fmt.Sprintf(
			"Tenant ID '%s' matches system tenant pattern. System tenant IDs (matching '^_docex_.*_$') are reserved.", text)}
	case utf8.RuneCountInString(text) > maxTenantIDLength: // DocEX counts characters
		return "", &InvalidTenantIDError{Text: text, Reason: "Tenant ID cannot exceed 30 characters (PostgreSQL identifier limit)"}
	case idPattern.MatchString(strings.TrimSuffix(text, "\n")) && strings.HasSuffix(text, "\n"):
		// DocEX's pattern ends in a $ that also matches before a final line feed; its next check catches that.
		return "", &InvalidTenantIDError{Text: text, Reason: "Tenant ID cannot have leading or trailing whitespace"}
	case !idPattern.MatchString(text):
		return "", &InvalidTenantIDError{Text: text, Reason: "Tenant ID must contain only letters, numbers, and underscores, " +
			"and must start with a letter or underscore (PostgreSQL identifier rules)"}
	}
	return TenantID(text), nil
}

// IsSystem reports whether the id is reserved for system tenants.
func (id TenantID) IsSystem() bool {
	return id == SystemTenantID || systemPattern.MatchString(string(id))
}

// Status is where a tenant stands in its life.
type Status string

// The states of tenant_route.status. Only an active tenant is served.
const (
	StatusProvisioning Status = "provisioning"
	StatusActive       Status = "active"
	StatusSuspended    Status = "suspended"
	StatusMoving       Status = "moving"
	StatusDeleted      Status = "deleted"
)

// Isolation is the wall between a tenant and the others.
type Isolation string

// The isolation levels of tenant_route.isolation.
const (
	IsolationRole     Isolation = "role"
	IsolationSlot     Isolation = "slot"
	IsolationTrusted  Isolation = "trusted"
	IsolationDatabase Isolation = "database"
)

// Tenant is one row of tenant_registry with its row of tenant_route. It is immutable once loaded: the cache
// hands the same pointer to every session.
type Tenant struct {
	ID                TenantID
	DisplayName       string
	IsSystem          bool
	IsolationStrategy string // DocEX's own column: "schema" or "database"
	SchemaName        string // "" where the column is NULL
	DatabasePath      string // "" where the column is NULL; set for SQLite tenants
	CreatedAt         time.Time
	CreatedBy         string
	LastUpdatedAt     time.Time
	LastUpdatedBy     string // "" where the column is NULL

	// Route is nil for a row that DocEX wrote itself and nobody has adopted.
	Route *Route
}

// Route is one row of tenant_route: where a tenant's data is and how it is reached.
type Route struct {
	Status           Status
	Isolation        Isolation
	Server           string // the name of a server in the proxy's configuration, "main" by default
	Database         string
	Role             string // the login role of the tenant
	SecretGeneration int    // raised by a rotation; part of the derived password
	Limits           Limits
	SchemaVersion    int   // the last numbered file of the tenant's template that has run
	Version          int64 // raised by a trigger at every change of the row
	UpdatedAt        time.Time
}

// LeadsAs reports whether two routes of a tenant lead to the same place, as the same role with the same secret, and let in
// alike. It does not rely on Version, which only the trigger raises.
func (r *Route) LeadsAs(other *Route) bool {
	return r.Status == other.Status && r.Isolation == other.Isolation && r.Server == other.Server && r.Database == other.Database &&
		r.Role == other.Role && r.SecretGeneration == other.SecretGeneration
}

// Login is one row of proxy_login: a name and a SCRAM verifier with which clients authenticate to the proxy.
type Login struct {
	Name       string
	Verifier   string // SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as in pg_authid (section 53.8)
	ValidUntil time.Time
	AllTenants bool
	Tenants    []TenantID // from proxy_login_tenant; empty when AllTenants
}

// Permits reports whether the login may open sessions of the tenant.
func (l *Login) Permits(id TenantID) bool { return l.AllTenants || slices.Contains(l.Tenants, id) }

// Expired reports whether the login's VALID UNTIL has passed; the zero time never does.
func (l *Login) Expired(now time.Time) bool {
	return !l.ValidUntil.IsZero() && !now.Before(l.ValidUntil)
}
