package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// ChangeRequest asks for a change of a tenant in the registry. Proxies hear of it at once, and it reaches sessions that are
// open; nothing of the tenant's data is touched.
type ChangeRequest struct {
	ID    registry.TenantID
	Actor string // "": "cli_user"

	Transition  Transition             // "": the status stays as it is
	DisplayName *string                // nil: likewise
	Limits      func(*registry.Limits) // changes those that the tenant has; nil: none
}

// Transition is a step in a tenant's life that only the registry knows of. What it takes away it can give back.
type Transition string

// The transitions. Only an active tenant is served.
const (
	Suspend Transition = "suspend" // from active
	Resume  Transition = "resume"  // from suspended
	Delete  Transition = "delete"  // from active or suspended; the data stays until PurgeTenant
	Restore Transition = "restore" // from deleted, to active
)

// leads is where a transition leads, and from where.
type leads struct {
	to   registry.Status
	from []registry.Status
}

var transitions = map[Transition]leads{
	Suspend: {registry.StatusSuspended, []registry.Status{registry.StatusActive}},
	Resume:  {registry.StatusActive, []registry.Status{registry.StatusSuspended}},
	Delete:  {registry.StatusDeleted, []registry.Status{registry.StatusActive, registry.StatusSuspended}},
	Restore: {registry.StatusActive, []registry.Status{registry.StatusDeleted}},
}

// ChangeTenant changes what the request names, all or nothing, writes DocEX's audit columns and the audit trail, and returns
// the tenant as it is then. A change to what is so already is no error.
//
// Errors: *InvalidRequestError, ErrNotFound, *ConflictError for a tenant that has no route, or whose status forbids it,
// ErrNotInitialised.
func (p *Provisioner) ChangeTenant(ctx context.Context, r ChangeRequest) (*registry.Tenant, error) {
	if err := checkText("actor", r.Actor); err != nil {
		return nil, err
	}
	if r.DisplayName != nil {
		if err := checkText("display-name", *r.DisplayName); err != nil {
			return nil, err
		}
	}
	withDefault(&r.Actor, defaultCreatedBy)
	err := p.transact(ctx, func(w *work) []step {
		c := &change{work: w, Provisioner: p, request: r}
		return []step{
			{"wait for the tenant's lock", c.enterForTenant},
			{"change the registry", func(ctx context.Context) error { return w.as(ctx, OwnerRole, c.write) }},
		}
	})
	if err != nil {
		return nil, err
	}
	p.logger.Info("tenant changed", slog.String("tenant", string(r.ID)))
	store, err := registry.OpenStore(ctx, p.dsn)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Tenant(ctx, r.ID)
}

// change is one run of ChangeTenant.
type change struct {
	*work
	*Provisioner
	request ChangeRequest
}

func (c *change) enterForTenant(ctx context.Context) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	return c.lock(ctx, "pg_advisory_xact_lock", tenantLockClass, string(c.request.ID))
}

func (c *change) write(ctx context.Context) error {
	id := string(c.request.ID)
	var name string
	var status *registry.Status
	var limits *registry.Limits
	err := c.tx.QueryRow(ctx, `
SELECT display_name, status, limits FROM docex_system.tenant_registry LEFT JOIN docex_system.tenant_route USING (tenant_id)
 WHERE tenant_id = $1`, id).Scan(&name, &status, &limits)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("tenant '%s' %w", id, ErrNotFound)
	case err != nil:
		return err
	case status == nil || limits == nil:
		return &ConflictError{Object: "tenant", Name: id, Reason: "has no route: it is the system tenant, or DocEX has made it"}
	}
	verbs := make(map[string]any)
	if err := c.writeName(ctx, name, verbs); err != nil {
		return err
	}
	if err := c.writeStatus(ctx, *status, verbs); err != nil {
		return err
	}
	if err := c.writeLimits(ctx, *limits, verbs); err != nil || len(verbs) == 0 {
		return err
	}
	if _, err := c.tx.Exec(ctx, `
UPDATE docex_system.tenant_registry SET last_updated_at = $2, last_updated_by = $3 WHERE tenant_id = $1`,
		id, c.timestamp(), c.request.Actor); err != nil {
		return err
	}
	for _, verb := range slices.Sorted(maps.Keys(verbs)) {
		if err := registry.InsertEvent(ctx, c.tx, c.request.ID, verb, c.request.Actor, verbs[verb]); err != nil {
			return err
		}
	}
	return nil
}

