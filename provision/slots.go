package provision

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/registry"
)

// The roles of isolation level slot. They belong to the cluster, their rights to each database that has such tenants.
const (
	// SwitcherRole is LOGIN without any right but to call docex_system.seat() and docex_system.renew_slot(). No slot
	// and no tenant may ever log in as it.
	SwitcherRole = "docex_switcher"
	// SlotPrefix and a number from 1 make a slot: a LOGIN that may connect and nothing else, once at a time. Two
	// sessions of one slot could become each other's tenants.
	SlotPrefix = "docex_slot_"
)

const (
	slotPattern  = "^" + SlotPrefix + "[1-9][0-9]*$"
	defaultSlots = 50     // made with the first tenant that needs one
	mostSlots    = 10_000 // each is a server connection

	// oldestForSlots is the server_version_num since which a role cannot grant itself to others.
	oldestForSlots = 150000
)

func slotRole(number int) string { return SlotPrefix + strconv.Itoa(number) }

// slotting makes the roles of level slot, or completes them, in the database that it works on.
type slotting struct {
	*work
	key    secret.Key
	wanted int // slots that there shall be at least

	existing []string // slots
	created  []string
}

// prepareSlots sees to it that the switcher and at least so many slots exist, and gives all of the cluster's slots
// their rights on this database. It says which roles it has created, and how many slots there are now. The caller
// holds the access lists' lock or the gate alone.
func (w *work) prepareSlots(ctx context.Context, key secret.Key, wanted int) (created []string, slots int, err error) {
	s := &slotting{work: w, key: key, wanted: wanted}
	for _, run := range []func(context.Context) error{
		s.refuseOldServer, s.provideSchema, s.refuseForeignSchema, s.findSlots, s.createSwitcher, s.createSlots, s.createRecords,
		s.defineRenewal, s.defineSeating, s.setRights, s.check,
	} {
		if err := run(ctx); err != nil {
			return nil, 0, err
		}
	}
	return s.created, len(s.existing), nil
}

func (w *work) refuseOldServer(context.Context) error {
	if w.version < oldestForSlots {
		return invalid("isolation level slot needs Postgres 15 or later; this server is version %d", w.version/10000)
	}
	return nil
}

// provideSchema is for a database without a registry.
func (s *slotting) provideSchema(ctx context.Context) error {
	var exists bool
	err := s.tx.QueryRow(ctx, `SELECT to_regnamespace('docex_system') IS NOT NULL`).Scan(&exists)
	if err != nil || exists { // whoever may not create one may use it
		return err
	}
	return s.exec(ctx, "CREATE SCHEMA docex_system")
}

// refuseForeignSchema: the schema's owner defines functions in it.
func (s *slotting) refuseForeignSchema(ctx context.Context) error {
	var owns bool
	err := s.tx.QueryRow(ctx, `SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'docex_system'`).Scan(&owns)
	if err == nil && !owns {
		err = fmt.Errorf("role %q does not own schema docex_system and cannot prepare it for isolation level slot: "+
			"run `docexctl init --slots N` as a superuser first", s.user)
	}
	return err
}

// slotsPrepared reports whether prepareSlots has run in this database, and how many slots the cluster has. It asks the
// catalog, as whoever provisions may not have the schema.
func (w *work) slotsPrepared(ctx context.Context) (prepared bool, slots int, err error) {
	err = w.tx.QueryRow(ctx, `
SELECT (SELECT count(*) = 2 FROM pg_proc WHERE pronamespace = to_regnamespace('docex_system') AND proname IN ('renew_slot', 'seat'))
       AND slots > 0 AND EXISTS (SELECT FROM pg_roles WHERE rolname = $1), slots
  FROM (SELECT count(*)::integer FROM pg_roles WHERE rolname ~ $2) AS counted (slots)`,
		SwitcherRole, slotPattern).Scan(&prepared, &slots)
	return prepared, slots, err
}

// findSlots refuses a role with a slot's name that is more than one. Of what a tenant can do to a slot, a password or
// a setting, it is not the sign.
func (s *slotting) findSlots(ctx context.Context) error {
	rows, err := s.tx.Query(ctx, `
SELECT rolname, rolcanlogin AND NOT rolinherit AND rolconnlimit = 1
       AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
  FROM pg_roles WHERE rolname ~ $1 ORDER BY length(rolname), rolname`, slotPattern)
	if err != nil {
		return err
	}
	var name string
	var intact bool
	_, err = pgx.ForEachRow(rows, []any{&name, &intact}, func() error {
		if !intact {
			return &ConflictError{Object: "role", Name: name, Reason: "is not what a slot has to be: ALTER ROLE it to LOGIN NOINHERIT " +
				noPowers + " CONNECTION LIMIT 1 if it is ours"}
		}
		s.existing = append(s.existing, name)
		return nil
	})
	return err
}

