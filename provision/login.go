package provision

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/registry"
)

// drawnPasswordBytes gives 32 characters of base64url.
const drawnPasswordBytes = 24

// LoginRequest asks for a login: a name and a password with which clients authenticate to the proxy.
type LoginRequest struct {
	Name       string              // 1 to 63 bytes of UTF-8 without control characters
	Tenants    []registry.TenantID // those that it may use; or
	AllTenants bool                // all of them, also those that are created later
	ValidUntil time.Time           // the zero time: for ever
	Password   string              // "": one is drawn
	Actor      string              // for the audit trail; "": "cli_user"
}

// LoginResult is a login that has been created. It is the only place where the password ever is: the registry holds
// a verifier.
type LoginResult struct {
	Login    registry.Login
	Password string
	Warning  string // "" or one sentence about something that is allowed and may surprise
}

// CreateLogin creates a login.
//
// Errors: *InvalidRequestError, ErrNotFound for a tenant, ErrExists for the login, ErrNotInitialised.
func (p *Provisioner) CreateLogin(ctx context.Context, r LoginRequest) (LoginResult, error) {
	if err := r.check(p.now()); err != nil {
		return LoginResult{}, err
	}
	withDefault(&r.Actor, defaultCreatedBy)
	if r.Password == "" {
		r.Password = drawPassword()
	}
	tenants := slices.Clone(r.Tenants)
	slices.Sort(tenants)
	result := LoginResult{Password: r.Password, Warning: nameWarning(r.Name), Login: registry.Login{
		Name:       r.Name,
		Verifier:   scram.NewVerifier(r.Password).String(),
		ValidUntil: r.ValidUntil.UTC(),
		AllTenants: r.AllTenants,
		Tenants:    slices.Compact(tenants),
	}}
	err := p.transact(ctx, func(w *work) []step {
		return []step{
			{"wait for the registry's lock", w.enter},
			{"create the login", func(ctx context.Context) error {
				return w.as(ctx, OwnerRole, func(ctx context.Context) error { return w.insertLogin(ctx, &result.Login, r.Actor) })
			}},
		}
	})
	if err != nil {
		return LoginResult{}, err
	}
	p.logger.Info("login created", slog.String("login", r.Name), slog.Bool("all_tenants", r.AllTenants), slog.Int("tenants", len(result.Login.Tenants)))
	return result, nil
}

func (r *LoginRequest) check(now time.Time) error {
	switch {
	case r.Name == "" || len(r.Name) > maxIdentifier:
		return invalid("a login's name has 1 to %d bytes, not %d", maxIdentifier, len(r.Name))
	case !utf8.ValidString(r.Name) || strings.ContainsFunc(r.Name, unicode.IsControl):
		return invalid("login %q must be UTF-8 without control characters", r.Name)
	case r.AllTenants && len(r.Tenants) > 0:
		return invalid("login %q: name tenants or all of them, not both", r.Name)
	case !r.AllTenants && len(r.Tenants) == 0:
		return invalid("login %q: name the tenants that it may use, or all of them", r.Name)
	case !r.ValidUntil.IsZero() && !r.ValidUntil.After(now):
		return invalid("login %q would have expired at %s", r.Name, r.ValidUntil.UTC().Format(time.RFC3339))
	case strings.IndexByte(r.Password, 0) >= 0:
		return invalid("login %q: Postgres clients cannot send a password that contains NUL", r.Name)
	}
	if i := slices.IndexFunc(r.Tenants, registry.TenantID.IsSystem); i >= 0 {
		return invalid("login %q: %q is a system tenant, which never serves sessions", r.Name, r.Tenants[i])
	}
	return checkText("actor", r.Actor)
}

func (w *work) insertLogin(ctx context.Context, login *registry.Login, actor string) error {
	missing, err := w.missingTenants(ctx, login.Tenants)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("tenant '%s' %w", strings.Join(missing, "', '"), ErrNotFound)
	}
	err = registry.InsertLogin(ctx, w.tx, login)
	switch {
	case hasCode(err, uniqueViolation):
		return fmt.Errorf("login %q %w", login.Name, ErrExists)
	case hasCode(err, foreignKeyViolation): // deleted since
		return fmt.Errorf("a tenant of login %q %w any more", login.Name, ErrNotFound)
	case err != nil:
		return err
	}
	subjects := login.Tenants
	if login.AllTenants {
		subjects = []registry.TenantID{registry.SystemTenantID}
	}
	for _, id := range subjects {
		detail := struct {
			Login string `json:"login"`
		}{login.Name}
		if err := registry.InsertEvent(ctx, w.tx, id, "login_create", actor, detail); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) missingTenants(ctx context.Context, ids []registry.TenantID) ([]string, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	rows, err := w.tx.Query(ctx, `
SELECT name FROM unnest($1::text[]) AS asked (name)
 WHERE NOT EXISTS (SELECT FROM docex_system.tenant_registry WHERE tenant_id = name AND NOT is_system) ORDER BY name`, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func drawPassword() string {
	drawn := make([]byte, drawnPasswordBytes)
	rand.Read(drawn) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(drawn)
}

// nameWarning is about names that the proxy may read as "login.tenant".
func nameWarning(name string) string {
	at := strings.LastIndexByte(name, '.')
	if at < 0 {
		return ""
	}
	return fmt.Sprintf("the name holds a dot: the proxy splits a user name at its last dot and will read %q as a tenant "+
		"unless the tenant is appended as well or identity.user_suffix is off", name[at+1:])
}
