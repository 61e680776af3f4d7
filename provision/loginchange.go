package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/registry"
)

// RotateLogin gives a login another password, "" for one that is drawn, and returns it: the registry holds a verifier.
// Sessions that are open stay; new ones need the new password at once.
//
// Errors: *InvalidRequestError, ErrNotFound, ErrNotInitialised.
func (p *Provisioner) RotateLogin(ctx context.Context, name, password, actor string) (string, error) {
	if password == "" {
		password = drawPassword()
	}
	verifier := scram.NewVerifier(password).String()
	err := p.changeLogin(ctx, name, "login_rotate", actor, `UPDATE docex_system.proxy_login SET verifier = $2 WHERE login = $1`, name, verifier)
	if err != nil {
		return "", err
	}
	return password, nil
}

// DeleteLogin deletes a login. Its open sessions are ended by the proxies.
//
// Errors: *InvalidRequestError, ErrNotFound, ErrNotInitialised.
func (p *Provisioner) DeleteLogin(ctx context.Context, name, actor string) error {
	return p.changeLogin(ctx, name, "login_delete", actor, `DELETE FROM docex_system.proxy_login WHERE login = $1`, name)
}

// changeLogin changes one login's row, and writes the audit trail of the tenants that it may use.
func (p *Provisioner) changeLogin(ctx context.Context, name, verb, actor, sql string, arguments ...any) error {
	withDefault(&actor, defaultCreatedBy)
	if err := errors.Join(checkText("actor", actor), checkText("login", name)); err != nil {
		return err
	}
	err := p.transact(ctx, func(w *work) []step {
		return []step{
			{"wait for the registry's lock", w.enter},
			{"change the login", func(ctx context.Context) error {
				return w.as(ctx, OwnerRole, func(ctx context.Context) error {
					subjects, err := w.loginTenants(ctx, name)
					if err != nil {
						return err
					}
					if _, err := w.tx.Exec(ctx, sql, arguments...); err != nil {
						return err
					}
					for _, id := range subjects {
						err := registry.InsertEvent(ctx, w.tx, id, verb, actor, struct {
							Login string `json:"login"`
						}{name})
						if err != nil {
							return err
						}
					}
					return nil
				})
			}},
		}
	})
	if err == nil {
		p.logger.Info("login changed", slog.String("login", name), slog.String("verb", verb))
	}
	return err
}

// loginTenants are those whose audit trail a login's change is for; of one that may use all, the system tenant.
func (w *work) loginTenants(ctx context.Context, name string) ([]registry.TenantID, error) {
	var all bool
	err := w.tx.QueryRow(ctx, `SELECT all_tenants FROM docex_system.proxy_login WHERE login = $1 FOR UPDATE`, name).Scan(&all)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("login '%s' %w", name, ErrNotFound)
	case err != nil:
		return nil, err
	case all:
		return []registry.TenantID{registry.SystemTenantID}, nil
	}
	rows, err := w.tx.Query(ctx, `SELECT tenant_id FROM docex_system.proxy_login_tenant WHERE login = $1 ORDER BY 1`, name)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[registry.TenantID])
}
