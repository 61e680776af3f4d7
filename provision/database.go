package provision

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/docex-proxy/docex-proxy/registry"
)

// publicSchemaOwner owns the schema public of every database since Postgres 15. The database's owner is a member.
const publicSchemaOwner = "pg_database_owner"

// databaseSteps creates a tenant with a database of its own. Its role and database are committed before the tenant
// is registered, marked as unfinished and closed to everybody (see leftover.go); the transaction that registers it
// opens them.
func (c *creation) databaseSteps() []step {
	return []step{
		{"wait for the tenant's lock", c.enterForTenant},
		{"look for what exists", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.refuseExisting) }},
		{"clear away what a run that was killed has left", c.clearLeftovers},
		{"create the marked role", c.createMarkedRole},
		{"create the database", c.createDatabase},
		{"mark the database", c.markDatabase},
		{"fill the database", c.fillDatabase},
		{"register the tenant", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.register) }},
		{"open the database", c.openDatabase},
		{"check that it is open", c.verifyOpen},
	}
}

// checkDatabaseName accepts what Postgres keeps whole. Whether the name is free is the server's to say.
func checkDatabaseName(name string) error {
	switch {
	case len(name) > maxIdentifier:
		return invalid("database %q has %d bytes; Postgres keeps only %d of a name", name, len(name), maxIdentifier)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return invalid("database %q must be UTF-8 without control characters", name)
	}
	return nil
}

// createMarkedRole creates the role without LOGIN: nobody gets into the database as the tenant before it is
// registered.
func (c *creation) createMarkedRole(ctx context.Context) error {
	c.marked = true
	role := c.tenant.Route.Role
	return c.side.transact(ctx, func(w *work) error {
		inside := c.on(w)
		if err := inside.createTenantRole(ctx); err != nil {
			return err
		}
		return w.exec(ctx, "COMMENT ON ROLE "+quote(role)+" IS "+quoteLiteral(roleMark(c.tenant.ID, c.database, c.tenant.Route.Database)))
	})
}

// createDatabase creates it closed: a limit of 0 connections keeps everybody but superusers out, until it is marked
// and PUBLIC has lost its rights. template0 because anybody's objects may be in template1.
func (c *creation) createDatabase(ctx context.Context) error {
	err := c.side.exec(ctx, "CREATE DATABASE "+quote(c.tenant.Route.Database)+" TEMPLATE template0 OWNER "+OwnerRole+c.like+" CONNECTION LIMIT 0")
	if hasCode(err, duplicateDatabase, uniqueViolation) { // made since refuseExisting looked
		return databaseConflict(c.tenant.Route.Database)
	}
	return err
}

func databaseConflict(name string) error {
	return &ConflictError{Object: "database", Name: name, Reason: "exists already"}
}

func (c *creation) markDatabase(ctx context.Context) error {
	database := quote(c.tenant.Route.Database)
	sql := "COMMENT ON DATABASE " + database + " IS " + quoteLiteral(mark(c.tenant.ID, c.database)) + ";\n" +
		"REVOKE ALL ON DATABASE " + database + " FROM PUBLIC;\n" +
		"ALTER DATABASE " + database + " CONNECTION LIMIT -1"
	if !c.superuser { // being a member of the owner is not enough to connect where roles do not inherit
		sql += ";\nGRANT CONNECT ON DATABASE " + database + " TO " + quote(c.user)
	}
	return c.side.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) error { return w.exec(ctx, sql) })
	})
}

