package provision

import (
	"context"
	"fmt"
	"strings"
)

// examine refuses what cannot be moved, before anything is made.
func (m *move) examine(ctx context.Context) error {
	if m.examined {
		return nil
	}
	m.examined = true
	m.say("look at both servers", 0, 0)
	from, err := m.source.look(ctx)
	if err != nil {
		return err
	}
	to, err := m.target.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case from.system == to.system:
		return invalid("servers %q and %q are one: both have the system identifier %s", m.source.server, m.target.server, from.system)
	case from.level != "logical":
		return invalid("server %q has wal_level = %s: set wal_level = logical in its configuration and restart it", m.source.server, from.level)
	case to.version/10000 < from.version/10000:
		return invalid("server %q is Postgres %d and server %q is %d: a tenant is not moved to an older version",
			m.source.server, from.version/10000, m.target.server, to.version/10000)
	case from.slots < 1+slotsToCopy:
		return m.conflict("needs %d replication slots on server %q, and %d are free: raise max_replication_slots and max_wal_senders", 1+slotsToCopy, m.source.server, from.slots)
	}
	return m.examineTenant(ctx)
}

// slotsToCopy are those that Postgres makes beside the subscription's own, one for each table that it copies at a time.
const slotsToCopy = 2

// condition is what a move needs to know of a server.
type condition struct {
	system, level  string
	version, slots int
}

func (e *end) look(ctx context.Context) (c condition, err error) {
	s, err := e.administer(ctx)
	if err != nil {
		return c, err
	}
	if !s.work.superuser {
		return c, invalid("role %q is no superuser on server %q: a subscription takes one", s.work.user, e.server)
	}
	err = s.conn.QueryRow(ctx, `
SELECT system_identifier::text, current_setting('wal_level'), current_setting('server_version_num')::integer,
       least(current_setting('max_replication_slots')::integer - (SELECT count(*) FROM pg_replication_slots),
             current_setting('max_wal_senders')::integer - (SELECT count(*) FROM pg_stat_replication))
  FROM pg_control_system()`).Scan(&c.system, &c.level, &c.version, &c.slots)
	if err == nil && c.version < oldestServer {
		err = invalid("server %q is too old: it has to be Postgres %d at least", e.server, oldestServer/10000)
	}
	return c, e.wrap(err)
}

// examineTenant is about what the tenant has made.
func (m *move) examineTenant(ctx context.Context) error {
	var here bool
	err := m.source.row(ctx, []any{&here}, `
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) AND EXISTS (SELECT FROM pg_roles WHERE rolname = $2)`, m.source.schema, m.source.role)
	if err != nil {
		return err
	}
	if !here {
		return m.conflict("is not in database %q of this server: say with --server-dsn how server %q is reached", m.source.database, m.source.server)
	}
	if err := m.source.refuseUnrecorded(ctx); err != nil {
		return err
	}
	for _, look := range []struct{ sql, reason, remedy string }{
		{`SELECT count(*)::text || ' large objects' FROM pg_largeobject_metadata WHERE lomowner = to_regrole(quote_ident($2)) AND $1 <> '' HAVING count(*) > 0`,
			"has %s, which are not replicated", "export and unlink them"},
		{`SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
		   WHERE nspname = $1 AND $2 <> '' AND relkind IN ('r', 'p') AND relpersistence = 'u'`,
			"has unlogged tables, which are not replicated: %s", "ALTER TABLE … SET LOGGED, or drop them"},
		{`SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1 AND $2 <> '' AND relkind = 'f'`,
			"has foreign tables, which are not replicated: %s", "drop them"},
		{`SELECT c.oid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod)
		    FROM (` + withoutIdentity + `) AS c (oid, identity) JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
		   WHERE $2 <> '' AND NOT EXISTS (SELECT FROM pg_opclass JOIN pg_am AS a ON a.oid = opcmethod
		          WHERE opcdefault AND amname IN ('btree', 'hash') AND (opcintype = atttypid OR EXISTS (
		                SELECT FROM pg_type AS t WHERE t.oid = atttypid AND (opcintype = t.typbasetype OR typtype = 'e' AND opcintype = 'anyenum'::regtype
		                   OR typtype = 'r' AND opcintype = 'anyrange'::regtype OR typtype = 'm' AND opcintype = 'anymultirange'::regtype OR typtype = 'c' AND opcintype = 'record'::regtype
		                   OR typcategory = 'A' AND opcintype = 'anyarray'::regtype) OR EXISTS (
		                SELECT FROM pg_cast WHERE castsource = atttypid AND casttarget = opcintype AND castmethod = 'b' AND castcontext = 'i'))))`,
			"has tables without a primary key, with columns by which their rows cannot be told apart: %s", "give them a primary key"},
		{`SELECT format('%s to %s', castsource::regtype, casttarget::regtype) FROM pg_cast AS k JOIN pg_type AS s ON s.oid = castsource JOIN pg_type AS t ON t.oid = casttarget
		   WHERE (SELECT oid FROM pg_namespace WHERE nspname = $1) IN (s.typnamespace, t.typnamespace) AND $2 <> ''`,
			"has made casts, which pg_dump does not take by schema: %s", "drop them, and make them again on the new server"},
		{`SELECT DISTINCT g::regrole::text || ' on ' || what FROM (
		         SELECT c.oid::regclass::text, a.grantee FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace, aclexplode(relacl) AS a WHERE nspname = $1
		   UNION SELECT c.oid::regclass::text, a.grantee FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace JOIN pg_attribute ON attrelid = c.oid, aclexplode(attacl) AS a WHERE nspname = $1
		   UNION SELECT p.oid::regprocedure::text, a.grantee FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace, aclexplode(proacl) AS a WHERE nspname = $1
		   UNION SELECT t.oid::regtype::text, a.grantee FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = typnamespace, aclexplode(typacl) AS a WHERE nspname = $1) AS granted (what, g)
		   WHERE g <> 0 AND g <> to_regrole(quote_ident($2))`,
			"has given rights to other roles, which server " + fmt.Sprintf("%q", m.target.server) + " need not have: %s", "REVOKE them"},
		{`SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
		   WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relowner IS DISTINCT FROM to_regrole(quote_ident($2))`,
			"has tables in its schema that are not its own: %s", "ALTER … OWNER TO its role"},
	} {
		found, err := m.source.texts(ctx, look.sql, m.source.schema, m.source.role)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return m.conflict(look.reason+": %s", strings.Join(found[:min(mostNamed, len(found))], ", "), look.remedy)
		}
	}
	return nil
}

// refuseUnrecorded refuses a database where nobody says whom slots are lent to: an older version has prepared it.
func (e *end) refuseUnrecorded(ctx context.Context) error {
	if !e.seated {
		return nil
	}
	var recorded bool
	err := e.row(ctx, []any{&recorded}, `SELECT to_regclass('docex_system.slot_tenant') IS NOT NULL`)
	if err == nil && !recorded {
		err = invalid("database %q on server %q was prepared for isolation level slot by an older version: run `docexctl init` once more", e.database, e.server)
	}
	return err
}
