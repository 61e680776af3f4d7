package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/docex-proxy/docex-proxy/metrics/traces"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// session is one client connection from accept to close. Its goroutine owns it; others may only call end, cancel,
// drain and recheck.
type session struct {
	server *Server
	o      *Options
	id     uint64

	client      net.Conn       // the TLS connection once there is one; nil while a reactor has the socket
	remote      netip.AddrPort // the client's address, the zero value where it has none
	began       time.Time
	tls         *tls.Conn         // nil without TLS
	certificate *x509.Certificate // the one we showed

	life lifetime
	// settle waits until the end of ctx has interrupted the client's socket, or will not any more.
	settle func()

	startKey
	route    atomic.Pointer[router.Route] // nil before the login
	key      cancelKey                    // zero before the login's end
	protocol uint32                       // that is spoken: 3.0 to 3.2, as in a startup packet
	driven   atomic.Pointer[driver]       // what carries the session, nil before the login
}

// startKey is what a client said of itself, to be judged again when the registry changes.
type startKey struct {
	parameters relay.Pairs
	serverName string // of its TLS handshake
}

func (k startKey) startup() router.Startup {
	return router.Startup{Parameters: k.parameters.Map(), ServerName: k.serverName}
}

// serve is the story of one client connection, to its end, or until a reactor takes the session over. The story then
// ends there, in the same way: with conclude.
func (s *session) serve() {
	err := s.logIn()
	if err == nil && s.key != (cancelKey{}) {
		if s.handOver() {
			return
		}
		err = s.driver().(*link).run()
	}
	s.conclude(err)
}

// logIn brings a client to its session. A request to cancel is served, and has none.
func (s *session) logIn() error {
	ctx := s.life.context()
	said, err := s.open(ctx)
	if err != nil {
		return err
	}
	if said.cancel != (cancelKey{}) {
		return s.server.cancel(ctx, said.cancel, !said.fromPeer)
	}
	s.startKey = startKey{relay.NewPairs(said.Parameters), said.ServerName}
	if s.wantsConsole(said.Startup) {
		return s.administer(ctx, said.Startup)
	}
	span := s.o.Traces.Session(s.id, s.began)
	err = s.join(ctx, said.Startup, span)
	endSpan(span, err)
	return err
}

// join makes a client a session of the tenant that it names, once it has proved who it is.
func (s *session) join(ctx context.Context, start router.Startup, span *traces.Span) error {
	step := span.Within(traces.Route)
	route, err := s.o.Router.Route(ctx, start)
	endSpan(step, err)
	if err != nil {
		return err
	}
	span.Of(tenantOf(&route))
	step = span.Within(traces.Authenticate)
	err = s.authenticate(route)
	endSpan(step, err)
	if err != nil {
		return err
	}
	if err := s.server.admit(s, route); err != nil {
		return err
	}
	s.recheck(ctx) // what changed while the client proved itself was told to nobody
	return s.welcome()
}

// conclude ends the connection, for the reason given, nil when the client said goodbye.
func (s *session) conclude(err error) {
	err = ended(s.life.context(), err)
	if driver := s.driver(); driver != nil {
		s.server.dismiss(s)
		driver.close(err)
	}
	s.server.leave(s)
	s.part(err)
}

// part takes leave of the client.
func (s *session) part(err error) {
	s.life.end(nil)
	s.settle()
	s.finish(err)
	s.client.Close()
	s.server.gone()
}

// welcome brings the login to its end: the parameters of the tenant's server with the client's settings applied, our
// own cancel key, and the first ReadyForQuery (section 55.2.1).
func (s *session) welcome() error {
	s.client.SetDeadline(time.Time{}) //nolint:errcheck // a closed connection fails its write too
	if ctx := s.life.context(); ctx.Err() != nil {
		return context.Cause(ctx) // checked after the deadline is lifted, so that an end is never overwritten
	}
	secret := shortSecret
	if s.protocol >= protocol32 {
		secret = longSecret
	}
	key := s.server.cancels.issue(s, secret, s.server.number())
	s.key = key
	s.driver().(*link).machine.Introduce(key.pid)
	if err := s.driver().(*link).login(s.server.known); err != nil {
		return err
	}
	ready, err := encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err != nil {
		return err
	}
	return s.send(append(key.backendKeyData(), ready...))
}

