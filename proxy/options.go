package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/metrics/traces"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/reactor"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// HasReactors says whether sessions can be carried by reactors on this system.
const HasReactors = reactor.Supported

// ProbeRing says why reactors cannot use io_uring on this system, nil when they can.
func ProbeRing() error { return reactor.Probe(reactor.Ring) }

// routeFinder decides where a startup message goes; router.Router has it.
type routeFinder interface {
	Route(ctx context.Context, start router.Startup) (router.Route, error)
}

// loginFinder reads logins; registry.Cache has it. One that is not there is registry.ErrNotFound.
type loginFinder interface {
	Login(ctx context.Context, name string) (*registry.Login, error)
}

// acquirer leases server connections; pool.Set has it. Ask is for those who must not wait.
type acquirer interface {
	Acquire(ctx context.Context, target pool.Target, limit int) (*pool.Conn, error)
	Ask(r *pool.Request, target pool.Target, limit int) (*pool.Conn, error)
}

// fleet is what is known of the other proxies; peers.Fleet has it.
type fleet interface {
	Number() int // of this proxy, 0 for none
	Live() int   // how many there are, at least 1
	Forward(number int, body []byte)
}

// Options is what a Server is made with. A duration of 0 is no limit, except where it says otherwise.
type Options struct {
	Router routeFinder
	Pool   acquirer
	// Changed asks the registry, past what is known of the tenant, whether its route is another one by now. When it is, the
	// Router knows afterwards. nil: not asked.
	Changed func(ctx context.Context, id registry.TenantID, known *registry.Route) bool
	Metrics *metrics.Metrics
	Traces  *traces.Tracer // nil: none
	Logger  *slog.Logger

	// Console serves the logins in Policy.Admins, which Logins knows, when they ask for database docex_admin or pgbouncer.
	// nil: there is none.
	Console console
	Logins  loginFinder

	// Forward passes on the body of a cancel request whose key is not known here, to the process that this one has taken
	// over from. It must not block. nil: there is none.
	Forward func(body []byte)

	// Fleet is the proxies that serve the same registry; nil: this one is alone.
	Fleet fleet
	// ShareLimits has the limits of a tenant hold for all proxies together: each keeps its part.
	ShareLimits bool

	// Reactors is how many threads carry the sessions of clients without TLS; 0: goroutines carry them all. More than 0
	// needs HasReactors.
	Reactors int
	Ring     bool // the reactors use io_uring instead of epoll; needs that ProbeRing says nothing

	// TLS is for clients; nil: SSLRequest is answered N. GetCertificate has to be set, and to fill in Leaf.
	TLS         *tls.Config
	TLSRequired bool
	Policy      // at first

	StartupTimeout        time.Duration // accept to StartupMessage, TLS handshake included; must not be 0
	AuthenticationTimeout time.Duration // StartupMessage to AuthenticationOk; must not be 0
	QueueWait             time.Duration // for a server connection
	FrameTimeout          time.Duration // for the rest of a message once it has begun
	Query                 time.Duration // for the answer to one request
	Transaction           time.Duration // from its first message to its last answer
	ClientIdle            time.Duration // between transactions
	IdleTransaction       time.Duration // inside a transaction
	ClientWrite           time.Duration // for a client to take what it was sent
	Drain                 time.Duration // for sessions to end their transactions at a shutdown
	Outstay               time.Duration // for sessions to end after Retire
	Recheck               time.Duration // between looks at the registry for every live session; must not be 0

	LoginFailures int // of one address for one tenant before further ones have to wait, 0 for no bound

	MaxStatementBytes int // of the prepared statements of one session
	MaxStatements     int // in one session
	ServerStatements  int // prepared statements kept on a server connection
}
