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
// and raises the generation in the registry, in one transaction. Proxies learn of it from the registry. Sessions that
// are open stay so. At level slot it concerns the role's own logins only.
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
RETURNING role_name, secret_generation`, id).Scan(&o.result.Role, &o.result.Generation)
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

// setNewPassword comes last: a tenant can hold its own role's row for as long as the lock timeout.
func (o *rotation) setNewPassword(ctx context.Context) error {
	return o.setPassword(ctx, o.result.Role, derivedVerifier(o.key, o.result.Role, o.result.Generation))
}
