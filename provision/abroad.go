package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/docex-proxy/docex-proxy/registry"
)

// A tenant on another server than the registry's cannot be created, nor rotated, in one transaction. What it gets there, a
// database or a schema of the one that tenants share (shared.go), is complete, marked and closed when the registry's
// transaction enters it, with the status "provisioning"; it is opened after the commit, and its status is "active" last. So
// a tenant that is being provisioned lacks nothing but its opening, which can be repeated: creating it again does that. What
// bears a mark and is in no registry can be dropped, as ever.

// errUnopened is what refuseExisting answers for a tenant that a run which was ended has registered and not opened.
var errUnopened = errors.New("is registered, and not opened yet")

// at is the Provisioner for a server, by the proxy's name: the receiver unless the name leads elsewhere.
func (p *Provisioner) at(server string) (there *Provisioner, abroad bool) {
	dsn, abroad := p.servers[server]
	if !abroad {
		return p, false
	}
	other := *p
	other.dsn, other.idle = dsn, nil
	return &other, true
}

// foreignSteps are steps for a tenant on another server.
func (c *creation) foreignSteps() []step {
	steps := []step{
		{"wait for the tenant's lock", c.enterForTenant},
		{"look for what exists", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.refuseRegistered) }},
		{"look for Citus", c.lookForCitus},
		{"reach the other server", c.reachServer},
	}
	if c.tenant.Route.Isolation == registry.IsolationDatabase {
		steps = append(steps,
			step{"look for what exists there", c.refuseExistingAbroad},
			step{"clear away what a run that was killed has left", c.clearLeftoversAbroad},
			step{"create the marked role", c.createMarkedRole},
			step{"create the database", c.createDatabase},
			step{"mark the database", c.markDatabase},
			step{"fill the database", c.fillDatabase})
	} else {
		steps = append(steps,
			step{"see to the shared database", c.provideShared},
			step{"clear away what a run that was killed has left", c.clearLeftoversAbroad},
			step{"create role, schema and tables", c.createClosed})
	}
	return append(steps, step{"register the tenant", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.register) }})
}

// reachServer connects to the tenant's server, where there is docex_owner then.
func (c *creation) reachServer(ctx context.Context) error {
	name := c.tenant.Route.Server
	var err error
	if c.side, err = c.openServer(ctx, name, c.work); err != nil {
		return err
	}
	if err := c.side.lock(ctx, sideLockClass, string(c.tenant.ID)); err != nil {
		return err
	}
	return c.side.transact(ctx, func(w *work) error {
		if w.version > 0 && w.version < oldestServer {
			return invalid("server %q is too old: it has to be Postgres %d at least", name, oldestServer/10000)
		}
		if err := w.lock(ctx, "pg_advisory_xact_lock", gateLock); err != nil {
			return err
		}
		return w.provideOwner(ctx)
	})
}

// oldestServer is the server_version_num of the first version where a role cannot hand its own membership on.
const oldestServer = 150000

// openServer connects to another server, for a request whose registry w works on.
func (p *Provisioner) openServer(ctx context.Context, name string, w *work) (*side, error) {
	if p.dryRun != nil {
		p.dryRun(fmt.Sprintf("-- on server %q", name))
		return p.openSide(ctx, w, w.database)
	}
	there, _ := p.at(name)
	s, err := there.openSide(ctx, &work{}, "")
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", name, err)
	}
	s.registry = w.database
	err = s.transact(ctx, func(w *work) error {
		err := w.start(ctx)
		s.work = *w
		s.work.tx = nil
		return err
	})
	if err != nil {
		s.close(ctx)
		return nil, fmt.Errorf("server %q: %w", name, err)
	}
	return s, nil
}

