package registry

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Peer is a proxy that serves the registry, and was seen within the last 15 seconds.
type Peer struct {
	Number  int    // 1 to 1023
	Address string // where it takes connections, HOST:PORT
	Own     bool   // it is the one that asked
}

// Beat says that a proxy is alive, and reads which are. The token is the process's own, 16 to 64 characters, and nobody
// else's: the first beat gives it a number. A registry whose tables are older has no function for it (SQLSTATE 42883).
func (s *Store) Beat(ctx context.Context, token, address string) ([]*Peer, error) {
	rows, err := s.pool.Query(ctx, `SELECT instance, address, own FROM docex_system.proxy_beat($1, $2)`, token, address)
	if err != nil {
		return nil, readError(err)
	}
	peers, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[Peer])
	if err != nil {
		return nil, readError(err)
	}
	return peers, nil
}

// Leave says that a proxy ends.
func (s *Store) Leave(ctx context.Context, token string) error {
	if _, err := s.pool.Exec(ctx, `SELECT docex_system.proxy_leave($1)`, token); err != nil {
		return readError(err)
	}
	return nil
}