func (s *slotting) createSwitcher(ctx context.Context) error {
	exists, err := s.roleExists(ctx, systemRole{SwitcherRole, true})
	if err != nil || exists {
		return err
	}
	s.created = append(s.created, SwitcherRole)
	return s.createRole(ctx, SwitcherRole, true, derivedVerifier(s.key, SwitcherRole, firstGeneration))
}

func (s *slotting) createSlots(ctx context.Context) error {
	for number := 1; number <= s.wanted; number++ {
		role := slotRole(number)
		if slices.Contains(s.existing, role) {
			continue
		}
		err := s.exec(ctx, "CREATE ROLE "+quote(role)+" "+noPowers+" NOINHERIT LOGIN CONNECTION LIMIT 1 PASSWORD "+
			quoteLiteral(derivedVerifier(s.key, role, firstGeneration)))
		if err != nil {
			return err
		}
		s.existing, s.created = append(s.existing, role), append(s.created, role)
	}
	return nil
}

func (s *slotting) setRights(ctx context.Context) error {
	err := s.as(ctx, OwnerRole, func(ctx context.Context) error {
		return s.exec(ctx, "GRANT CONNECT ON DATABASE "+quote(s.database)+" TO "+SwitcherRole+", "+strings.Join(s.existing, ", "))
	})
	if err != nil {
		return err
	}
	if err := s.exec(ctx, "GRANT USAGE ON SCHEMA docex_system TO "+SwitcherRole); err != nil || !s.superuser {
		return err
	}
	// Light hardening takes them from PUBLIC. The switcher looks at each slot before a tenant gets it, and so do the
	// functions, which run as whoever made them first.
	owners, err := s.functionOwners(ctx)
	if err != nil {
		return err
	}
	sql := "GRANT SELECT ON pg_catalog.pg_auth_members, pg_catalog.pg_db_role_setting TO " + strings.Join(append([]string{SwitcherRole}, owners...), ", ")
	if len(owners) > 0 { // and what a superuser has made since
		sql += ";\nGRANT USAGE ON SCHEMA docex_system TO " + strings.Join(owners, ", ") +
			";\nGRANT SELECT, UPDATE ON docex_system.slot_tenant TO " + strings.Join(owners, ", ") +
			";\nGRANT UPDATE ON SEQUENCE docex_system." + strings.Join(s.existing, ", docex_system.") + " TO " + strings.Join(owners, ", ")
	}
	return s.exec(ctx, sql)
}

