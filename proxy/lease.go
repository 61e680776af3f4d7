package proxy

import (
	"context"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

// giveBack ends a lease that leaves the connection fit for others of its tenant.
func giveBack(conn *pool.Conn) {
	if state, ok := conn.State.(*serverState); ok {
		if state.machine.Strayed() {
			conn.Unsettle()
		}
		conn.Report(state.machine.Kind())
	}
	conn.Release()
}

// abandonTimeout bounds the cancel request for a query whose client has gone.
const abandonTimeout = 2 * time.Second

// discard closes the connection of a session that has ended on it. What runs there is canceled.
func discard(ctx context.Context, conn *pool.Conn, busy bool) {
	if busy {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
		defer stop()
		conn.Cancel(ctx) //nolint:errcheck // the query then runs to its end, as without a proxy
	}
	conn.Destroy()
}

// cancelPause lies between two looks whether a statement of ours is over. It takes less than a millisecond as a rule.
const cancelPause = 500 * time.Microsecond

// cancelLater tries again to pass a cancel request on. Whoever sent it waits meanwhile, as for a server that is slow to
// take it.
func cancelLater(ctx context.Context, d driver) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(cancelPause):
		return d.cancel(ctx)
	}
}
