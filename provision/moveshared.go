package provision

import "context"

// clearShared drops what bears the mark on the new server.
func (m *move) clearShared(ctx context.Context) error {
	s, err := m.target.enter(ctx)
	if err != nil {
		return err
	}
	return m.target.wrap(m.target.purge(m, &s.work).clearShared(ctx, s))
}

// purge drops what is at this end, by the code that purges tenants.
func (e *end) purge(m *move, w *work) *purge {
	return &purge{
		work: w, Provisioner: m.Provisioner, request: PurgeRequest{ID: e.id, Actor: m.request.Actor},
		schema: e.schema, database: e.database, role: e.role, server: e.server, own: e.own,
	}
}

// markRole marks the role on the new server as one that has never been in use.
func (m *move) markRole(w *work) func(context.Context) error {
	return func(ctx context.Context) error {
		return w.exec(ctx, "COMMENT ON ROLE "+quote(m.target.role)+" IS "+quoteLiteral(roleMark(m.request.ID, m.target.registry, m.target.database)))
	}
}
