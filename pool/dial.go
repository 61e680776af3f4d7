package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const invalidPassword = "28P01"

// dialer opens authenticated connections to one server.
type dialer struct {
	server   string         // its name
	settings *pgconn.Config // everything but user, password, database and run-time parameters
	password func(role string, generation int) string
	open     func(context.Context, *pgconn.Config) (*pgconn.HijackedConn, error)
	timeout  time.Duration
	logger   *slog.Logger
	failures complaint
}

func newDialer(name string, s Server, o Options) (*dialer, error) {
	settings, err := pgconn.ParseConfig(connString(s))
	if err != nil {
		return nil, fmt.Errorf("connection settings: %w", err)
	}
	settings.ConnectTimeout = o.ConnectTimeout
	settings.KerberosSrvName, settings.KerberosSpn = "", "" // can come from a service file only
	if s.ClientCertificate != nil {
		present(settings, s.ClientCertificate)
	}
	return &dialer{server: name, settings: settings, password: o.Password, open: o.Connect,
		timeout: o.ConnectTimeout, logger: o.Logger}, nil
}

// connString names every keyword that ParseConfig would otherwise take from the environment, a password file or
// files in the home directory; user and password are placeholders. Only PGSERVICE cannot be overridden: what its
// service says loses to the keywords here, but a service that cannot be found is an error.
//
// require_auth: a derived password is never sent in clear text or as MD5; "none" is trust, peer and certificate.
func connString(s Server) string {
	sslMode := s.SSLMode
	if sslMode == "" {
		sslMode = "prefer"
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	return fmt.Sprintf("host='%s' port=%d sslmode=%s sslrootcert='%s' ", quote.Replace(s.Host), s.Port, sslMode, quote.Replace(s.SSLRootCert)) +
		"user=- password=- dbname=- passfile='' connect_timeout=0 target_session_attrs=any " +
		"sslcert='' sslkey='' sslpassword='' sslcertmode=allow sslsni=1 sslnegotiation=postgres channel_binding=prefer " +
		"require_auth=scram-sha-256,none min_protocol_version=3.0 max_protocol_version=3.0"
}

// dial returns a connection that has seen its first ReadyForQuery, with nothing read ahead and nothing reading it.
func (d *dialer) dial(ctx context.Context, t Target) (*pgconn.HijackedConn, error) {
	config := d.config(t)
	conn, err := d.connect(ctx, config)
	if err == nil || ctx.Err() != nil { // the end of the Set is no failure of the server
		return conn, err
	}
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == invalidPassword && config.Password == "" {
		err = fmt.Errorf("%w: %w", errNoPassword, err)
	}
	d.complain(t, err)
	return nil, err
}

// complain logs why a connection is not to be had.
func (d *dialer) complain(t Target, err error) {
	if !d.failures.due(time.Now()) {
		return
	}
	var refusal *pgconn.PgError
	code := ""
	if errors.As(err, &refusal) {
		code = refusal.Code
	}
	d.logger.Warn("cannot connect to a server", "server", d.server, "tenant", t.Tenant, "sqlstate", code, "error", err)
}

func (d *dialer) connect(ctx context.Context, config *pgconn.Config) (*pgconn.HijackedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	return d.open(ctx, config)
}

// connect is Options.Connect over the network.
func connect(ctx context.Context, config *pgconn.Config) (*pgconn.HijackedConn, error) {
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := conn.SyncConn(ctx); err != nil {
		conn.Conn().Close()
		return nil, err
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		conn.Conn().Close()
		return nil, err
	}
	return hijacked, nil
}

func (d *dialer) config(t Target) *pgconn.Config {
	config := d.settings.Copy()
	config.User = t.Role
	config.Password = d.password(t.Role, t.Generation)
	config.Database = t.Database
	config.RuntimeParams = map[string]string{"client_encoding": "UTF8"} // application_name is the client's, if it has one
	if t.SearchPath != "" && !t.Shared {
		config.RuntimeParams["search_path"] = t.SearchPath
	}
	return config
}
