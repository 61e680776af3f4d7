package provision

import (
	"context"
	"log/slog"
	"strconv"

	"github.com/docex-proxy/docex-proxy/registry"
)

// SlotsRequest asks for slots on another server than the registry's. Server and Slots are required.
type SlotsRequest struct {
	Server string // the proxy's name of it, in Options.Servers
	Slots  int    // that there shall be at least, 1 to 10,000; there never become fewer
	Actor  string // "": "system"
}

// SlotsResult says what there is.
type SlotsResult struct {
	Server, Database string
	Slots, Created   int
}

// PrepareSlots sees to slots on another server, which the first tenant at level slot there would get 50 of, and to the
// database that its tenants share.
//
// Errors: *InvalidRequestError, *KeyMismatchError, *ConflictError for a role or a database that is not ours, ErrNotInitialised.
func (p *Provisioner) PrepareSlots(ctx context.Context, r SlotsRequest) (SlotsResult, error) {
	withDefault(&r.Actor, systemActor)
	if _, abroad := p.at(r.Server); !abroad {
		return SlotsResult{}, invalid("say with --server-dsn %s=DSN how server %q is reached", r.Server, r.Server)
	}
	if p.isCitus(r.Server) {
		return SlotsResult{}, invalid("server %q is marked as Citus: no tenant there is at isolation %s", r.Server, registry.IsolationSlot)
	}
	if r.Slots < 1 || r.Slots > mostSlots {
		return SlotsResult{}, invalid("the number of slots is from 1 to %d, not %d", mostSlots, r.Slots)
	}
	if err := checkText("created-by", r.Actor); err != nil {
		return SlotsResult{}, err
	}
	result := SlotsResult{Server: r.Server}
	// As for a tenant that is the server itself, so to speak: it takes part in the same locks.
	c := &creation{Provisioner: p, tenant: &registry.Tenant{ID: registry.SystemTenantID, Route: &registry.Route{
		Server: r.Server, Isolation: registry.IsolationSlot,
	}}}
	defer c.closeSide(ctx)
	err := p.transact(ctx, func(w *work) []step {
		c.work, c.tenant.Route.Database, result.Database = w, w.database, w.database
		return []step{
			{"wait for the registry's lock", c.enter},
			{"reach the other server", c.reachServer},
			{"see to the shared database", c.provideShared},
			{"create the slots there", func(ctx context.Context) error { return c.addSlots(ctx, r.Slots, &result) }},
			{"write the audit trail", func(ctx context.Context) error {
				if result.Created == 0 {
					return nil
				}
				return w.as(ctx, OwnerRole, func(ctx context.Context) error {
					return registry.InsertEvent(ctx, w.tx, registry.SystemTenantID, "init", r.Actor, struct {
						Server       string `json:"server"`
						SlotsCreated int    `json:"slots_created"`
					}{r.Server, result.Created})
				})
			}},
		}
	})
	if err != nil {
		return SlotsResult{}, err
	}
	p.logger.Info("slots prepared", slog.String("server", result.Server), slog.Int("slots", result.Slots), slog.Int("created", result.Created))
	return result, nil
}

// addSlots works in the database that tenants share there.
func (c *creation) addSlots(ctx context.Context, wanted int, result *SlotsResult) error {
	s, err := c.openShared(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error {
		if w.show != nil {
			w.show("-- docex_switcher and slots, until there are " + strconv.Itoa(wanted))
			return nil
		}
		if err := w.lock(ctx, "pg_advisory_xact_lock", accessListsLock); err != nil {
			return err
		}
		if err := w.checkSwitcher(ctx, c.key); err != nil {
			return err
		}
		created, slots, err := w.prepareSlots(ctx, c.key, wanted)
		_, result.Created = withoutSlots(created)
		result.Slots = slots
		return err
	})
}