// updated is the detail of an event "update": what has been changed.
type updated struct {
	DisplayName string           `json:"display_name,omitempty"`
	Limits      *registry.Limits `json:"limits,omitempty"`
}

func (c *change) writeName(ctx context.Context, now string, verbs map[string]any) error {
	wanted := c.request.DisplayName
	if wanted == nil || *wanted == now {
		return nil
	}
	verbs["update"] = updated{DisplayName: *wanted}
	_, err := c.tx.Exec(ctx, `UPDATE docex_system.tenant_registry SET display_name = $2 WHERE tenant_id = $1`, string(c.request.ID), *wanted)
	return err
}

func (c *change) writeLimits(ctx context.Context, now registry.Limits, verbs map[string]any) error {
	if c.request.Limits == nil {
		return nil
	}
	wanted := now
	c.request.Limits(&wanted)
	if wanted == now {
		return nil
	}
	if err := wanted.Check(); err != nil {
		return invalid("%v", err)
	}
	detail, _ := verbs["update"].(updated)
	detail.Limits = &wanted
	verbs["update"] = detail
	// What another version has put into the object stays.
	_, err := c.tx.Exec(ctx, `
UPDATE docex_system.tenant_route SET limits = limits - $3::text[] || $2::jsonb WHERE tenant_id = $1`,
		string(c.request.ID), wanted, registry.LimitNames[:])
	return err
}

func (c *change) writeStatus(ctx context.Context, now registry.Status, verbs map[string]any) error {
	verb := c.request.Transition
	if verb == "" {
		return nil
	}
	leads, known := transitions[verb]
	switch {
	case !known:
		return invalid("there is no transition %q", verb)
	case now == leads.to:
		return nil
	case !slices.Contains(leads.from, now):
		return &ConflictError{Object: "tenant", Name: string(c.request.ID), Reason: fmt.Sprintf("is %s: it cannot be %s%s", now, leads.to, remedy(now))}
	}
	if verb == Restore {
		if err := c.refuseLost(ctx); err != nil {
			return err
		}
	}
	if verb == Delete {
		if err := c.refuseMoving(ctx, c.request.ID); err != nil {
			return err
		}
	}
	verbs[string(verb)] = struct{}{}
	_, err := c.tx.Exec(ctx, `UPDATE docex_system.tenant_route SET status = $2 WHERE tenant_id = $1`, string(c.request.ID), string(leads.to))
	return err
}

// remedy says what brings a tenant out of a status in which little can be done with it.
func remedy(now registry.Status) string {
	switch now {
	case registry.StatusProvisioning:
		return "; `docexctl tenant create` of the same id finishes it"
	case registry.StatusDeleted:
		return "; `docexctl tenant restore` brings it back"
	case registry.StatusSuspended:
		return "; `docexctl tenant resume` serves it again"
	case registry.StatusMoving:
		return "; `docexctl tenant move` goes on with that, and takes it back with --abort"
	default:
		return ""
	}
}

// refuseLost refuses a tenant whose purge has begun, as far as this server can tell.
func (c *change) refuseLost(ctx context.Context) error {
	var lost bool
	err := c.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) AND
       CASE WHEN isolation = 'database' THEN NOT EXISTS (SELECT FROM pg_database WHERE datname = database_name)
            ELSE database_name = current_database() AND to_regnamespace(quote_ident(schema_name)) IS NULL END
  FROM docex_system.tenant_route JOIN docex_system.tenant_registry USING (tenant_id) WHERE tenant_id = $1`, string(c.request.ID)).Scan(&lost)
	if err == nil && lost {
		return &ConflictError{Object: "tenant", Name: string(c.request.ID), Reason: "has no data any more: `docexctl tenant delete --purge` finishes what has begun"}
	}
	return err
}
