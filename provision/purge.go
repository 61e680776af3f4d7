package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// PurgeRequest asks for the end of a tenant that has been deleted.
type PurgeRequest struct {
	ID    registry.TenantID
	Actor string        // "": "cli_user"
	Grace time.Duration // for how long a deleted tenant is kept; 0: it goes at once
}

// PurgeTenant drops what a deleted tenant has: its schema or database with all that is in it, its role with all its rights,
// its rows in the registry and its logins' permissions. The audit trail stays, and so do the logins. It is one transaction
// for a tenant with a schema; a database is dropped before it, and so is the role on another server. A run that is ended
// in between is finished by the next one: the tenant stays deleted until nothing of it is left.
//
// Errors: *InvalidRequestError, ErrNotFound, *ConflictError for a tenant that is not deleted, or not long enough ago, or
// whose role owns something elsewhere, ErrNotInitialised.
func (p *Provisioner) PurgeTenant(ctx context.Context, r PurgeRequest) error {
	if err := checkText("actor", r.Actor); err != nil {
		return err
	}
	withDefault(&r.Actor, defaultCreatedBy)
	err := p.transact(ctx, func(w *work) []step {
		return (&purge{work: w, Provisioner: p, request: r}).steps()
	})
	if err != nil {
		return err
	}
	p.logger.Info("tenant purged", slog.String("tenant", string(r.ID)))
	return nil
}

// purge is one run of PurgeTenant.
type purge struct {
	*work
	*Provisioner
	request PurgeRequest

	schema, database, role, server string
	own                            bool // the database is the tenant's
}

func (g *purge) steps() []step {
	return []step{
		{"wait for the tenant's lock", g.enterForTenant},
		{"look for the tenant", func(ctx context.Context) error { return g.as(ctx, OwnerRole, g.find) }},
		{"drop its database", g.dropDatabase},
		{"drop its schema", g.dropSchema},
		{"drop its role", g.dropRole},
		{"take it out of the registry", func(ctx context.Context) error { return g.as(ctx, OwnerRole, g.unregister) }},
	}
}

func (g *purge) enterForTenant(ctx context.Context) error {
	if err := g.enter(ctx); err != nil {
		return err
	}
	return g.lock(ctx, "pg_advisory_xact_lock", tenantLockClass, string(g.request.ID))
}

// find reads what the tenant has, and refuses what must not be dropped.
func (g *purge) find(ctx context.Context) error {
	var status, isolation string
	var deleted time.Time
	var shared bool
	err := g.tx.QueryRow(ctx, `
SELECT r.schema_name, coalesce(t.status, ''), coalesce(t.isolation, ''), coalesce(t.server, ''), coalesce(t.database_name, ''),
       coalesce(t.role_name, ''), coalesce(t.updated_at, 'epoch'),
       EXISTS (SELECT FROM docex_system.tenant_registry AS o LEFT JOIN docex_system.tenant_route AS u USING (tenant_id)
                WHERE o.tenant_id <> r.tenant_id AND o.schema_name = r.schema_name
                  AND coalesce(u.database_name, t.database_name) = t.database_name AND coalesce(u.server, t.server) = t.server)
  FROM docex_system.tenant_registry AS r LEFT JOIN docex_system.tenant_route AS t USING (tenant_id) WHERE r.tenant_id = $1`,
		string(g.request.ID)).Scan(&g.schema, &status, &isolation, &g.server, &g.database, &g.role, &deleted, &shared)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("tenant '%s' %w", g.request.ID, ErrNotFound)
	case err != nil:
		return err
	case status == "":
		return g.conflict("has no route: it is the system tenant, or DocEX has made it")
	case shared:
		return g.conflict(fmt.Sprintf("shares schema %q with another tenant", g.schema))
	case slices.ContainsFunc(append(systemRoles(), systemRole{name: SwitcherRole}), func(r systemRole) bool { return r.name == g.role }):
		return g.conflict(fmt.Sprintf("has the role %q of the proxy itself", g.role))
	case g.dryRun != nil:
	case registry.Status(status) != registry.StatusDeleted:
		return g.conflict(fmt.Sprintf("is %s: it is purged after it has been deleted", status))
	}
	if kept := deleted.Add(g.request.Grace); g.request.Grace > 0 && g.dryRun == nil && g.now().Before(kept) {
		return g.conflict(fmt.Sprintf("has been deleted since %s and is kept until %s: --purge ends it now, `docexctl tenant restore` brings it back",
			deleted.UTC().Format(time.RFC3339), kept.UTC().Format(time.RFC3339)))
	}
	if err := g.refuseMoving(ctx, g.request.ID); err != nil {
		return err
	}
	_, abroad := g.at(g.server)
	g.own = registry.Isolation(isolation) == registry.IsolationDatabase && (abroad || g.database != g.work.database)
	return nil
}

