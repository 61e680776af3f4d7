package pool

import (
	"errors"
	"fmt"
	"time"
)

// ErrClosed is returned by Acquire after Close.
var ErrClosed = errors.New("pool: closed")

// ErrBlocks is Ask's answer where only Acquire can help.
var ErrBlocks = errors.New("pool: a connection has to be waited for")

var (
	errUnknownServer = errors.New("no such server is configured")
	// errNoPassword names the key of the configuration, because whoever reads it in the log looks for what to do.
	errNoPassword = errors.New("the server asks for a password, and there is none: " +
		"set master_key_file, or have the server let the proxy in by certificate or peer")
)

// ConnectError says that a server connection could not be opened. A *pgconn.PgError is in its chain when the server
// itself refused.
type ConnectError struct {
	Server string
	Err    error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("pool: connecting to server %q: %v", e.Server, e.Err)
}

func (e *ConnectError) Unwrap() error { return e.Err }

// QueueError says that the context of an Acquire ended before a server connection was to be had. Err is the
// context's cause.
type QueueError struct {
	Waited time.Duration
	Err    error
}

func (e *QueueError) Error() string {
	return fmt.Sprintf("pool: no server connection after %v: %v", e.Waited.Round(time.Millisecond), e.Err)
}

func (e *QueueError) Unwrap() error { return e.Err }