// fillDatabase creates in the new database what Init and CreateTenant create in the registry's, in one transaction.
func (c *creation) fillDatabase(ctx context.Context) error {
	hardened, err := c.hardened(ctx)
	if err != nil {
		return err
	}
	there, _ := c.at(c.tenant.Route.Server)
	s, err := there.openSide(ctx, &c.side.work, c.tenant.Route.Database)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error {
		inside := c.on(w)
		fill := []func(context.Context) error{inside.prepareDatabase}
		if hardened {
			fill = append(fill, func(ctx context.Context) error { _, err := w.harden(ctx); return err })
		}
		fill = append(fill, func(ctx context.Context) error { return w.as(ctx, OwnerRole, inside.createSchema) },
			inside.createTables, inside.grantSharedRights, inside.verify, inside.leaveDatabase)
		for _, run := range fill {
			if err := run(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// prepareDatabase is what Init does for the registry's database.
func (c *creation) prepareDatabase(ctx context.Context) error {
	err := c.as(ctx, publicSchemaOwner, func(ctx context.Context) error {
		return c.exec(ctx, "REVOKE ALL ON SCHEMA public FROM PUBLIC;\nGRANT USAGE ON SCHEMA public TO "+OwnerRole+" WITH GRANT OPTION")
	})
	if err != nil {
		return err
	}
	return c.as(ctx, OwnerRole, func(ctx context.Context) error {
		return c.exec(ctx, "CREATE SCHEMA "+extensionSchema+" AUTHORIZATION "+OwnerRole)
	})
}

// leaveDatabase takes back what markDatabase granted to the session's role.
func (c *creation) leaveDatabase(ctx context.Context) error {
	if c.superuser {
		return nil
	}
	return c.as(ctx, OwnerRole, func(ctx context.Context) error {
		return c.exec(ctx, "REVOKE CONNECT ON DATABASE "+quote(c.database)+" FROM "+quote(c.user))
	})
}

// openDatabase takes the marks off and lets the tenant in. On the registry's server it is part of the transaction that
// registers the tenant, so a tenant in the registry is complete and what is marked is in no registry.
func (c *creation) openDatabase(ctx context.Context) error {
	w := *c.work
	if c.dryRun != nil { // there is no such role and database
		w.show = func(sql string) { c.dryRun(shown(sql)) }
	}
	role := quote(c.tenant.Route.Role)
	if err := w.exec(ctx, "ALTER ROLE "+role+" LOGIN;\nCOMMENT ON ROLE "+role+" IS NULL"); err != nil {
		return err
	}
	if c.tenant.Route.Isolation != registry.IsolationDatabase {
		return nil
	}
	return w.as(ctx, OwnerRole, func(ctx context.Context) error {
		return w.exec(ctx, "COMMENT ON DATABASE "+quote(c.tenant.Route.Database)+" IS NULL")
	})
}

func (c *creation) verifyOpen(ctx context.Context) error {
	if c.dryRun != nil {
		return nil
	}
	database, role := c.tenant.Route.Database, c.tenant.Route.Role
	var open bool
	err := c.tx.QueryRow(ctx, `
SELECT rolcanlogin AND has_database_privilege(r.oid, $2, 'CONNECT') AND NOT has_database_privilege('public', $2, 'CONNECT')
  FROM pg_roles AS r WHERE rolname = $1`, role, database).Scan(&open)
	switch {
	case err != nil:
		return err
	case !open:
		return fmt.Errorf("database %q is not open to role %q alone", database, role)
	}
	return nil
}

// clearLeftovers opens the side connection, for a tenant that gets a database or where something is left.
func (c *creation) clearLeftovers(ctx context.Context) error {
	if c.tenant.Route.Isolation != registry.IsolationDatabase && c.left.none() {
		return nil
	}
	var err error
	if c.side, err = c.openSide(ctx, c.work, c.database); err != nil {
		return err
	}
	if err := c.side.lock(ctx, sideLockClass, string(c.tenant.ID)); err != nil {
		return err
	}
	return c.side.clearAway(ctx, c.tenant.ID, c.left)
}

// on is the same creation in another transaction.
func (c *creation) on(w *work) *creation {
	other := *c
	other.work = w
	return &other
}

func (c *creation) closeSide(ctx context.Context) {
	if c.side != nil {
		c.side.close(ctx)
	}
}
