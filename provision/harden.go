package provision

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Hardening is how much of Postgres's catalogs Init takes away from PUBLIC. It concerns the registry's database and
// the databases of tenants that are created later.
type Hardening string

// The degrees of hardening.
const (
	HardenNone  Hardening = "none"  // leave the catalogs as they are
	HardenLight Hardening = "light" // hide activity, settings, memberships and row counts of others
)

// What light hardening takes SELECT on, and EXECUTE on. pg_locks and pg_lock_status() are not among them: the proxy
// asks, as the tenant, whether a session holds an advisory lock and so must keep its connection.
var (
	hardenedViews = [...]string{
		"pg_stat_activity", "pg_db_role_setting", "pg_auth_members", "pg_largeobject_metadata", "pg_prepared_xacts",
		"pg_shdescription", "pg_stat_database", "pg_stat_ssl", "pg_stat_replication", "pg_stat_all_tables",
		"pg_stat_user_tables", "pg_stat_all_indexes", "pg_stat_user_indexes", "pg_statio_all_tables",
	}
	// By name: pg_logical_emit_message has gained an argument, and may not be the last.
	hardenedFunctions = [...]string{
		"pg_stat_get_activity", "pg_prepared_xact", "pg_stat_get_backend_idset", "pg_stat_get_live_tuples",
		"pg_stat_get_tuples_inserted", "pg_export_snapshot", "pg_notify", "pg_logical_emit_message", "lo_creat",
		"lo_create", "lo_from_bytea",
	}
)

// publicRights lists what PUBLIC may still do of what light hardening takes away, as GRANT and REVOKE spell it.
func (w *work) publicRights(ctx context.Context) ([]string, error) {
	rows, err := w.tx.Query(ctx, `
SELECT 'SELECT ON pg_catalog.' || relname FROM pg_class
 WHERE relnamespace = 'pg_catalog'::regnamespace AND relname = ANY ($1) AND has_table_privilege('public', oid, 'SELECT')
UNION ALL
SELECT 'EXECUTE ON FUNCTION pg_catalog.' || oid::regprocedure FROM pg_proc
 WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ($2) AND has_function_privilege('public', oid, 'EXECUTE')
 ORDER BY 1`, hardenedViews[:], hardenedFunctions[:])
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// harden takes them away and returns how many there were. Rights that somebody has been granted by name stay.
func (w *work) harden(ctx context.Context) (int, error) {
	if w.show != nil { // there is no catalog to read: it is the one of a database that does not exist
		w.show("-- light hardening, as `docexctl init --harden light` does it in the registry's database")
		return 0, nil
	}
	rights, err := w.publicRights(ctx)
	if err != nil {
		return 0, err
	}
	var sql strings.Builder
	for _, right := range rights {
		fmt.Fprintf(&sql, "REVOKE %s FROM PUBLIC;\n", right)
	}
	// Provisioning reads its own marks. That this right is granted by name also says that the database is hardened.
	sql.WriteString("GRANT SELECT ON pg_catalog.pg_shdescription TO " + OwnerRole)
	if err := w.exec(ctx, sql.String()); err != nil {
		return 0, err
	}
	// To a role whom the catalogs do not belong to, Postgres answers a REVOKE with a warning.
	left, err := w.publicRights(ctx)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("role %q could not take %s away from PUBLIC in database %q: only a superuser can harden a database",
			w.user, left[0], w.database)
	}
	return len(rights), err
}

// hardened reports whether harden has run in the database. It does not look for the rights themselves: one of them
// may have been given back to PUBLIC for some reason, which does not hold for other databases.
func (w *work) hardened(ctx context.Context) (hardened bool, err error) {
	err = w.tx.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
                WHERE pg_class.oid = 'pg_catalog.pg_shdescription'::regclass AND r.rolname = $1)`, OwnerRole).Scan(&hardened)
	return hardened, err
}
