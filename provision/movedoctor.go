package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// moves are those that nobody goes on with, and copies that have been kept for long enough. A run that is under way holds
// the tenant's lock.
func (d *diagnosis) moves(ctx context.Context) error {
	known, err := d.knowsMoves(ctx)
	if err != nil {
		return err
	}
	if !known {
		d.find("", "registry", "has no table docex_system.tenant_move: an older version has made it", "`docexctl init`")
		return nil
	}
	rows, err := d.tx.Query(ctx, registry.SelectMoves+`
 WHERE finished_at IS NULL AND (step <> 'kept' OR (detail->>'kept_until')::timestamptz < $1)
   AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND classid = $2::bigint::oid AND objid = (hashtext(tenant_id)::bigint & 4294967295)::oid AND objsubid = 2)
 ORDER BY tenant_id`, d.now().UTC().Format(time.RFC3339), int64(tenantLockClass))
	if err != nil {
		return err
	}
	moves, err := pgx.CollectRows(rows, registry.ScanMove)
	if err != nil {
		return err
	}
	for _, m := range moves {
		verb := "`docexctl tenant move " + string(m.Tenant) + " "
		switch m.Step {
		case registry.MoveKept, registry.MoveFinishing:
			d.find(m.Tenant, "move", fmt.Sprintf("has a closed copy on server %q, which has been kept for long enough", m.From), verb+"--finish`")
		case registry.MoveAborting:
			d.find(m.Tenant, "move", fmt.Sprintf("has something left on server %q from a move that was being taken back", m.To), verb+"--abort`")
		default:
			d.find(m.Tenant, "move", fmt.Sprintf("is on its way to server %q, at step %q, and nobody goes on with it", m.To, m.Step),
				verb+"--to "+m.To+"` goes on, "+verb+"--abort` takes it back")
		}
	}
	return nil
}
