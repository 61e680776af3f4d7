package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// ConsoleDatabase is the database that administrators connect to; it answers to the other name as well, which tools that
// were made for PgBouncer use.
const (
	ConsoleDatabase      = "docex_admin"
	consoleDatabaseAlias = "pgbouncer"
)

// consoleIdle is how long an administrator may be silent.
const consoleIdle = time.Hour

// console answers an administrator who has proved to be one; admin.Console has it.
type console interface {
	Serve(ctx context.Context, conn io.ReadWriter) error
}

// wantsConsole reports whether a client asks for the console: by the database, as a login that may. Everybody else goes on
// to the router, which knows no tenant of that name unless there is one.
func (s *session) wantsConsole(said router.Startup) bool {
	database := said.Parameters["database"]
	return s.o.Console != nil && (database == ConsoleDatabase || database == consoleDatabaseAlias) && slices.Contains(s.server.policy.Load().Admins, said.Parameters["user"])
}

// administer is the story of an administrator's connection, after its startup message.
func (s *session) administer(ctx context.Context, said router.Startup) error {
	name := said.Parameters["user"]
	login, err := s.o.Logins.Login(ctx, name)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return &router.Refusal{Err: router.ErrRegistryOffline, Cause: err}
	}
	route := router.Route{User: name, Login: login}
	switch {
	case login == nil:
		route.Denied = &router.Refusal{Err: router.ErrUnknownLogin}
	case login.Expired(time.Now()):
		route.Denied = &router.Refusal{Err: router.ErrLoginExpired}
	}
	if err := s.authenticate(route); err != nil {
		return err
	}
	if err := s.server.admitConsole(s); err != nil {
		return err
	}
	defer s.server.dismissConsole(s)
	s.o.Logger.Info("console opened", "login", name, "client", s.remote)
	defer s.o.Logger.Info("console closed", "login", name, "client", s.remote)
	if err := s.o.Console.Serve(ctx, &patientConn{Conn: s.client, ctx: ctx}); err != nil {
		return &clientGoneError{err}
	}
	return nil
}

// patientConn lets a client be silent for consoleIdle.
type patientConn struct {
	net.Conn
	ctx context.Context // ends with an interruption that must not be overwritten
}

func (c *patientConn) Read(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(consoleIdle)); err != nil {
		return 0, err
	}
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.Conn.Read(b)
}

// admitConsole counts a console out of those that are logging in.
func (s *Server) admitConsole(sess *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errShutdown
	}
	s.startups--
	s.consoles[sess] = struct{}{}
	return nil
}

func (s *Server) dismissConsole(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startups++ // leave takes it back
	delete(s.consoles, sess)
}

// endConsoles ends what would not end by itself.
func (s *Server) endConsoles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sess := range s.consoles {
		sess.end(errShutdown)
	}
}

// SessionInfo is what is known of one session.
type SessionInfo struct {
	ID            uint64
	Tenant        registry.TenantID
	Login         string
	Application   string // as the client called itself when it connected
	Remote        netip.AddrPort
	Began         time.Time
	TLS           bool
	OwnConnection bool     // it keeps its server connection
	Replica       bool     // it is led to one
	Pins          []string // reasons for which it has kept one so far
}

// Sessions lists those past their login, in no particular order.
func (s *Server) Sessions() []SessionInfo {
	sessions := s.concerned("*")
	infos := make([]SessionInfo, 0, len(sessions))
	for _, session := range sessions {
		route := session.route.Load()
		infos = append(infos, SessionInfo{
			ID: session.id, Tenant: route.Tenant.ID, Login: route.User, Application: session.parameters.Map()["application_name"],
			Remote: session.remote, Began: session.began, TLS: session.tls != nil, OwnConnection: route.OwnConnection, Replica: route.Replica,
			Pins: session.driver().pinned().Names(),
		})
	}
	return infos
}

// EndSessions ends a tenant's sessions, as an administrator does, and says how many there were.
func (s *Server) EndSessions(tenant registry.TenantID) int {
	sessions := s.concerned(string(tenant))
	for _, session := range sessions {
		session.end(errKilled)
	}
	return len(sessions)
}
