package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	// upgradeTries is how often a file is tried that waits for a lock for too long, or is chosen to end a deadlock.
	upgradeTries = 4
	// upgradePause is before the second try; before each further one it is twice as long.
	upgradePause = 250 * time.Millisecond
)

// UpgradeRequest asks for the template's later files. Only ID is required.
type UpgradeRequest struct {
	ID       registry.TenantID
	Actor    string   // "": "cli_user"
	Template Template // the zero value: DocEX's
	Repair   bool     // all files once more, for what has gone missing
}

// UpgradeResult says what has been done.
type UpgradeResult struct {
	From, To int // versions; equal where nothing was to be done
	Files    int // that have run
}

// UpgradeTenant runs those of the template's files that are later than the tenant's version, each in a transaction of its
// own as the tenant's role, and notes each down in the registry. What waits for a lock for more than five seconds is taken
// back and tried again, so that nothing of the tenant waits long behind it. A run that is ended goes on where it was.
//
// Errors: *InvalidRequestError, ErrNotFound, *ConflictError for a tenant without a role or that is deleted, moving or being
// provisioned, what Postgres said of a file.
func (p *Provisioner) UpgradeTenant(ctx context.Context, r UpgradeRequest) (UpgradeResult, error) {
	if err := checkText("actor", r.Actor); err != nil {
		return UpgradeResult{}, err
	}
	withDefault(&r.Actor, defaultCreatedBy)
	r.Template = r.Template.orDefault()
	tenant, config, err := p.tenantConfig(ctx, r.ID)
	if err != nil {
		return UpgradeResult{}, err
	}
	result := UpgradeResult{From: tenant.Route.SchemaVersion, To: tenant.Route.SchemaVersion}
	switch status := tenant.Route.Status; status {
	case registry.StatusActive, registry.StatusSuspended:
	default:
		return result, &ConflictError{Object: "tenant", Name: string(r.ID), Reason: fmt.Sprintf("is %s: it is not upgraded%s", status, remedy(status))}
	}
	u := &upgrade{Provisioner: p, request: r, tenant: tenant, config: config}
	for _, file := range r.Template.files {
		if file.version <= tenant.Route.SchemaVersion && !r.Repair {
			continue
		}
		if err := u.run(ctx, file); err != nil {
			return result, fmt.Errorf("%s: %w", file.name, err)
		}
		result.Files++
		result.To = max(result.To, file.version)
	}
	if result.Files > 0 {
		p.logger.Info("tenant upgraded", slog.String("tenant", string(r.ID)), slog.Int("from", result.From), slog.Int("to", result.To))
	}
	return result, nil
}

// upgrade is one run of UpgradeTenant.
type upgrade struct {
	*Provisioner
	request UpgradeRequest
	tenant  *registry.Tenant
	config  *pgx.ConnConfig // of the tenant's role
}

// run tries a file until it does not meet a lock.
func (u *upgrade) run(ctx context.Context, file templateFile) error {
	pause := upgradePause
	for try := 1; ; try++ {
		err := u.once(ctx, file)
		if try == upgradeTries || !hasCode(err, lockNotAvailable, deadlockDetected, serializationFailure) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause + rand.N(pause)):
		}
		pause *= 2
	}
}

// once runs a file on a connection of the tenant's, inside of the transaction that notes it down. The tenant's commits
// first: what is noted down is there.
func (u *upgrade) once(ctx context.Context, file templateFile) error {
	if u.dryRun != nil {
		u.dryRun(fmt.Sprintf("-- as %s, for tenant %s: %s\n%s", u.tenant.Route.Role, u.request.ID, file.name, file.sql))
		return nil
	}
	conn, err := connectAsTenant(ctx, u.request.ID, u.config)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	defer rollbackDetached(ctx, tx) // after a commit it does nothing
	return u.transact(ctx, func(w *work) []step {
		as := func(run func(context.Context, *work) error) func(context.Context) error {
			return func(ctx context.Context) error {
				return w.as(ctx, OwnerRole, func(ctx context.Context) error { return run(ctx, w) })
			}
		}
		return []step{
			{"wait for the tenant's lock", func(ctx context.Context) error {
				if err := w.enter(ctx); err != nil {
					return err
				}
				return w.lock(ctx, "pg_advisory_xact_lock", tenantLockClass, string(u.request.ID))
			}},
			{"look at the version", as(u.recheck)},
			{"run the file", func(ctx context.Context) error { return u.execute(ctx, tx, file) }},
			{"note the version down", as(func(ctx context.Context, w *work) error { return u.note(ctx, w, file) })},
			{"commit what the file has done", tx.Commit},
		}
	})
}

// recheck refuses what has become of the tenant meanwhile.
func (u *upgrade) recheck(ctx context.Context, w *work) error {
	var status registry.Status
	err := w.tx.QueryRow(ctx, `SELECT status FROM docex_system.tenant_route WHERE tenant_id = $1`, string(u.request.ID)).Scan(&status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("tenant '%s' %w", u.request.ID, ErrNotFound)
	case err == nil && status != registry.StatusActive && status != registry.StatusSuspended:
		return &ConflictError{Object: "tenant", Name: string(u.request.ID), Reason: fmt.Sprintf("has become %s", status)}
	}
	return err
}

func (u *upgrade) execute(ctx context.Context, tx pgx.Tx, file templateFile) error {
	if _, err := tx.Exec(ctx, file.sql); err != nil {
		return err
	}
	if tx.Conn().PgConn().TxStatus() != 'T' {
		return invalid("the file ends the transaction that it runs in")
	}
	return nil
}

func (u *upgrade) note(ctx context.Context, w *work, file templateFile) error {
	if _, err := w.tx.Exec(ctx, `
UPDATE docex_system.tenant_route SET schema_version = greatest(schema_version, $2) WHERE tenant_id = $1`, string(u.request.ID), file.version); err != nil {
		return err
	}
	return registry.InsertEvent(ctx, w.tx, u.request.ID, "upgrade", u.request.Actor, struct {
		File    string `json:"file"`
		Version int    `json:"version"`
	}{file.name, file.version})
}
