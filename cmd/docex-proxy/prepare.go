package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy"
)

const (
	// registryRole and registryGeneration are what `docexctl init` derives the password of the registry's role from.
	registryRole       = "docex_registry"
	registryGeneration = 1

	// poolRole is the login of the connections that trusted tenants share, of the same generation.
	poolRole = "docex_pool"

	// mainServer is the name that a tenant's route gives when nobody has said another.
	mainServer = "main"
)

// passwords derives the password of a role; nil without a master key.
type passwords func(role string, generation int) string

// prepared is what a configuration refers to, read and converted.
type prepared struct {
	passwords   passwords
	registryDSN string
	servers     map[string]pool.Server
	replicas    map[string]string // of servers, by their names
	tls         *tls.Config       // nil without a certificate
	reactors    int               // 0: goroutines carry all sessions
	ring        bool              // they use io_uring
	traces      *tls.Config       // nil: traces are sent in the clear, or not at all
}

// prepare reads the files that the configuration names. The error joins everything that is wrong with them.
func prepare(config *configs.Config) (prepared, error) {
	var p prepared
	var problems []error
	attempt := func(key string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", key, err))
		}
	}
	var err error
	p.passwords, err = loadPasswords(config.MasterKeyFile)
	attempt("master_key_file", err)
	dsn, err := url.Parse(string(config.Registry.DSN))
	if err != nil {
		return p, errors.New("registry.dsn: is not a URL") // the parser's own error may hold the password
	}
	p.registryDSN = completed(dsn, p.passwords)
	servers, err := serversOf(config.Servers, dsn)
	attempt("servers", err)
	p.servers, p.replicas = make(map[string]pool.Server, len(servers)), config.Replicas()
	replicas := slices.Collect(maps.Values(p.replicas))
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		server, err := poolServer(servers[name])
		attempt("servers."+name+".sslcert", err)
		if slices.Contains(replicas, name) {
			server = asReplica(server)
		}
		p.servers[name] = server
	}
	p.tls, err = clientTLS(config.TLS)
	attempt("tls", err)
	p.traces, err = tracesTLS(config.Traces)
	attempt("traces.ca_file", err)
	p.reactors, p.ring, err = reactorsOf(config)
	attempt("io", err)
	return p, errors.Join(problems...)
}

// io names what carries the sessions of clients without TLS.
func (p *prepared) io() string {
	switch {
	case p.reactors == 0:
		return "goroutine"
	case p.ring:
		return "iouring"
	}
	return "epoll"
}

func reactorsOf(config *configs.Config) (reactors int, ring bool, err error) {
	switch {
	case config.IO == "goroutine" || config.IO == "auto" && !proxy.HasReactors:
		return 0, false, nil
	case !proxy.HasReactors:
		return 0, false, fmt.Errorf("%s is not to be had on this system", config.IO)
	case config.IO == "epoll":
		return config.Reactors, false, nil
	}
	err = proxy.ProbeRing()
	if err != nil && config.IO == "iouring" {
		return 0, false, fmt.Errorf("iouring is not to be had on this system: %w", err)
	}
	return config.Reactors, err == nil, nil
}

func loadPasswords(keyFile string) (passwords, error) {
	if keyFile == "" {
		return nil, nil
	}
	key, err := secret.Load(keyFile)
	if err != nil {
		return nil, err
	}
	return key.Password, nil
}

// completed is the registry's URL with the role, its derived password when the URL has none, and of several hosts the
// primary: proxies write there, too.
func completed(dsn *url.URL, derive passwords) string {
	completed, query := *dsn, dsn.Query()
	if names, _ := hostsOf(dsn); strings.Contains(names, ",") && !query.Has("target_session_attrs") {
		query.Set("target_session_attrs", "primary")
	}
	user := cmp.Or(query.Get("user"), dsn.User.Username(), registryRole)
	query.Del("user")
	completed.RawQuery = query.Encode()
	password, given := dsn.User.Password()
	switch {
	case given:
		completed.User = url.UserPassword(user, password)
	case derive != nil && user == registryRole && !query.Has("password"):
		completed.User = url.UserPassword(user, derive(registryRole, registryGeneration))
	default:
		completed.User = url.User(user)
	}
	return completed.String()
}

// serversOf are the servers of the configuration. Without any, the registry's own is the only one.
func serversOf(configured map[string]configs.Server, registryDSN *url.URL) (map[string]configs.Server, error) {
	if len(configured) > 0 {
		return configured, nil
	}
	server, err := registryServer(registryDSN)
	if err != nil {
		return nil, err
	}
	return map[string]configs.Server{mainServer: server}, nil
}

// poolServer converts a server of the configuration and reads the certificate that is shown to it.
func poolServer(server configs.Server) (pool.Server, error) {
	converted := pool.Server{
		SessionAttributes: server.TargetSessionAttrs,
		SSLMode:           server.SSLMode,
		SSLRootCert:       server.SSLRootCert,
		MaxConnections:    server.MaxConnections,
	}
	hosts, err := server.Hosts()
	if err != nil {
		return converted, err
	}
	for _, host := range hosts {
		converted.Hosts = append(converted.Hosts, pool.Host(host))
	}
	if server.SSLCert == "" {
		return converted, nil
	}
	shown := &certificateFile{certFile: server.SSLCert, keyFile: server.SSLKey, private: true}
	converted.ClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown.get(), nil }
	return converted, shown.load()
}

// asReplica is a server to which sessions are led for reading: a standby, unless the configuration says otherwise, and
// then one where they do not write by mistake.
func asReplica(server pool.Server) pool.Server {
	server.SessionAttributes = cmp.Or(server.SessionAttributes, "standby")
	server.ReadOnly = server.SessionAttributes == "any" || server.SessionAttributes == "prefer-standby"
	return server
}

// registryServer reads where a URL leads; its query says more than its host, as in libpq (section 34.1.1).
func registryServer(dsn *url.URL) (configs.Server, error) {
	server, query := configs.DefaultServer(), dsn.Query()
	names, ports := hostsOf(dsn)
	server.Host, server.Port = names, configs.Ports(cmp.Or(ports, string(server.Port)))
	if server.Host == "" {
		return server, errors.New("there are none, and registry.dsn names no host that could be used instead")
	}
	if _, err := server.Hosts(); err != nil {
		return server, fmt.Errorf("there are none, and of registry.dsn %w", err)
	}
	server.TargetSessionAttrs = query.Get("target_session_attrs")
	server.SSLMode = cmp.Or(query.Get("sslmode"), server.SSLMode)
	server.SSLRootCert = query.Get("sslrootcert")
	server.SSLCert, server.SSLKey = query.Get("sslcert"), query.Get("sslkey")
	return server, nil
}

// hostsOf are the hosts that a URL names, and their ports, as libpq writes several: with commas.
func hostsOf(dsn *url.URL) (names, ports string) {
	var hosts, numbers []string
	for part := range strings.SplitSeq(dsn.Host, ",") {
		one := url.URL{Host: part}
		hosts, numbers = append(hosts, one.Hostname()), append(numbers, cmp.Or(one.Port(), string(configs.DefaultServer().Port)))
	}
	query := dsn.Query()
	return cmp.Or(query.Get("host"), strings.Join(hosts, ",")), cmp.Or(query.Get("port"), strings.Join(numbers, ","))
}

// newLogger writes to w as the configuration says.
func newLogger(config configs.Log, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(config.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if config.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}
