package registry

import (
	"fmt"
	"time"
)

// Limits are a tenant's own bounds; zero means that the proxy's default holds. Stored as one jsonb object.
type Limits struct {
	MaxServerConnections int      `json:"max_server_connections,omitempty"`
	MaxClients           int      `json:"max_clients,omitempty"`
	PoolMode             PoolMode `json:"pool_mode,omitempty"` // of sessions that do not say; "": transaction
	Rate                 float64  `json:"rate,omitempty"`      // transactions a second, on each proxy
	QueueWait            Duration `json:"queue_wait,omitempty"`
	Query                Duration `json:"query,omitempty"`
	Transaction          Duration `json:"transaction,omitempty"`
	IdleTransaction      Duration `json:"idle_transaction,omitempty"`
	ClientIdle           Duration `json:"client_idle,omitempty"`
}

// LimitNames are the keys of the stored object.
var LimitNames = [...]string{"max_server_connections", "max_clients", "pool_mode", "rate", "queue_wait", "query", "transaction",
	"idle_transaction", "client_idle"}

// Check says what of the limits makes no sense.
func (l Limits) Check() error {
	switch {
	case l.MaxServerConnections < 0, l.MaxClients < 0, !(l.Rate >= 0),
		min(l.QueueWait, l.Query, l.Transaction, l.IdleTransaction, l.ClientIdle) < 0:
		return fmt.Errorf("a limit is 0, for the proxy's own, or more")
	case l.Rate > maxRate:
		return fmt.Errorf("a rate is at most %d transactions a second", maxRate)
	case l.PoolMode != "" && l.PoolMode != PoolTransaction && l.PoolMode != PoolSession:
		return fmt.Errorf("the pool modes are %s and %s, not %q", PoolTransaction, PoolSession, l.PoolMode)
	}
	return nil
}

// maxRate is more than any server does, and less than what would overflow anything.
const maxRate = 1_000_000_000

// Duration is a time.Duration that is written like one: 1.5s.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// PoolMode is for how long a session keeps a server connection.
type PoolMode string

// The pool modes.
const (
	PoolTransaction PoolMode = "transaction"
	PoolSession     PoolMode = "session"
)
