package provision

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// Creating a database is not part of any transaction, so a run that is killed leaves traces. They bear a mark, a
// comment on the role and on the database, from their first moment until the transaction that registers the tenant
// takes it off. What bears the mark has therefore never been in anybody's use, and can be dropped.
//
// Only who may alter docex_owner's databases and create roles can set such a comment, which no tenant can.

// mark names the registry too: another one in the same cluster may be creating a tenant of the same id.
func mark(id registry.TenantID, registryDatabase string) string {
	return "docex-proxy: tenant " + string(id) + " of registry " + registryDatabase + ", provisioning"
}

// roleMark also names the database that the role's tenant is to get. Between CREATE DATABASE and the comment on it,
// this is what says whose it is.
func roleMark(id registry.TenantID, registryDatabase, database string) string {
	return roleMarkPrefix(id, registryDatabase) + database
}

func roleMarkPrefix(id registry.TenantID, registryDatabase string) string {
	return mark(id, registryDatabase) + " of database "
}

// leftovers are the marked roles and databases of one tenant.
type leftovers struct{ roles, databases []string }

func (l leftovers) none() bool { return len(l.roles) == 0 && len(l.databases) == 0 }

// findLeftovers must run as docex_owner: on a hardened database not everybody may read comments. A database that
// does not bear its mark yet is recognised by the role's and by how createDatabase leaves it: closed, without
// comment and rights. A limit of -2 is a database whose DROP has been interrupted.
func (w *work) findLeftovers(ctx context.Context, id registry.TenantID, registryDatabase string) (leftovers, error) {
	rows, err := w.tx.Query(ctx, `
SELECT is_role, name FROM (
  WITH marked AS (
    SELECT rolname, substr(description, length($1) + 1) AS database
      FROM pg_shdescription JOIN pg_roles AS r ON r.oid = objoid
     WHERE classoid = 'pg_authid'::regclass AND starts_with(description, $1)
  )
  SELECT true, rolname FROM marked
  UNION ALL
  SELECT false, datname
    FROM pg_database AS d LEFT JOIN pg_shdescription ON objoid = d.oid AND classoid = 'pg_database'::regclass
   WHERE description = $2
      OR (description IS NULL AND datname IN (SELECT database FROM marked) AND datdba = $3::text::regrole
          AND datconnlimit IN (0, -2) AND datacl IS NULL)
) AS found (is_role, name) ORDER BY 1, 2`, roleMarkPrefix(id, registryDatabase), mark(id, registryDatabase), OwnerRole)
	if err != nil {
		return leftovers{}, err
	}
	var found leftovers
	var role bool
	var name string
	_, err = pgx.ForEachRow(rows, []any{&role, &name}, func() error {
		if role {
			found.roles = append(found.roles, name)
		} else {
			found.databases = append(found.databases, name)
		}
		return nil
	})
	return found, err
}

// clearAway drops a tenant's leftovers. seen are those that the caller has found; they are looked for again, since
// the side's lock has been taken meanwhile.
func (s *side) clearAway(ctx context.Context, id registry.TenantID, seen leftovers) error {
	if s.conn != nil {
		err := s.transact(ctx, func(w *work) error {
			return w.as(ctx, OwnerRole, func(ctx context.Context) (err error) {
				seen, err = w.findLeftovers(ctx, id, s.registry)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	for _, database := range seen.databases {
		for _, sql := range []string{"SET ROLE " + OwnerRole, "DROP DATABASE " + quote(database), "RESET ROLE"} {
			if err := s.exec(ctx, sql); err != nil {
				return err
			}
		}
	}
	for _, role := range seen.roles { // last: its mark says whose an unmarked database is
		err := s.exec(ctx, "DROP ROLE "+quote(role))
		if hasCode(err, dependentObjects) {
			return &ConflictError{Object: "role", Name: role, Reason: "is left from a run that was ended, and owns something by now"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// clearAfterFailure drops what a failed creation has committed. It waits for the transaction's own end, whatever
// has become of its connection: had that been a commit, there is no mark any more and nothing is dropped.
func (p *Provisioner) clearAfterFailure(ctx context.Context, c *creation) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearPatience)
	defer cancel()
	if _, abroad := p.at(c.tenant.Route.Server); abroad {
		return p.clearAbroad(ctx, c)
	}
	s, err := p.openSide(ctx, c.work, c.database)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	id := c.tenant.ID
	if err := s.lock(ctx, tenantLockClass, string(id)); err != nil {
		return err
	}
	if err := s.lock(ctx, sideLockClass, string(id)); err != nil {
		return err
	}
	return s.clearAway(ctx, id, leftovers{})
}
