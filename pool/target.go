package pool

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/metrics"
)

// Target says what a server connection is: where it leads, as whom, for which tenant. It is comparable; equal targets
// have the same connections, and two that differ in anything have different ones, unless both are Shared.
type Target struct {
	Server     string // a key of Options.Servers
	Database   string
	Role       string // the login role
	Generation int    // of the role's derived password
	SearchPath string // as a value of the run-time parameter; "" leaves the role's own
	Tenant     string // the label of the metrics

	// Shared connections of the same Server, Database, Role and Generation pass from one target to another, as they
	// are: whoever leases one brings it to its tenant before the first byte. SearchPath is not sent at start-up then.
	Shared bool

	// Slot connections pass between targets of the same Server and Database. Each logs in as a role of its own without
	// rights, and is made Role's, and nobody else's, before the lease begins: see package slots. Neither Role's password
	// nor SearchPath is used.
	Slot bool
}

// passes reports whether the target's connections pass to others.
func (t Target) passes() bool { return t.Shared || t.Slot }

// Server is one Postgres server, on one host or on several of which one takes another's place.
type Server struct {
	Hosts       []Host // at least one, in the order in which they are tried
	SSLMode     string // disable, prefer, require, verify-ca or verify-full; "" is prefer
	SSLRootCert string // a file of PEM certificates, "system", or ""

	// ClientCertificate is asked for the certificate to show, in every TLS handshake whose server wants one; nil shows
	// none. It may be called at the same time.
	ClientCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

	// SessionAttributes is libpq's target_session_attrs: any, read-write, read-only, primary, standby or prefer-standby;
	// "" is primary where there are several hosts, and any where there is one.
	SessionAttributes string

	// ReadOnly has transactions be read-only unless they say otherwise, for a replica that need not be a standby.
	ReadOnly bool

	// MaxConnections bounds the server connections of all targets together, at least 1.
	MaxConnections int
}

// Options is what a Set needs. Zero durations take the default named at the field.
type Options struct {
	Servers map[string]Server

	// Password returns the password of a role; nil where the server asks for none.
	Password func(role string, generation int) string

	ConnectTimeout time.Duration // for name lookup, dial, TLS and authentication together, of all hosts; 5 s
	IdleTimeout    time.Duration // an idle connection is closed after it; 10 min
	Lifetime       time.Duration // a connection is closed after it, give or take 10 %, when it is not leased; 1 h

	// TenantsSeen closes a Shared or Slot connection, when it is not leased, that has served so many tenants: its server
	// process keeps what it has learned of each one's tables, about 0.2 MB for a dozen. 0 is no limit.
	TenantsSeen int

	// Quantum is how long a target may keep a connection in use while another target has none: at most one
	// reconnect per connection and Quantum is caused by fairness. 50 ms.
	Quantum time.Duration

	// Connect opens a connection and brings it to ReadyForQuery "idle", with nothing read ahead and nothing reading it, and
	// the configuration as its Config; nil has pgconn do it, over the network. Its context ends after ConnectTimeout.
	Connect func(context.Context, *pgconn.Config) (*pgconn.HijackedConn, error)

	// NewState makes Conn.State of a new connection; nil leaves it nil.
	NewState func() any

	Metrics *metrics.Metrics // nil counts nothing
	Logger  *slog.Logger     // nil discards
}

const (
	defaultConnectTimeout = 5 * time.Second
	defaultIdleTimeout    = 10 * time.Minute
	defaultLifetime       = time.Hour
	defaultQuantum        = 50 * time.Millisecond
)

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.ConnectTimeout, defaultConnectTimeout},
		{&o.IdleTimeout, defaultIdleTimeout},
		{&o.Lifetime, defaultLifetime},
		{&o.Quantum, defaultQuantum},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	if o.Password == nil {
		o.Password = func(string, int) string { return "" }
	}
	if o.Connect == nil {
		o.Connect = connect
	}
	if o.NewState == nil {
		o.NewState = func() any { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (s Server) validate() error {
	if err := s.validateHosts(); err != nil {
		return err
	}
	if s.MaxConnections < 1 {
		return fmt.Errorf("max connections is %d; it has to be at least 1", s.MaxConnections)
	}
	switch s.SSLMode {
	case "", "disable", "prefer", "require", "verify-ca", "verify-full":
		return nil
	}
	return fmt.Errorf("sslmode %q is not one of disable, prefer, require, verify-ca, verify-full", s.SSLMode)
}
