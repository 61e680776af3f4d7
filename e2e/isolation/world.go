package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// world is everything that belongs to others than the hostile tenant, one line a thing. The superuser reads it before
// and after each case; a difference is a change that the attack has made.
type world map[string]bool

// everywhere is read in every database: the cluster's part comes twice, which does not matter. The password, the
// settings and the large objects of a slot belong to whoever is on it: what must not come of them is for the victim's next sessions to find.
const everywhere = `
SELECT concat_ws(' ', 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
       rolconnlimit, CASE WHEN rolname <> '{alpha role}' AND rolname !~ '{slots}' THEN md5(rolpassword) END) FROM pg_authid
UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole, admin_option) FROM pg_auth_members
UNION ALL SELECT concat_ws(' ', 'setting', setdatabase, setrole::regrole, setconfig) FROM pg_db_role_setting
          WHERE setrole::regrole::text <> '{alpha role}' AND setrole::regrole::text !~ '{slots}'
UNION ALL SELECT concat_ws(' ', 'database', datname, datdba::regrole, datacl) FROM pg_database
UNION ALL SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT concat_ws(' ', 'relation', n.nspname, relname, relkind, relowner::regrole, relacl)
          FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname !~ '^pg_(toast|temp)' AND nspname <> '{alpha}'
UNION ALL SELECT concat_ws(' ', 'function', n.nspname, md5(string_agg(concat_ws(' ', p.oid, proname, prosrc, proowner, proacl, proconfig), ',' ORDER BY p.oid)))
          FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname !~ '^pg_(toast_)?temp' AND nspname <> '{alpha}' GROUP BY nspname
UNION ALL SELECT concat_ws(' ', 'operator', n.nspname, count(*)) FROM pg_operator JOIN pg_namespace n ON n.oid = oprnamespace
          WHERE nspname <> '{alpha}' GROUP BY nspname
UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname) FROM pg_trigger WHERE NOT tgisinternal
          AND tgrelid NOT IN (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = '{alpha}')
UNION ALL SELECT concat_ws(' ', 'cast', castsource::regtype, casttarget::regtype, castfunc) FROM pg_cast
UNION ALL SELECT concat_ws(' ', 'extension', extname, extowner::regrole) FROM pg_extension
UNION ALL SELECT concat_ws(' ', 'event trigger', evtname) FROM pg_event_trigger
UNION ALL SELECT concat_ws(' ', 'publication', pubname) FROM pg_publication
UNION ALL SELECT concat_ws(' ', 'subscription', subname) FROM pg_subscription
UNION ALL SELECT concat_ws(' ', 'slot', slot_name) FROM pg_replication_slots
UNION ALL SELECT concat_ws(' ', 'server setting', name, setting) FROM pg_file_settings`

const victimsWorld = `
SELECT concat_ws(' ', 'row', id, body) FROM {beta}.canary
UNION ALL SELECT concat_ws(' ', 'row', body) FROM {beta}.shared_name
UNION ALL SELECT concat_ws(' ', 'sequence', last_value, is_called) FROM {beta}.canary_id_seq
UNION ALL SELECT concat_ws(' ', 'large object', oid, lomowner::regrole, lomacl, md5(lo_get(oid))) FROM pg_largeobject_metadata
          WHERE lomowner::regrole::text <> '{alpha role}' AND lomowner::regrole::text !~ '{slots}'
UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass, attname, atttypid::regtype, attisdropped, attacl) FROM pg_attribute
          WHERE attrelid IN (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = '{beta}') AND attnum > 0`

const registryWorld = `
SELECT concat_ws(' ', 'registered', to_jsonb(t)) FROM docex_system.tenant_registry t
UNION ALL SELECT concat_ws(' ', 'route', tenant_id, status, isolation, server, database_name, role_name, secret_generation, limits) FROM docex_system.tenant_route
UNION ALL SELECT concat_ws(' ', 'login', to_jsonb(t)) FROM docex_system.proxy_login t
UNION ALL SELECT concat_ws(' ', 'login', to_jsonb(t)) FROM docex_system.proxy_login_tenant t`

func (a *arena) world(ctx context.Context) (world, error) {
	w := make(world)
	for _, source := range []struct {
		read func(context.Context, string) ([][]string, error)
		sql  string
	}{{a.superuser, everywhere}, {a.superuser, victimsWorld}, {a.registry, everywhere}, {a.registry, registryWorld}} {
		rows, err := source.read(ctx, source.sql)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			w[row[0]] = true
		}
	}
	return w, nil
}

// worldAfter is the world when no switch of a slot is under way, as one of a session that still waits may be: a slot is a
// member of the tenant's role for that moment. One that stays is a leak.
func (a *arena) worldAfter(ctx context.Context, before world) (after world, err error) {
	for range 20 {
		after, err = a.world(ctx)
		if err != nil || !after.switching(before) {
			return after, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return after, nil
}

// switching reports whether slots have memberships that they did not have before.
func (w world) switching(before world) bool {
	for line := range w {
		if !before[line] && strings.HasPrefix(line, "member ") && strings.Contains(line, " docex_slot_") {
			return true
		}
	}
	return false
}

// compare records what has changed.
func (t *trial) compare(before, after world) {
	for _, line := range slices.Sorted(maps.Keys(before)) {
		if !after[line] {
			t.leak("gone: %s", short(line))
		}
	}
	for _, line := range slices.Sorted(maps.Keys(after)) {
		if !before[line] {
			t.leak("new: %s", short(line))
		}
	}
}

// short is a line as the report can show it: the canaries stay out of it.
func short(line string) string {
	words := strings.Fields(line)
	return strings.Join(words[:min(4, len(words))], " ")
}
