//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// target is what clients connect to.
type target struct {
	name       string
	host, port string
	pid        int // of the pooler, 0 for Postgres itself
	user       func(tenant string) string
	password   func(tenant string) string
}

// loginPatience bounds one login. A pooler that has to make room first takes its time.
const loginPatience = 60 * time.Second

func (t *target) dsn(tenant string) string {
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable", t.host, t.port, t.user(tenant), t.password(tenant), database)
}

// dial logs in, and returns the bare connection. Which dialect of SCRAM, and what the server says besides, is left to
// the driver.
func (t *target) dial(ctx context.Context, tenant string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, t.dsn(tenant))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	if err := conn.SyncConn(ctx); err != nil { // the driver may be reading in the background
		conn.Conn().Close()
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		conn.Conn().Close()
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return hijacked.Conn, nil
}
