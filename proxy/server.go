package proxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// Server accepts client connections and keeps their sessions. It owns every session's goroutine.
type Server struct {
	o          Options
	policy     atomic.Pointer[Policy]
	mockSecret []byte
	known      *knownParameters
	throttle   *throttle
	senders    senders
	routes     routes
	rates      rates
	holds      holds
	cancels    cancelTable
	births     *relay.Births
	lastID     atomic.Uint64
	running    context.Context // of all sessions, while Serve runs
	hosts      []*host         // the reactors, none where there are only goroutines
	encrypted  sync.Map        // names of servers whose connections speak TLS

	retire  sync.Once
	retired chan struct{} // closed by Retire

	connections sync.WaitGroup
	rechecks    sync.WaitGroup
	recheckTurn sync.Mutex // one look through the sessions at a time

	mu       sync.Mutex // guards what follows
	clients  int
	startups int
	tenants  map[registry.TenantID]map[*session]struct{} // sessions past their login
	consoles map[*session]struct{}                       // administrators'
	draining bool
}

// New makes a Server.
func New(o Options) *Server {
	secret := make([]byte, 32)
	rand.Read(secret)
	s := &Server{
		o: o, mockSecret: secret, known: &knownParameters{}, throttle: newThrottle(o.LoginFailures, time.Now),
		births:  relay.NewBirths(),
		retired: make(chan struct{}),
		cancels: cancelTable{held: make(map[uint32]*cancelEntry)},
		tenants: make(map[registry.TenantID]map[*session]struct{}), consoles: make(map[*session]struct{}),
	}
	s.policy.Store(&o.Policy)
	return s
}

// Serve accepts connections until ctx ends, or until it has retired and its sessions have ended. Then it lets transactions
// finish, for as long as Options.Drain allows, and returns when the last session has ended. The listener is closed. The error is nil after a drain.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	s.running = running
	defer stop(nil)
	if err := s.openHosts(); err != nil {
		l.Close()
		return err
	}
	defer s.closeHosts()
	accepting, stopAccepting := s.accepting(ctx)
	defer stopAccepting()
	context.AfterFunc(accepting, func() { l.Close() })
	ticks, stopTicks := context.WithCancel(ctx)
	defer stopTicks()
	s.rechecks.Go(func() { s.recheckRegularly(ticks) })
	err := s.accept(accepting, running, l)
	gone := make(chan struct{})
	go func() { s.connections.Wait(); close(gone) }()
	if err == nil {
		s.outstay(ctx, gone)
	}
	s.drain(stop, gone)
	stopTicks()
	s.rechecks.Wait()
	return err
}

func (s *Server) accept(ctx, running context.Context, l net.Listener) error {
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.connections.Add(1) // until gone
			go s.handle(running, conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of descriptors, for example: the clients in the backlog wait
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.o.Logger.Warn("cannot accept", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// handle is the goroutine of one client connection, at first at least.
func (s *Server) handle(running context.Context, conn net.Conn) {
	session := &session{server: s, o: &s.o, id: s.lastID.Add(1), client: conn, remote: addressOf(conn), began: time.Now()}
	session.life.begin(running)
	s.o.Metrics.ClientConnected()
	// The raw connection, because a session's own may be in the middle of becoming TLS.
	session.settle = onEnd(session.life.context(), func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck
	if err := s.enter(); err != nil {
		session.part(err)
		return
	}
	session.serve()
}

// addressOf is the address of a client's connection.
func addressOf(conn net.Conn) netip.AddrPort {
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return addr.AddrPort()
	}
	return netip.AddrPort{}
}

// gone counts a connection out for good.
func (s *Server) gone() {
	s.o.Metrics.ClientDisconnected()
	s.connections.Done()
}

// enter counts a connection in, or refuses it.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return errShutdown
	case s.clients >= s.policy.Load().MaxClients:
		return errTooManyClients
	case s.startups >= s.policy.Load().MaxStartups:
		return errTooManyStartups
	}
	s.clients++
	s.startups++
	return nil
}

func (s *Server) leave(session *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
	if session.route.Load() == nil {
		s.startups--
	}
}

// admit makes an authenticated connection a session of its tenant.
func (s *Server) admit(sess *session, route router.Route) error {
	id := route.Tenant.ID
	limit := s.portion(cmp.Or(route.Tenant.Route.Limits.MaxClients, s.policy.Load().TenantClients))
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit > 0 && len(s.tenants[id]) >= limit {
		return errTenantClients
	}
	if s.draining {
		return errShutdown
	}
	if s.tenants[id] == nil {
		s.tenants[id] = make(map[*session]struct{})
	}
	s.tenants[id][sess] = struct{}{}
	s.startups--
	sess.route.Store(s.routes.share(route))
	sess.drive(sess.newLink(route))
	s.o.Metrics.SessionOpened(string(id))
	return nil
}

// dismiss takes a session out.
func (s *Server) dismiss(session *session) {
	s.cancels.withdraw(session.key)
	id := session.route.Load().Tenant.ID
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tenants[id], session)
	if len(s.tenants[id]) == 0 {
		delete(s.tenants, id)
		s.routes.forget(id)
		s.rates.forget(id)
	}
}

