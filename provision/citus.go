package provision

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"

	"github.com/docex-proxy/docex-proxy/registry"
)

// A server that is marked as Citus, of version 12 or later, keeps all tables of a tenant's schema on one of its nodes, and moves
// them between nodes by itself: schema-based sharding, https://docs.citusdata.com/en/v12.1/develop/api_udf.html, functions
// citus_schema_distribute(regnamespace) and citus_schema_move(regnamespace, text, integer, citus.shard_transfer_mode). Proxies
// talk to its coordinator as to any server.

// CitusMoveRequest asks for a tenant on another node of the Citus cluster that it is on.
type CitusMoveRequest struct {
	ID    registry.TenantID
	Node  string // HOST:PORT, as Citus's pg_dist_node has it
	Actor string // "": "cli_user"
}

// MoveWithinCitus has Citus move a tenant's schema to another of its nodes, and writes the audit trail. The route stays: it leads
// to the coordinator. It returns the server's name.
//
// Errors: *InvalidRequestError, ErrNotFound, *ConflictError for a tenant that cannot be moved now or a server that lacks Citus,
// ErrNotInitialised, what Citus said.
func (p *Provisioner) MoveWithinCitus(ctx context.Context, r CitusMoveRequest) (server string, err error) {
	host, text, err := net.SplitHostPort(r.Node)
	port, numberErr := strconv.ParseUint(text, 10, 16)
	if err != nil || numberErr != nil || host == "" {
		return "", invalid("a node of Citus is HOST:PORT, not %q", r.Node)
	}
	m, err := p.beginMove(ctx, MoveRequest{ID: r.ID, Actor: r.Actor})
	if err != nil {
		return "", err
	}
	defer m.close(ctx)
	server = m.tenant.Route.Server
	switch status := m.tenant.Route.Status; {
	case !p.isCitus(server):
		return "", invalid("server %q, where tenant '%s' is, is not marked as Citus: --server-citus %[1]s does that", server, r.ID)
	case m.record != nil:
		return "", m.conflict("has something left of a move between servers: `docexctl tenant move %s --finish`, or --abort", r.ID)
	case status != registry.StatusActive && status != registry.StatusSuspended:
		return "", m.conflict("is %s: it is not moved%s", status, remedy(status))
	}
	m.source = m.endAt(server)
	s, err := m.source.enter(ctx)
	if err != nil {
		return "", err
	}
	if err := s.transact(ctx, func(w *work) error { return w.refuseWithoutCitus(ctx, server, "citus_schema_move") }); err != nil {
		return "", err
	}
	// By itself: Citus moves shards by logical replication, in transactions of its own, and wants nothing to be under way.
	err = s.exec(ctx, fmt.Sprintf("SELECT citus_schema_move(%s::regnamespace, %s, %d)", quoteLiteral(quote(m.tenant.SchemaName)), quoteLiteral(host), port))
	if err != nil {
		return "", m.source.wrap(err)
	}
	err = m.home.transact(ctx, func(w *work) error {
		return w.as(ctx, OwnerRole, func(ctx context.Context) error {
			return registry.InsertEvent(ctx, w.tx, r.ID, "citus_move", m.request.Actor, struct {
				Server string `json:"server"`
				Node   string `json:"node"`
			}{server, r.Node})
		})
	})
	if err != nil {
		return "", fmt.Errorf("the tenant has been moved to %s, but the audit trail does not say so: %w", r.Node, err)
	}
	p.logger.Info("tenant moved within Citus", slog.String("tenant", string(r.ID)), slog.String("server", server), slog.String("node", r.Node))
	return server, nil
}

// isCitus reports whether a server is marked.
func (p *Provisioner) isCitus(server string) bool { return slices.Contains(p.citus, server) }

// lookForCitus refuses a server that is marked and has no such function, before anything is made.
func (c *creation) lookForCitus(ctx context.Context) error {
	server := c.tenant.Route.Server
	there, abroad := c.at(server)
	switch {
	case !c.isCitus(server) || c.dryRun != nil:
		return nil
	case !abroad:
		return c.refuseWithoutCitus(ctx, server, "citus_schema_distribute")
	}
	s, err := there.openStarted(ctx, c.tenant.Route.Database, c.database)
	if hasCode(err, undefinedDatabase) {
		return citusConflict(server, fmt.Sprintf("has no database %q: make it, and the extension citus in it, on all nodes", c.tenant.Route.Database))
	}
	if err != nil {
		return fmt.Errorf("server %q: %w", server, err)
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error { return w.refuseWithoutCitus(ctx, server, "citus_schema_distribute") })
}

// refuseWithoutCitus also refuses a session's role that is no superuser: Citus takes the owner of the schema and of its tables,
// which are two.
func (w *work) refuseWithoutCitus(ctx context.Context, server, function string) error {
	var there bool
	err := w.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_proc WHERE proname = $1 AND pronamespace = 'pg_catalog'::regnamespace)`, function).Scan(&there)
	switch {
	case err != nil:
		return err
	case !there:
		return citusConflict(server, fmt.Sprintf("has no function %s() in database %q: CREATE EXTENSION citus there, of version 12.1 or later", function, w.database))
	case !w.superuser:
		return citusConflict(server, fmt.Sprintf("has to be reached as a superuser, which role %q is not: the schema is %s's, and its tables are the tenant's", w.user, OwnerRole))
	}
	return nil
}

func citusConflict(server, reason string) error {
	return &ConflictError{Object: "server", Name: server, Reason: "is marked as Citus, and " + reason}
}

// distribute has Citus keep the tenant's schema, which is complete by now, on one of its nodes.
func (c *creation) distribute(ctx context.Context) error {
	if !c.isCitus(c.tenant.Route.Server) {
		return nil
	}
	sql := "SELECT citus_schema_distribute(" + quoteLiteral(quote(c.tenant.SchemaName)) + "::regnamespace)"
	if c.dryRun != nil { // what it does on other nodes is not tried out
		c.dryRun(shown(sql))
		return nil
	}
	return c.exec(ctx, sql)
}