// newLink makes the session's machine and its driver, for the route it has been given.
func (s *session) newLink(route router.Route) *link {
	settings := relay.NewPairs(route.Settings)
	l := &link{
		ctx: s.life.context(), end: s.end, client: s.client, o: s.o,
		acquire: s.acquire, times: s.times,
		tenant: s.o.Metrics.Tenant(string(route.Tenant.ID)),
		machine: relay.NewSession(relay.Config{
			ID: s.id, Settings: settings, Role: route.Role, Occupies: occupies(route), Seed: seed(), Hears: s.hears(route),
			MaxStatementBytes: s.o.MaxStatementBytes, MaxStatements: s.o.MaxStatements, Session: route.OwnConnection,
			Births: s.server.births,
		}),
		settings: settings,
		attached: s.attached,
		trace:    s.trace,
		target:   route.Target,
		progress: make(chan struct{}, 1),
	}
	l.settle = onEnd(l.ctx, l.interrupt)
	return l
}

// attached is told of every server connection before it is used.
func (s *session) attached(conn *pool.Conn) {
	s.server.senders.note(conn, s.route.Load().Tenant.ID)
	if conn.Encrypted() {
		s.server.noteEncrypted(conn.Target().Server)
	}
}

// occupies is relay.Config.Occupies.
func occupies(route router.Route) string {
	if route.Target.Slot {
		return route.Target.Role
	}
	return ""
}

// hears is relay.Config.Hears: in a database that tenants share, a session hears its own tenant's connections of this
// proxy only. Who sends from elsewhere cannot be told apart from another tenant.
func (s *session) hears(route router.Route) func(uint32) bool {
	if route.Tenant.Route.Isolation == registry.IsolationDatabase {
		return nil
	}
	tenant := route.Tenant.ID // and not the route: it is kept, and its server may change
	return func(process uint32) bool { return s.server.senders.is(s.route.Load().Target.Server, process, tenant) }
}

// seed draws a number that nobody can guess.
func seed() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// say sends messages to a client that is not yet in its session.
func (s *session) say(messages ...pgproto3.BackendMessage) error {
	b, err := encode(messages...)
	if err != nil {
		return err
	}
	return s.send(b)
}

// send writes to a client that is not yet in its session.
func (s *session) send(b []byte) error {
	if _, err := s.client.Write(b); err != nil {
		return &clientGoneError{err}
	}
	return nil
}

// recheck asks the router again, and ends the session when it would no longer be let in. A route that has changed
// serves the session from its next transaction on.
func (s *session) recheck(ctx context.Context) {
	s.reroute(s.o.Router.Route(ctx, s.startup()))
}

// reroute takes what the router says of the session now.
func (s *session) reroute(route router.Route, err error) {
	known := s.route.Load()
	refusal, refused := errors.AsType[*router.Refusal](err)
	switch {
	case refused && !errors.Is(err, router.ErrRegistryOffline):
		s.end(&endedError{refusal: refusal})
	case err != nil: // nothing is known against the session
	case route.Denied != nil:
		s.end(&endedError{refusal: route.Denied})
	case route.Role != known.Role || route.Target.Shared != known.Target.Shared || occupies(route) != occupies(*known):
		s.end(errIsolationChanged) // the session's machine was made for the other level
	default:
		s.route.Store(s.server.routes.share(route))
		if known.Held && !route.Held {
			s.server.holds.end(route.Tenant.ID)
		}
	}
}

// finish tells the client why its connection ends and writes the session's one line in the log.
func (s *session) finish(err error) {
	user := s.parameters.Map()["user"]
	var gone *clientGoneError
	reason, told := "client_closed", false
	if err != nil && !errors.As(err, &gone) {
		v := judge(err, user, s.server.policy.Load().ExposeTenantErrors)
		reason = v.reason
		if driver := s.driver(); driver == nil || !driver.sawFatal() {
			told = s.sayLast(v.response())
		}
	}
	route := s.route.Load()
	if route == nil {
		if reason != "client_closed" {
			s.o.Metrics.SessionRefused(reason)
		}
		s.o.Logger.Log(s.life.context(), refusedLevel(err), "connection refused", "client", s.remote, "user", user,
			"reason", reason, "error", text(err), "told", told)
		return
	}
	s.o.Metrics.SessionClosed(string(route.Tenant.ID), reason)
	s.o.Logger.Info("session ended", "tenant", string(route.Tenant.ID), "login", route.User, "client", s.remote,
		"seconds", time.Since(s.began).Seconds(), "transactions", s.driver().transactions(),
		"pins", strings.Join(s.driver().pinned().Names(), ","), "reason", reason, "error", text(err))
}

// lastWords is how long a client gets to take its last message.
const lastWords = time.Second

func (s *session) sayLast(m pgproto3.BackendMessage) bool {
	return s.client.SetDeadline(time.Now().Add(lastWords)) == nil && s.say(m) == nil
}

// onEnd runs f once ctx has ended. settle waits until f has run, or is certain never to.
func onEnd(ctx context.Context, f func()) (settle func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(done); f() })
	return func() {
		if !stop() {
			<-done
		}
	}
}