// cancel serves a CancelRequest. Postgres answers none, whether or not the key is known (section 55.2.8). anywhere says that
// another proxy may have given the key.
func (s *Server) cancel(ctx context.Context, key cancelKey, anywhere bool) error {
	if session := s.cancels.find(key); session != nil {
		if err := session.driver().cancel(ctx); err != nil {
			s.o.Logger.Warn("cannot pass a cancel request on", "error", err)
		}
		return nil
	}
	if anywhere && s.o.Fleet != nil && key.proxy() != s.number() {
		s.o.Fleet.Forward(key.proxy(), key.body())
	}
	if s.o.Forward != nil {
		s.o.Forward(key.body())
	}
	return nil
}

// number is this proxy's own, 0 for none.
func (s *Server) number() int {
	if s.o.Fleet == nil {
		return 0
	}
	return s.o.Fleet.Number()
}

// RegistryChanged tells that a row of the registry has changed: payload is a tenant id, "login/" and a login's name, or
// "*". Sessions that may not go on are ended. It returns at once; known, if not nil, is called when every session has been
// told, unless there is none.
func (s *Server) RegistryChanged(payload string, known func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || len(s.tenants) == 0 {
		return
	}
	s.rechecks.Go(func() {
		s.recheck(payload)
		if known != nil {
			known()
		}
	})
}

func (s *Server) recheckRegularly(ctx context.Context) {
	ticker := time.NewTicker(s.o.Recheck)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.recheck("*")
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) recheck(payload string) {
	s.recheckTurn.Lock()
	defer s.recheckTurn.Unlock()
	type answer struct {
		route router.Route
		err   error
	}
	answers := make(map[startKey]answer) // most sessions of a tenant have said the same
	for _, session := range s.concerned(payload) {
		a, ok := answers[session.startKey]
		if !ok {
			a.route, a.err = s.o.Router.Route(s.running, session.startup())
			answers[session.startKey] = a
		}
		session.reroute(a.route, a.err)
	}
}

// concerned lists the sessions that a change in the registry may touch.
func (s *Server) concerned(payload string) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	login, ofLogin := strings.CutPrefix(payload, "login/")
	if payload != "*" && !ofLogin {
		return slices.Collect(maps.Keys(s.tenants[registry.TenantID(payload)]))
	}
	var found []*session
	for _, sessions := range s.tenants {
		for session := range sessions {
			if !ofLogin || login == session.route.Load().User {
				found = append(found, session)
			}
		}
	}
	return found
}

// drain ends the sessions: those between transactions at once, the others after theirs, all when time is up.
func (s *Server) drain(stop context.CancelCauseFunc, gone <-chan struct{}) {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.endConsoles()
	for _, session := range s.concerned("*") {
		session.driver().drain()
	}
	timer := time.NewTimer(s.o.Drain)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
		stop(errShutdown)
		for _, session := range s.concerned("*") {
			session.end(errShutdown) // a reactor does not watch its sessions' contexts
		}
		<-gone
	}
}

// acquire leases a server connection for the session's present route. Where the server does not let the role in, its
// secret may have been rotated, or the tenant have begun to move, a moment ago and this proxy not been told yet: then the
// registry is asked, and the client does not get to know.
func (s *session) acquire(ctx context.Context) (*pool.Conn, error) {
	if err := s.paced(ctx); err != nil {
		return nil, err
	}
	for {
		route, err := s.unheld(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := s.o.Pool.Acquire(ctx, route.Target, s.server.portion(route.MaxConnections))
		switch {
		case err == nil && s.route.Load().Held: // meanwhile: no transaction may begin where the tenant is about to leave
			conn.Release()
		case err == nil, !roleRefused(err), !s.rerouted(ctx, route):
			return conn, err
		}
	}
}

// rerouted reports whether the session has another target by now than what the route says, or has to wait for one.
func (s *session) rerouted(ctx context.Context, route *router.Route) bool {
	if s.route.Load() == route && s.o.Changed != nil && s.o.Changed(ctx, route.Tenant.ID, route.Tenant.Route) {
		s.recheck(ctx)
	}
	now := s.route.Load()
	return ctx.Err() == nil && (now.Target != route.Target || now.Held)
}

// roleRefused reports whether a server has refused a role, as such, for its password, or at level slot to lend it.
func roleRefused(err error) bool {
	refusal, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	return ok && slices.Contains([]string{"28P01", "28000", "42704"}, refusal.SQLState())
}

// refusedLevel keeps a wrong password out of the errors, and a port scan out of everything.
func refusedLevel(err error) slog.Level {
	var gone *clientGoneError
	switch {
	case err == nil, errors.As(err, &gone):
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
