package configs

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sslModes are libpq's, less allow, which tries without TLS first.
var sslModes = [...]string{"disable", "prefer", "require", "verify-ca", "verify-full"}

// sessionAttrs are libpq's, and "" for what the number of hosts says.
var sessionAttrs = [...]string{"", "any", "read-write", "read-only", "primary", "standby", "prefer-standby"}

// problems collects what is wrong, key by key.
type problems struct{ errs []error }

func (p *problems) check(ok bool, key, format string, args ...any) {
	if !ok {
		p.errs = append(p.errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
}

func (p *problems) oneOf(value, key string, allowed ...string) {
	p.check(slices.Contains(allowed, value), key, "%q is not one of %s", value, strings.Join(allowed, ", "))
}

func (p *problems) atLeast(minimum, value int, key string) {
	p.check(value >= minimum, key, "%d is less than %d", value, minimum)
}

func (p *problems) positive(value time.Duration, key string) {
	p.check(value > 0, key, "%s is not more than 0", value)
}

func (p *problems) notNegative(value time.Duration, key string) {
	p.check(value >= 0, key, "%s is negative", value)
}

func (p *problems) address(value, key string) {
	_, port, err := net.SplitHostPort(value)
	_, portErr := strconv.ParseUint(port, 10, 16)
	p.check(err == nil && portErr == nil, key, "%q is not host:port", value)
}

// Validate checks every value and joins the errors, each of which begins with its key.
func (c *Config) Validate() error {
	p := &problems{}
	p.address(c.Listen, "listen")
	if c.HTTP != "" {
		p.address(c.HTTP, "http")
	}
	p.check(!slices.ContainsFunc(c.HTTPHosts, noHostName), "http_hosts", "holds what is no host name: it has neither a port nor spaces")
	p.oneOf(c.IO, "io", words()["io"]...)
	p.atLeast(1, c.Reactors, "reactors")
	p.oneOf(c.Log.Level, "log.level", words()["log.level"]...)
	p.oneOf(c.Log.Format, "log.format", words()["log.format"]...)
	c.Registry.validate(p)
	c.Peers.validate(p)
	for _, name := range slices.Sorted(maps.Keys(c.Servers)) {
		c.Servers[name].validate(p, name)
	}
	c.validateReplicas(p)
	c.validateClients(p)
	c.Timeouts.validate(p)
	c.Limits.validate(p)
	c.Pool.validate(p)
	p.atLeast(1, c.Metrics.MaxTenants, "metrics.max_tenants")
	c.Traces.validate(p)
	return errors.Join(p.errs...)
}

func noHostName(name string) bool { return name == "" || strings.ContainsAny(name, " /:*") }

func (r Registry) validate(p *problems) {
	const key = "registry.dsn"
	if r.DSN == "" {
		p.check(false, key, "has to be set; `docexctl init` prints it")
	} else {
		// The parser's own error may hold the password.
		dsn, err := url.Parse(string(r.DSN))
		p.check(err == nil && (dsn.Scheme == "postgres" || dsn.Scheme == "postgresql"), key, "is not a URL postgres://user@host:port/database")
	}
	p.atLeast(1, r.CacheSize, "registry.cache_size")
	p.positive(r.TTL, "registry.ttl")
	p.positive(r.NegativeTTL, "registry.negative_ttl")
	p.notNegative(r.MaxStale, "registry.max_stale")
}

func (s Server) validate(p *problems, name string) {
	key := serversPrefix + name
	p.check(serverName.MatchString(name), key, "the name of a server is lower-case letters, digits, _ and -")
	hosts, err := s.Hosts()
	p.check(s.Host != "", key+".host", "has to be set")
	p.check(s.Host == "" || !slices.ContainsFunc(hosts, func(h Host) bool { return h.Name == "" }), key+".host", "%q holds an empty name", s.Host)
	p.check(err == nil, key+".port", "%v", err)
	p.check(slices.Contains(sessionAttrs[:], s.TargetSessionAttrs), key+".target_session_attrs", "%q is not one of %s", s.TargetSessionAttrs, strings.Join(sessionAttrs[1:], ", "))
	p.oneOf(s.SSLMode, key+".sslmode", sslModes[:]...)
	p.check(s.SSLCert != "" || s.SSLKey == "", key+".sslcert", "has to be set when %s.sslkey is", key)
	p.check(s.SSLKey != "" || s.SSLCert == "", key+".sslkey", "has to be set when %s.sslcert is", key)
	p.check(s.SSLCert == "" || s.SSLMode != "disable", key+".sslcert", "is not shown to anybody with sslmode disable")
	p.atLeast(1, s.MaxConnections, key+".max_connections")
}

func (c *Config) validateClients(p *problems) {
	domain := c.Identity.SNIDomain
	if domain != "" {
		p.check(!strings.HasPrefix(domain, ".") && !strings.ContainsAny(domain, " /:*"), "identity.sni_domain", "%q is no domain name", domain)
		p.check(c.TLS.CertFile != "", "identity.sni_domain", "needs tls.cert_file: there is no server name without TLS")
	}
	p.check(!slices.Contains(c.Auth.Trust, ""), "auth.trust", "holds an empty name")
	p.check(!slices.Contains(c.Auth.Admins, ""), "auth.admins", "holds an empty name")
	p.check(c.TLS.CertFile != "" || c.TLS.KeyFile == "", "tls.cert_file", "has to be set when tls.key_file is")
	p.check(c.TLS.KeyFile != "" || c.TLS.CertFile == "", "tls.key_file", "has to be set when tls.cert_file is")
	p.check(!c.TLS.Required || c.TLS.CertFile != "", "tls.required", "needs tls.cert_file")
	p.check(c.TLS.ClientCAFile == "" || c.TLS.CertFile != "", "tls.client_ca_file", "needs tls.cert_file")
}

func (t Timeouts) validate(p *problems) {
	// Without these three a stranger could wait for ever.
	p.positive(t.Startup, "timeouts.startup")
	p.positive(t.Authentication, "timeouts.authentication")
	p.positive(t.Connect, "timeouts.connect")

	p.notNegative(t.QueueWait, "timeouts.queue_wait")
	p.notNegative(t.Frame, "timeouts.frame")
	p.notNegative(t.Query, "timeouts.query")
	p.notNegative(t.Transaction, "timeouts.transaction")
	p.notNegative(t.ClientIdle, "timeouts.client_idle")
	p.notNegative(t.IdleTransaction, "timeouts.idle_transaction")
	p.notNegative(t.ClientWrite, "timeouts.client_write")
	p.notNegative(t.Drain, "timeouts.drain")
	p.notNegative(t.Upgrade, "timeouts.upgrade")
}

func (l Limits) validate(p *problems) {
	p.atLeast(1, l.Clients, "limits.clients")
	p.atLeast(1, l.Startups, "limits.startups")
	p.atLeast(0, l.LoginFailures, "limits.login_failures")
	p.atLeast(0, l.TenantClients, "limits.tenant_clients")
	p.atLeast(0, l.TenantServerConnections, "limits.tenant_server_connections")
	p.atLeast(1, l.MaxStatementBytes, "limits.max_statement_bytes")
	p.atLeast(1, l.ClientStatements, "limits.client_statements")
}

func (pool Pool) validate(p *problems) {
	p.positive(pool.IdleTimeout, "pool.idle_timeout")
	p.positive(pool.Lifetime, "pool.lifetime")
	p.atLeast(0, pool.TenantsSeen, "pool.tenants_seen")
	p.positive(pool.Quantum, "pool.quantum")
	p.atLeast(1, pool.PreparedStatements, "pool.prepared_statements")
}

func (t Traces) validate(p *problems) {
	if t.Endpoint != "" {
		p.address(t.Endpoint, "traces.endpoint")
	}
	p.check(t.Sample >= 0 && t.Sample <= 1, "traces.sample", "%v is not between 0 and 1", t.Sample)
	p.check(t.CAFile == "" || !t.Insecure, "traces.ca_file", "is for TLS, which traces.insecure turns off")
}