// functionOwners lists, quoted, those who are no superusers and so may need rights.
func (s *slotting) functionOwners(ctx context.Context) ([]string, error) {
	rows, err := s.tx.Query(ctx, `
SELECT DISTINCT quote_ident(rolname) FROM pg_proc JOIN pg_roles AS r ON r.oid = proowner
 WHERE pronamespace = 'docex_system'::regnamespace AND proname IN ('renew_slot', 'seat') AND NOT rolsuper`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// check sees to it that the switcher will work: a GRANT without the right to grant is a warning for Postgres.
func (s *slotting) check(ctx context.Context) error {
	var rights, inherits bool
	err := s.tx.QueryRow(ctx, `
SELECT has_schema_privilege($1, 'docex_system', 'USAGE')
   AND has_function_privilege($1, 'docex_system.renew_slot(integer, text)', 'EXECUTE')
   AND has_function_privilege($1, 'docex_system.seat(text, integer, boolean)', 'EXECUTE')
   AND has_table_privilege($1, 'pg_catalog.pg_auth_members', 'SELECT')
   AND has_table_privilege($1, 'pg_catalog.pg_db_role_setting', 'SELECT')
   AND (SELECT bool_and(has_database_privilege(name, current_database(), 'CONNECT')) FROM unnest($2::text[]) AS needed (name))
   AND (SELECT bool_and(has_table_privilege(proowner, to_regclass(name), 'SELECT')) -- NULL of a registry that is elsewhere
          FROM pg_proc, (VALUES ('pg_catalog.pg_auth_members'), ('pg_catalog.pg_db_role_setting'), ('docex_system.tenant_route'),
                                ('docex_system.slot_tenant')) AS r (name)
         WHERE pronamespace = 'docex_system'::regnamespace AND proname IN ('renew_slot', 'seat'))
   AND (SELECT bool_and(has_table_privilege(proowner, 'docex_system.slot_tenant', 'UPDATE') AND has_sequence_privilege(proowner, 'docex_system.' || name, 'UPDATE'))
          FROM pg_proc, unnest($3::text[]) AS slot (name) WHERE pronamespace = 'docex_system'::regnamespace AND proname = 'seat'),
       (SELECT rolinherit FROM pg_roles WHERE rolname = $1)`, SwitcherRole, append([]string{SwitcherRole}, s.existing...), s.existing).
		Scan(&rights, &inherits)
	switch {
	case err != nil:
		return err
	case inherits:
		return &ConflictError{Object: "role", Name: SwitcherRole, Reason: "inherits the rights of tenants' roles: ALTER ROLE it to NOINHERIT"}
	case !rights:
		return fmt.Errorf("role %s, a slot or the owner of docex_system.seat() did not get its rights in database %q: "+
			"run `docexctl init --slots N` as a superuser", SwitcherRole, s.database)
	}
	return nil
}

// lendToSlots lets seat() lend the tenant's role to the slots.
func (c *creation) lendToSlots(ctx context.Context) error {
	_, abroad := c.at(c.tenant.Route.Server)
	if c.show != nil { // a dry run that does not look at the other server
		c.show("-- docex_switcher and " + SlotPrefix + "1 to " + strconv.Itoa(defaultSlots) + ", unless there are slots")
		return c.list(ctx)
	}
	if abroad {
		if err := c.checkSwitcher(ctx, c.key); err != nil {
			return err
		}
	}
	if err := c.prepareFirstSlots(ctx, abroad); err != nil {
		return err
	}
	var owner string
	var can bool
	err := c.tx.QueryRow(ctx, `
SELECT rolname, rolsuper OR rolcreaterole AND $2 OR pg_has_role(r.oid, $1, 'MEMBER WITH ADMIN OPTION')
  FROM pg_proc JOIN pg_roles AS r ON r.oid = proowner
 WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'docex_system') AND proname = 'seat'`,
		c.tenant.Route.Role, c.version < membershipOptions).Scan(&owner, &can)
	if err == nil && !can {
		err = fmt.Errorf("role %q, which owns docex_system.seat(), may not grant role %q: create the tenant as it or as a superuser",
			owner, c.tenant.Route.Role)
	}
	if err != nil || !abroad {
		return err
	}
	return c.list(ctx)
}

// list has slots lent to the tenant though no registry here knows it.
func (c *creation) list(ctx context.Context) error {
	return c.as(ctx, OwnerRole, func(ctx context.Context) error {
		return c.exec(ctx, "INSERT INTO docex_system.slot_tenant VALUES ("+quoteLiteral(c.tenant.Route.Role)+") ON CONFLICT DO NOTHING")
	})
}

// checkSwitcher refuses a key that is not the one of a switcher that there is: another registry's, say.
func (w *work) checkSwitcher(ctx context.Context, key secret.Key) error {
	exists, err := w.roleExists(ctx, systemRole{SwitcherRole, true})
	if err != nil || !exists {
		return err
	}
	return w.checkKey(ctx, key, SwitcherRole)
}

// prepareFirstSlots does for the first tenant at level slot what Init does when it is asked for slots.
func (c *creation) prepareFirstSlots(ctx context.Context, abroad bool) error {
	prepared, slots, err := c.slotsPrepared(ctx)
	if err != nil || prepared {
		return err
	}
	if slots == 0 { // otherwise they are another registry's in this cluster, and enough
		slots = defaultSlots
	}
	created, _, err := c.prepareSlots(ctx, c.key, slots)
	if err != nil || abroad { // where the audit trail is not
		return err
	}
	var detail rolesDetail
	detail.RolesCreated, detail.SlotsCreated = withoutSlots(created)
	return c.as(ctx, OwnerRole, func(ctx context.Context) error {
		return registry.InsertEvent(ctx, c.tx, registry.SystemTenantID, "init", c.tenant.CreatedBy, detail)
	})
}

// rolesDetail is what the audit trail holds of roles that were made: of slots their number, of others the names.
type rolesDetail struct {
	RolesCreated []string `json:"roles_created,omitempty"`
	SlotsCreated int      `json:"slots_created,omitempty"`
	RolesRekeyed int      `json:"roles_rekeyed,omitempty"`
	RightsTaken  int      `json:"rights_taken,omitempty"`
}

// withoutSlots splits the names of roles into those that are no slots, and the number of slots.
func withoutSlots(roles []string) (others []string, slots int) {
	for _, role := range roles {
		if strings.HasPrefix(role, SlotPrefix) {
			slots++
		} else {
			others = append(others, role)
		}
	}
	return others, slots
}
