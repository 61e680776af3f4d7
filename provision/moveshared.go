package provision

import (
	"context"
	"fmt"
)

// At level role a tenant is in a schema of a database that tenants share. On another server than the registry's that is one
// of the same name, which the first tenant that comes there gets: docex_owner's, with what Init gives the registry's but
// without a registry.

// provideShared sees to it that there is such a database on the new server.
func (m *move) provideShared(c *creation) func(context.Context) error {
	return func(ctx context.Context) error {
		name := c.tenant.Route.Database
		var exists, ours bool
		err := c.side.conn.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_or(datdba = to_regrole($2)), false) FROM pg_database WHERE datname = $1`,
			name, OwnerRole).Scan(&exists, &ours)
		if err != nil {
			return err
		}
		if !exists {
			ours = true
			if err := c.createDatabase(ctx); err != nil { // closed, until PUBLIC has lost its rights
				return err
			}
		}
		s, err := m.target.openStarted(ctx, name, m.target.registry)
		if err != nil {
			return err
		}
		defer s.close(ctx)
		return s.transact(ctx, func(w *work) error {
			var prepared bool
			err := w.tx.QueryRow(ctx, `
SELECT coalesce(has_schema_privilege($1, to_regnamespace($2), 'USAGE WITH GRANT OPTION'), false)
   AND has_database_privilege($1, current_database(), 'CONNECT WITH GRANT OPTION, CREATE') AND NOT has_database_privilege('public', current_database(), 'CONNECT')
   AND (SELECT datconnlimit <> 0 FROM pg_database WHERE datname = current_database())`, OwnerRole, extensionSchema).Scan(&prepared)
			switch {
			case err != nil || prepared:
				return err
			case !ours:
				return &ConflictError{Object: "database", Name: name, Reason: fmt.Sprintf(
					"exists on server %q and is not made for tenants: run `docexctl init` on it", m.target.server)}
			}
			return m.prepareShared(ctx, c, w)
		})
	}
}

func (m *move) prepareShared(ctx context.Context, c *creation, w *work) error {
	hardened, err := c.hardened(ctx)
	if err != nil {
		return err
	}
	database := quote(w.database)
	err = w.as(ctx, OwnerRole, func(ctx context.Context) error {
		return w.exec(ctx, "REVOKE ALL ON DATABASE "+database+" FROM PUBLIC;\nALTER DATABASE "+database+" CONNECTION LIMIT -1")
	})
	if err == nil {
		err = c.on(w).prepareDatabase(ctx)
	}
	if err == nil && hardened {
		_, err = w.harden(ctx)
	}
	return err
}

// createClosed makes the tenant's role and schema in a shared database, in one transaction, marked. The role may not log in.
func (m *move) createClosed(c *creation) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.clearShared(ctx); err != nil {
			return err
		}
		s, err := m.target.enter(ctx)
		if err != nil {
			return err
		}
		return m.target.wrap(s.transact(ctx, func(w *work) error {
			inside := c.on(w)
			inside.closed = true
			for _, run := range []func(context.Context) error{
				inside.refuseObjects, inside.createTenantRole, m.markRole(w),
				func(ctx context.Context) error { return w.as(ctx, OwnerRole, inside.createSchema) },
				inside.grantSharedRights, inside.verify,
			} {
				if err := run(ctx); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// markRole marks the role on the new server as one that has never been in use.
func (m *move) markRole(w *work) func(context.Context) error {
	return func(ctx context.Context) error {
		return w.exec(ctx, "COMMENT ON ROLE "+quote(m.target.role)+" IS "+quoteLiteral(roleMark(m.request.ID, m.target.registry, m.target.database)))
	}
}

// clearShared drops what bears the mark: the schema is as old as the role.
func (m *move) clearShared(ctx context.Context) error {
	s, err := m.target.enter(ctx)
	if err != nil {
		return err
	}
	return m.target.wrap(s.transact(ctx, func(w *work) error {
		var left leftovers
		err := w.as(ctx, OwnerRole, func(ctx context.Context) (err error) {
			left, err = w.findLeftovers(ctx, m.request.ID, m.target.registry)
			return err
		})
		if err != nil || len(left.roles) == 0 {
			return err
		}
		g := m.target.purge(m, w)
		if err := g.dropSchemaHere(ctx); err != nil {
			return err
		}
		return g.dropRoleHere(ctx, true)
	}))
}

// purge drops what is at this end, by the code that purges tenants.
func (e *end) purge(m *move, w *work) *purge {
	return &purge{
		work: w, Provisioner: m.Provisioner, request: PurgeRequest{ID: e.id, Actor: m.request.Actor},
		schema: e.schema, database: e.database, role: e.role, server: e.server, own: e.own,
	}
}
