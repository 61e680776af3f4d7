package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// RotateRequest asks for a new password of a tenant's role.
type RotateRequest struct {
	ID    registry.TenantID
	Actor string // for the audit trail; "": "cli_user"
}

// RotateResult is what has become of the role. The password is derived from the generation, and shown nowhere.
type RotateResult struct {
	Role       string
	Generation int // now
}

// RotateTenant gives a tenant's role the derived password of the next generation, whatever the tenant has made of it,
// and raises the generation in the registry, in one transaction, but for tenants on other servers. Proxies learn of it from
// the registry. Sessions that are open stay so. At level slot it concerns the role's own logins only.
//
// Errors: *InvalidRequestError, ErrNotFound, *ConflictError for a tenant that has no role, *KeyMismatchError,
// ErrNotInitialised.
func (p *Provisioner) RotateTenant(ctx context.Context, r RotateRequest) (RotateResult, error) {
	if err := checkText("actor", r.Actor); err != nil {
		return RotateResult{}, err
	}
	withDefault(&r.Actor, defaultCreatedBy)
	var o *rotation
	err := p.transact(ctx, func(w *work) []step {
		o = &rotation{work: w, Provisioner: p, request: r}
		return []step{
			{"wait for the tenant's lock", o.enterForTenant},
			{"raise the generation", func(ctx context.Context) error { return o.as(ctx, OwnerRole, o.raise) }},
			{"set the password", o.setNewPassword},
		}
	})
	if err != nil {
		return RotateResult{}, err
	}
	p.logger.Info("tenant's password rotated", slog.String("tenant", string(r.ID)), slog.String("role", o.result.Role),
		slog.Int("generation", o.result.Generation))
	return o.result, nil
}

// rotation is one run of RotateTenant.
type rotation struct {
	*work
	*Provisioner
	request RotateRequest
	result  RotateResult
	server  string // where the role is, by the proxy's name
	place   string // the database that the tenant is in
}

func (o *rotation) enterForTenant(ctx context.Context) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	if err := o.checkKey(ctx, o.key, RegistryRole); err != nil {
		return err
	}
	return o.lock(ctx, "pg_advisory_xact_lock", tenantLockClass, string(o.request.ID))
}

// raise also writes the audit trail: what follows must be done by somebody who may change roles.
func (o *rotation) raise(ctx context.Context) error {
	id := string(o.request.ID)
	err := o.tx.QueryRow(ctx, `
UPDATE docex_system.tenant_route SET secret_generation = secret_generation + 1 WHERE tenant_id = $1
RETURNING role_name, secret_generation, server, database_name`, id).Scan(&o.result.Role, &o.result.Generation, &o.server, &o.place)
	if errors.Is(err, pgx.ErrNoRows) {
		return o.withoutRole(ctx)
	}
	if err != nil {
		return err
	}
	return registry.InsertEvent(ctx, o.tx, o.request.ID, "rotate", o.request.Actor, struct {
		Role       string `json:"role"`
		Generation int    `json:"generation"`
	}{o.result.Role, o.result.Generation})
}

func (o *rotation) withoutRole(ctx context.Context) error {
	exists, err := o.tenantExists(ctx, o.request.ID)
	switch {
	case err != nil:
		return err
	case exists:
		return &ConflictError{Object: "tenant", Name: string(o.request.ID), Reason: "has no role of its own"}
	default:
		return fmt.Errorf("tenant '%s' %w", o.request.ID, ErrNotFound)
	}
}

// setNewPassword comes last: a tenant can hold its own role's row for as long as the lock timeout. On another server it is
// committed there before the generation is in the registry. A run that is ended in between leaves a password that the
// next run sets again.
func (o *rotation) setNewPassword(ctx context.Context) error {
	if _, abroad := o.at(o.server); !abroad {
		return o.setPasswordHere(ctx, o.work)
	}
	s, err := o.openServer(ctx, o.server, o.work)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error { return o.setPasswordHere(ctx, w) })
}

func (o *rotation) setPasswordHere(ctx context.Context, w *work) error {
	if w.show == nil {
		var here bool
		err := w.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_roles AS r, pg_database AS d
                WHERE rolname = $1 AND datname = $2 AND has_database_privilege(r.oid, d.oid, 'CONNECT'))`, o.result.Role, o.place).Scan(&here)
		if err != nil {
			return err
		}
		if !here {
			return &ConflictError{Object: "role", Name: o.result.Role, Reason: fmt.Sprintf(
				"with database %q is not on this server: say with --server-dsn how server %q is reached", o.place, o.server)}
		}
	}
	return w.setPassword(ctx, o.result.Role, derivedVerifier(o.key, o.result.Role, o.result.Generation))
}