// provideOwner creates docex_owner, and lets the session's role act as it.
func (w *work) provideOwner(ctx context.Context) error {
	if w.show != nil {
		return nil
	}
	owner := systemRole{OwnerRole, false}
	exists, err := w.roleExists(ctx, owner)
	if err != nil {
		return err
	}
	if !exists {
		if err := w.createRole(ctx, owner.name, owner.login, ""); err != nil {
			return err
		}
	}
	var member bool
	if err := w.tx.QueryRow(ctx, "SELECT pg_has_role(session_user, $1, 'MEMBER')", OwnerRole).Scan(&member); err != nil || member {
		return err
	}
	return w.exec(ctx, "GRANT "+OwnerRole+" TO CURRENT_USER")
}

func (c *creation) refuseExistingAbroad(ctx context.Context) error {
	if c.dryRun != nil {
		return nil
	}
	return c.side.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) error {
			left, err := w.findLeftovers(ctx, c.tenant.ID, c.database)
			if err != nil {
				return err
			}
			c.left = left
			return c.on(w).refuseObjects(ctx)
		})
	})
}

func (c *creation) clearLeftoversAbroad(ctx context.Context) error {
	if c.tenant.Route.Isolation != registry.IsolationDatabase {
		if err := c.clearShared(ctx); err != nil {
			return err
		}
	}
	return c.side.clearAway(ctx, c.tenant.ID, c.left)
}

// open lets the tenant in, after its registration has been committed, and says so in the registry. It can be repeated.
func (c *creation) open(ctx context.Context) error {
	err := c.runStep(ctx, step{"open the database", func(ctx context.Context) error {
		return c.side.transact(ctx, func(w *work) error {
			inside := c.on(w)
			if err := inside.openDatabase(ctx); err != nil {
				return err
			}
			return inside.verifyOpen(ctx)
		})
	}})
	if err == nil {
		err = c.transact(ctx, func(w *work) []step {
			inside := c.on(w)
			return []step{{"call the tenant active", func(ctx context.Context) error { return w.as(ctx, OwnerRole, inside.activate) }}}
		})
	}
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("tenant '%s' is complete on server %q and registered, but not active: create it again to finish: %w",
			c.tenant.ID, c.tenant.Route.Server, err)
	}
	return err
}

// activate answers ErrExists when another run has done so meanwhile.
func (c *creation) activate(ctx context.Context) error {
	if c.dryRun != nil {
		return c.exec(ctx, "UPDATE docex_system.tenant_route SET status = 'active' WHERE tenant_id = "+quoteLiteral(string(c.tenant.ID)))
	}
	tag, err := c.tx.Exec(ctx, `UPDATE docex_system.tenant_route SET status = $2 WHERE tenant_id = $1 AND status = $3`,
		string(c.tenant.ID), registry.StatusActive, registry.StatusProvisioning)
	if err == nil && tag.RowsAffected() == 0 {
		return c.existsError()
	}
	c.tenant.Route.Status = registry.StatusActive
	return err
}

// complete opens what a run that was ended has registered.
func (c *creation) complete(ctx context.Context) error {
	var err error
	if c.side, err = c.openServer(ctx, c.tenant.Route.Server, c.work); err != nil {
		return err
	}
	defer c.closeSide(ctx)
	if err := c.side.lock(ctx, sideLockClass, string(c.tenant.ID)); err != nil {
		return err
	}
	return c.open(ctx)
}

// clearAbroad is clearAfterFailure for a tenant on another server. If its registration has been committed after all,
// nothing is dropped.
func (p *Provisioner) clearAbroad(ctx context.Context, c *creation) error {
	home, err := p.openSide(ctx, c.work, c.database)
	if err != nil {
		return err
	}
	defer home.close(ctx)
	if err := home.lock(ctx, tenantLockClass, string(c.tenant.ID)); err != nil {
		return err
	}
	var registered bool
	err = home.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) (err error) {
			registered, err = w.tenantExists(ctx, c.tenant.ID)
			return err
		})
	})
	if err != nil || registered {
		return err
	}
	if c.side, err = p.openServer(ctx, c.tenant.Route.Server, c.work); err != nil {
		return err
	}
	defer c.closeSide(ctx)
	if err := c.side.lock(ctx, sideLockClass, string(c.tenant.ID)); err != nil {
		return err
	}
	return c.clearLeftoversAbroad(ctx)
}
