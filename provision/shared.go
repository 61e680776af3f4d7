package provision

import (
	"context"
	"fmt"
)

// At level role a tenant is in a schema of a database that tenants share. On another server than the registry's that is one
// of the same name, which the first tenant that comes there gets: docex_owner's, with what Init gives the registry's but
// without a registry.

// sharedPatience is for how long a run waits for another one that makes the database.
const sharedPatience = "1min"

// openShared connects to the database that tenants share on the tenant's server.
func (c *creation) openShared(ctx context.Context) (*side, error) {
	there, _ := c.at(c.tenant.Route.Server)
	s, err := there.openSide(ctx, &c.side.work, c.tenant.Route.Database)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", c.tenant.Route.Server, err)
	}
	s.registry = c.database
	return s, nil
}

// provideShared sees to it that there is such a database on the tenant's server. Only one run at a time makes it.
func (c *creation) provideShared(ctx context.Context) error {
	if c.dryRun != nil {
		c.side.work.show(fmt.Sprintf("-- database %q, unless it is there, with what `docexctl init` gives the registry's", c.tenant.Route.Database))
		return nil
	}
	ready, err := c.sharedIsReady(ctx)
	if err != nil || ready {
		return err
	}
	turn, err := c.openSide(ctx, c.work, c.database)
	if err != nil {
		return err
	}
	defer turn.close(ctx)
	if err := turn.exec(ctx, "SET lock_timeout = '"+sharedPatience+"'"); err != nil {
		return err
	}
	if err := turn.lock(ctx, sharedLockClass, c.tenant.Route.Server); err != nil {
		return err
	}
	if ready, err = c.sharedIsReady(ctx); err != nil || ready {
		return err
	}
	return c.makeShared(ctx)
}

// sharedIsReady looks at the database, and lets the session's role in where docex_owner can.
func (c *creation) sharedIsReady(ctx context.Context) (ready bool, err error) {
	var open, enter bool
	err = c.side.conn.QueryRow(ctx, `
SELECT coalesce(bool_and(datconnlimit <> 0 AND NOT has_database_privilege('public', oid, 'CONNECT')
                         AND has_database_privilege($2, oid, 'CONNECT WITH GRANT OPTION') AND has_database_privilege($2, oid, 'CREATE')), false),
       coalesce(bool_and(has_database_privilege(oid, 'CONNECT')), false)
  FROM pg_database WHERE datname = $1`, c.tenant.Route.Database, OwnerRole).Scan(&open, &enter)
	if err != nil || !open { // or there is none
		return false, err
	}
	if !enter {
		err := c.side.transact(ctx, func(w *work) error {
			return w.as(ctx, OwnerRole, func(ctx context.Context) error { return c.on(w).enterShared(ctx) })
		})
		if err != nil {
			return false, err
		}
	}
	s, err := c.openShared(ctx)
	if err != nil {
		return false, err
	}
	defer s.close(ctx)
	err = s.conn.QueryRow(ctx, `SELECT coalesce(has_schema_privilege($1, to_regnamespace($2), 'USAGE WITH GRANT OPTION'), false)`,
		OwnerRole, extensionSchema).Scan(&ready)
	return ready, err
}

// enterShared lets a session's role connect that is no superuser. It keeps that right: it comes again with the next tenant.
func (c *creation) enterShared(ctx context.Context) error {
	if c.superuser {
		return nil
	}
	return c.exec(ctx, "GRANT CONNECT ON DATABASE "+quote(c.tenant.Route.Database)+" TO "+quote(c.user))
}

// makeShared creates the database, or completes one that a run which was ended has begun.
func (c *creation) makeShared(ctx context.Context) error {
	hardened, err := c.hardened(ctx)
	if err != nil {
		return err
	}
	name := c.tenant.Route.Database
	var exists, ours bool
	err = c.side.conn.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_or(datdba = to_regrole($2)), false) FROM pg_database WHERE datname = $1`,
		name, OwnerRole).Scan(&exists, &ours)
	switch {
	case err != nil:
		return err
	case exists && !ours:
		return &ConflictError{Object: "database", Name: name, Reason: fmt.Sprintf(
			"exists on server %q and is not made for tenants: run `docexctl init` on it", c.tenant.Route.Server)}
	case !exists:
		if err := c.createDatabase(ctx); err != nil { // closed, until PUBLIC has lost its rights
			return err
		}
	}
	err = c.side.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) error {
			if err := w.exec(ctx, "REVOKE ALL ON DATABASE "+quote(name)+" FROM PUBLIC;\nALTER DATABASE "+quote(name)+" CONNECTION LIMIT -1"); err != nil {
				return err
			}
			return c.on(w).enterShared(ctx)
		})
	})
	if err != nil {
		return err
	}
	s, err := c.openShared(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error {
		err := c.on(w).prepareDatabase(ctx)
		if err == nil && hardened {
			_, err = w.harden(ctx)
		}
		return err
	})
}

// createClosed makes the tenant's role, schema and tables in the shared database, in one transaction. The role is marked and
// may not log in.
func (c *creation) createClosed(ctx context.Context) error {
	s, err := c.openShared(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	c.marked = true
	err = s.transact(ctx, func(w *work) error {
		inside := c.on(w)
		inside.closed = true
		create := []func(context.Context) error{
			inside.createTenantRole, inside.markRole, func(ctx context.Context) error { return w.as(ctx, OwnerRole, inside.createSchema) },
			inside.createTables, inside.grantSharedRights, inside.distribute, inside.verify,
		}
		if c.dryRun == nil {
			create = append([]func(context.Context) error{inside.refuseObjects}, create...)
		}
		for _, run := range create {
			if err := run(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("server %q: %w", c.tenant.Route.Server, err)
	}
	return nil
}

// markRole marks the role as one that has never been in use.
func (c *creation) markRole(ctx context.Context) error {
	route := c.tenant.Route
	return c.exec(ctx, "COMMENT ON ROLE "+quote(route.Role)+" IS "+quoteLiteral(roleMark(c.tenant.ID, c.side.registry, route.Database)))
}

// clearShared drops the tenant's schema and role where the role bears the mark of this database: the schema is as old.
func (g *purge) clearShared(ctx context.Context, s *side) error {
	if s.conn == nil {
		return nil
	}
	return s.transact(ctx, func(w *work) error {
		g = g.on(w)
		var marked bool
		err := w.as(ctx, OwnerRole, func(ctx context.Context) error {
			return w.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_shdescription JOIN pg_roles AS r ON r.oid = objoid WHERE classoid = 'pg_authid'::regclass AND rolname = $1 AND description = $2)`,
				g.role, roleMark(g.request.ID, s.registry, g.database)).Scan(&marked)
		})
		if err != nil || !marked {
			return err
		}
		if err := g.dropSchemaHere(ctx); err != nil {
			return err
		}
		return g.dropRoleHere(ctx, true)
	})
}

func (c *creation) clearShared(ctx context.Context) error {
	s, err := c.openShared(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	route := c.tenant.Route
	g := purge{
		work: c.work, Provisioner: c.Provisioner, request: PurgeRequest{ID: c.tenant.ID, Actor: c.tenant.CreatedBy},
		schema: c.tenant.SchemaName, database: route.Database, role: route.Role, server: route.Server,
	}
	return g.clearShared(ctx, s)
}