func (g *purge) conflict(reason string) error {
	return &ConflictError{Object: "tenant", Name: string(g.request.ID), Reason: reason}
}

// dropDatabase is no part of the transaction. That the tenant is deleted has been committed before: there is nothing that
// could bring it back, and the next run finds the database gone. On another server the role goes with it.
func (g *purge) dropDatabase(ctx context.Context) error {
	if !g.own {
		return nil
	}
	var s *side
	var err error
	_, abroad := g.at(g.server)
	if abroad {
		s, err = g.openServer(ctx, g.server, g.work)
	} else {
		s, err = g.openSide(ctx, g.work, g.work.database)
	}
	if err != nil {
		return err
	}
	defer s.close(ctx)
	if err := s.lock(ctx, sideLockClass, string(g.request.ID)); err != nil {
		return err
	}
	if err := g.refuseForeign(ctx, s); err != nil {
		return err
	}
	drop := []string{"SET ROLE " + OwnerRole, "DROP DATABASE IF EXISTS " + quote(g.database), "RESET ROLE"}
	if s.work.superuser { // who may end the sessions that are left
		drop = []string{"DROP DATABASE IF EXISTS " + quote(g.database) + " WITH (FORCE)"}
	}
	if err := s.each(ctx, drop...); err != nil {
		return err
	}
	if !abroad {
		return nil
	}
	return s.transact(ctx, func(w *work) error { return g.on(w).dropRoleHere(ctx, false) })
}

// refuseForeign refuses a database that is not docex_owner's, which means that it is on another server than this.
func (g *purge) refuseForeign(ctx context.Context, s *side) error {
	if s.conn == nil {
		return nil
	}
	var known bool
	err := s.conn.QueryRow(ctx, `
SELECT coalesce(bool_and(datdba = to_regrole($2)), EXISTS (SELECT FROM pg_roles WHERE rolname = $3)) FROM pg_database WHERE datname = $1`,
		g.database, OwnerRole, g.role).Scan(&known)
	if err != nil || known {
		return err
	}
	var gone bool // by a run that was ended: nothing of it is left here
	if err := s.conn.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, g.database).Scan(&gone); err != nil {
		return err
	}
	if _, abroad := g.at(g.server); gone && (abroad || g.server == defaultServer) {
		return nil
	}
	return &ConflictError{Object: "database", Name: g.database, Reason: fmt.Sprintf(
		"is not on this server as %s's: say with --server-dsn how server %q is reached", OwnerRole, g.server)}
}

// dropSchema is about a tenant that shares its database. On another server it is no part of the transaction, as little as a
// database is, and the role goes with it.
func (g *purge) dropSchema(ctx context.Context) error {
	if g.own {
		return nil
	}
	there, abroad := g.at(g.server)
	if !abroad {
		if err := g.refuseElsewhere(ctx); err != nil {
			return err
		}
		return g.dropSchemaHere(ctx)
	}
	open := there.openStarted
	if g.dryRun != nil {
		open = func(ctx context.Context, database, _ string) (*side, error) { return g.openSide(ctx, g.work, database) }
	}
	s, err := open(ctx, g.database, g.work.database)
	if err != nil {
		return fmt.Errorf("server %q: %w", g.server, err)
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error {
		inside := g.on(w)
		if err := inside.dropSchemaHere(ctx); err != nil {
			return err
		}
		return inside.dropRoleHere(ctx, true)
	})
}

