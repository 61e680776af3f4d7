package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const invalidPassword = "28P01"

// preferAgain is for how long the second choice of prefer-standby is taken without looking for a standby.
const preferAgain = 5 * time.Second

// dialer opens authenticated connections to one server.
type dialer struct {
	server   string           // its name
	hosts    []*pgconn.Config // one for each: everything but user, password, database and run-time parameters
	wants    attributes
	readOnly bool // transactions are, unless they say otherwise
	password func(role string, generation int) string
	open     func(context.Context, *pgconn.Config) (*pgconn.HijackedConn, error)
	timeout  time.Duration
	logger   *slog.Logger
	failures complaint

	last    atomic.Int32              // index of the host that the last connection was opened to
	without atomic.Pointer[time.Time] // when no standby was to be had, where one is preferred; nil: never
}

func newDialer(name string, s Server, o Options) (*dialer, error) {
	d := &dialer{server: name, wants: s.attributes(), readOnly: s.ReadOnly, password: o.Password, open: o.Connect,
		timeout: o.ConnectTimeout, logger: o.Logger}
	for _, host := range s.Hosts {
		settings, err := pgconn.ParseConfig(connString(s, host))
		if err != nil {
			return nil, fmt.Errorf("connection settings: %w", err)
		}
		settings.ConnectTimeout = o.ConnectTimeout
		settings.KerberosSrvName, settings.KerberosSpn = "", "" // can come from a service file only
		if s.ClientCertificate != nil {
			present(settings, s.ClientCertificate)
		}
		d.hosts = append(d.hosts, settings)
	}
	return d, nil
}

// connString names every keyword that ParseConfig would otherwise take from the environment, a password file or
// files in the home directory; user and password are placeholders. Only PGSERVICE cannot be overridden: what its
// service says loses to the keywords here, but a service that cannot be found is an error.
//
// require_auth: a derived password is never sent in clear text or as MD5; "none" is trust, peer and certificate.
//
// Of several hosts each has a string of its own, and the dialer tries them: pgconn would try them in the same order each
// time, and a server's attributes once with TLS and once without.
func connString(s Server, host Host) string {
	sslMode := s.SSLMode
	if sslMode == "" {
		sslMode = "prefer"
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	return fmt.Sprintf("host='%s' port=%d sslmode=%s sslrootcert='%s' ", quote.Replace(host.Name), host.Port, sslMode, quote.Replace(s.SSLRootCert)) +
		"user=- password=- dbname=- passfile='' connect_timeout=0 target_session_attrs=any " +
		"sslcert='' sslkey='' sslpassword='' sslcertmode=allow sslsni=1 sslnegotiation=postgres channel_binding=prefer " +
		"require_auth=scram-sha-256,none min_protocol_version=3.0 max_protocol_version=3.0"
}

// dial returns a connection that has seen its first ReadyForQuery, with nothing read ahead and nothing reading it.
func (d *dialer) dial(ctx context.Context, t Target) (*pgconn.HijackedConn, error) {
	conn, err := d.connect(ctx, t)
	if err == nil || ctx.Err() != nil { // the end of the Set is no failure of the server
		return conn, err
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

// connect tries the hosts one after the other, first the one that the last connection was opened to, until one is what is
// wanted. Each may take its part of the time that is left: one that does not answer leaves the others theirs. A host that
// refuses the role is no reason to stop: a standby that is behind may not know it yet.
func (d *dialer) connect(ctx context.Context, t Target) (*pgconn.HijackedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	wants := d.wants
	if at := d.without.Load(); at != nil && time.Since(*at) < preferAgain {
		wants = anyHost
	}
	var problems []error
	var second []int // hosts that would do, though others are preferred
	order := d.order()
	rest := len(order)
	if wants == preferStandby {
		rest++
	}
	for _, i := range order {
		conn, err := d.attempt(ctx, rest, i, wants, t)
		if err == nil {
			return conn, nil
		}
		if _, unsuitable := errors.AsType[*unsuitableError](err); unsuitable && wants == preferStandby {
			second = append(second, i)
		} else {
			problems = append(problems, err)
		}
		rest--
	}
	for n, i := range second {
		conn, err := d.attempt(ctx, len(second)-n, i, anyHost, t)
		if err == nil {
			now := time.Now()
			d.without.Store(&now)
			return conn, nil
		}
		problems = append(problems, err)
	}
	return nil, errors.Join(problems...)
}

// order is that in which the hosts are tried.
func (d *dialer) order() []int {
	last := int(d.last.Load())
	order := []int{last}
	for i := range d.hosts {
		if i != last {
			order = append(order, i)
		}
	}
	return order
}

// attempt tries one host, for its share of the time that ctx leaves to so many.
func (d *dialer) attempt(ctx context.Context, many, i int, wants attributes, t Target) (*pgconn.HijackedConn, error) {
	if deadline, ok := ctx.Deadline(); ok && many > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(many))
		defer cancel()
	}
	config := d.config(i, t)
	conn, err := d.enter(ctx, config, wants)
	if err == nil {
		d.last.Store(int32(i))
		return conn, nil
	}
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == invalidPassword && config.Password == "" {
		err = fmt.Errorf("%w: %w", errNoPassword, err)
	}
	return nil, err
}

// enter logs in to a host that is what is wanted.
func (d *dialer) enter(ctx context.Context, config *pgconn.Config, wants attributes) (*pgconn.HijackedConn, error) {
	conn, err := d.open(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := wants.accept(conn.ParameterStatuses); err != nil {
		hangUp(conn.Conn)
		return nil, fmt.Errorf("%s: %w", hostOf(conn), err)
	}
	return conn, nil
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

// config has the settings of one login at one of the hosts.
func (d *dialer) config(host int, t Target) *pgconn.Config {
	config := d.hosts[host].Copy()
	config.User = t.Role
	config.Password = d.password(t.Role, t.Generation)
	config.Database = t.Database
	config.RuntimeParams = map[string]string{"client_encoding": "UTF8"} // application_name is the client's, if it has one
	if t.SearchPath != "" && !t.Shared {
		config.RuntimeParams["search_path"] = t.SearchPath
	}
	if d.readOnly {
		config.RuntimeParams["default_transaction_read_only"] = "on"
	}
	return config
}