// refuseElsewhere refuses a tenant that this server has nothing of, and that may be whole on the one that it is on.
func (g *purge) refuseElsewhere(ctx context.Context) error {
	if g.server == defaultServer || g.show != nil {
		return nil
	}
	var here bool
	err := g.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, g.role).Scan(&here)
	if err == nil && !here {
		err = g.conflict(fmt.Sprintf("is not on this server: say with --server-dsn how server %q is reached", g.server))
	}
	return err
}

// dropSchemaHere runs as the schemas' owner, which can drop no other. Whoever still uses the schema has a lock on it.
func (g *purge) dropSchemaHere(ctx context.Context) error {
	return g.as(ctx, OwnerRole, func(ctx context.Context) error {
		return g.exec(ctx, "DROP SCHEMA IF EXISTS "+quote(g.schema)+" CASCADE")
	})
}

func (g *purge) dropRole(ctx context.Context) error {
	if _, abroad := g.at(g.server); abroad {
		return nil
	}
	return g.dropRoleHere(ctx, !g.own)
}

// dropRoleHere takes the role's rights in this database as well, where it has any. Its memberships and settings go with it.
func (g *purge) dropRoleHere(ctx context.Context, inside bool) error {
	role := quote(g.role)
	if g.show == nil {
		var powerful bool
		err := g.tx.QueryRow(ctx, `
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = $1`, g.role).Scan(&powerful)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return err
		case powerful:
			return &ConflictError{Object: "role", Name: g.role, Reason: "has more rights than a tenant's: it is not dropped"}
		}
	}
	sql := ""
	if inside {
		if err := g.unlist(ctx); err != nil {
			return err
		}
		if err := g.lock(ctx, "pg_advisory_xact_lock", accessListsLock); err != nil {
			return err
		}
		err := g.as(ctx, OwnerRole, func(ctx context.Context) error {
			// Those that it has from docex_owner, which is not the owner of all of it.
			return g.exec(ctx, "REVOKE ALL ON DATABASE "+quote(g.work.database)+" FROM "+role+";\n"+
				"REVOKE ALL ON SCHEMA "+extensionSchema+", public FROM "+role)
		})
		if err != nil {
			return err
		}
		if !g.superuser {
			sql = "GRANT " + role + " TO CURRENT_USER;\n"
		}
		sql += "DROP OWNED BY " + role + ";\n" // large objects, default privileges
	}
	if g.superuser && g.dryRun == nil {
		if _, err := g.tx.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", g.role); err != nil {
			return err
		}
	}
	err := g.exec(ctx, sql+"DROP ROLE "+role)
	if hasCode(err, dependentObjects) {
		return &ConflictError{Object: "role", Name: g.role, Reason: "has rights or owns objects elsewhere: " + detail(err) +
			"; DROP OWNED BY it there, and purge again"}
	}
	return err
}

// unlist takes the role off the list of those that slots are lent to here though the registry is elsewhere.
func (g *purge) unlist(ctx context.Context) error {
	if g.show != nil {
		return nil
	}
	var listed bool
	err := g.tx.QueryRow(ctx, `SELECT to_regclass('docex_system.slot_tenant') IS NOT NULL`).Scan(&listed)
	if err != nil || !listed {
		return err
	}
	return g.as(ctx, OwnerRole, func(ctx context.Context) error {
		return g.exec(ctx, "DELETE FROM docex_system.slot_tenant WHERE role_name = "+quoteLiteral(g.role))
	})
}

// unregister leaves the audit trail.
func (g *purge) unregister(ctx context.Context) error {
	if _, err := g.tx.Exec(ctx, `DELETE FROM docex_system.tenant_registry WHERE tenant_id = $1`, string(g.request.ID)); err != nil {
		return err
	}
	return registry.InsertEvent(ctx, g.tx, g.request.ID, "purge", g.request.Actor, struct {
		Schema   string `json:"schema"`
		Role     string `json:"role"`
		Server   string `json:"server"`
		Database string `json:"database"`
	}{g.schema, g.role, g.server, g.database})
}

// on is the same purge in another transaction.
func (g *purge) on(w *work) *purge {
	other := *g
	other.work = w
	return &other
}

// detail is what Postgres has to say beside its message, in one line.
func detail(err error) string {
	if pgErr := postgresError(err); pgErr != nil {
		return strings.ReplaceAll(pgErr.Detail, "\n", ", ")
	}
	return ""
}
