package configs

import (
	"log/slog"
	"net"
	"time"
)

// Config is the whole configuration. The fields are explained in docex-proxy.yaml, key by key.
type Config struct {
	Listen        string            `mapstructure:"listen"`
	HTTP          string            `mapstructure:"http"`       // "" = off
	HTTPHosts     []string          `mapstructure:"http_hosts"` // names of the endpoint on loopback
	IO            string            `mapstructure:"io"`         // auto, epoll, iouring or goroutine
	Reactors      int               `mapstructure:"reactors"`
	Log           Log               `mapstructure:"log"`
	Registry      Registry          `mapstructure:"registry"`
	MasterKeyFile string            `mapstructure:"master_key_file"`
	Servers       map[string]Server `mapstructure:"servers"` // by name; empty: the registry's server is "main"
	Identity      Identity          `mapstructure:"identity"`
	Peers         Peers             `mapstructure:"peers"`
	Auth          Auth              `mapstructure:"auth"`
	TLS           TLS               `mapstructure:"tls"`
	Timeouts      Timeouts          `mapstructure:"timeouts"`
	Limits        Limits            `mapstructure:"limits"`
	Pool          Pool              `mapstructure:"pool"`
	Metrics       Metrics           `mapstructure:"metrics"`
	Traces        Traces            `mapstructure:"traces"`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `mapstructure:"level"`  // debug, info, warn or error
	Format string `mapstructure:"format"` // text or json
}

// Registry says where the registry is and how long what it said may be believed.
type Registry struct {
	DSN         Secret        `mapstructure:"dsn"` // a postgres:// URL
	CacheSize   int           `mapstructure:"cache_size"`
	TTL         time.Duration `mapstructure:"ttl"`
	NegativeTTL time.Duration `mapstructure:"negative_ttl"`
	MaxStale    time.Duration `mapstructure:"max_stale"`
}

// Server is one Postgres server that holds tenants.
type Server struct {
	Host               string `mapstructure:"host"` // one, or several with commas, of which one takes another's place
	Port               Ports  `mapstructure:"port"`
	TargetSessionAttrs string `mapstructure:"target_session_attrs"` // libpq's words; "": as many hosts as there are decide
	Replica            string `mapstructure:"replica"`              // the server that replicates this one, "": none
	SSLMode            string `mapstructure:"sslmode"`              // libpq's words
	SSLRootCert        string `mapstructure:"sslrootcert"`
	SSLCert            string `mapstructure:"sslcert"` // with SSLKey, or "": the proxy shows no certificate
	SSLKey             string `mapstructure:"sslkey"`
	MaxConnections     int    `mapstructure:"max_connections"`
}

// Ports is the port of all hosts of a server, or one for each with commas.
type Ports string

// DefaultServer is what a server's entry leaves out.
func DefaultServer() Server { return Server{Port: "5432", SSLMode: "prefer", MaxConnections: 20} }

// Identity switches the places where a client may name its tenant, besides docex.tenant_id and search_path.
type Identity struct {
	UserSuffix bool   `mapstructure:"user_suffix"`
	SNIDomain  string `mapstructure:"sni_domain"` // "" = off
	Database   bool   `mapstructure:"database"`
}

// Peers are the other proxies of the same registry.
type Peers struct {
	Address     string `mapstructure:"address"`      // where they reach this one, HOST:PORT; "" = it is alone
	ShareLimits bool   `mapstructure:"share_limits"` // the tenants' limits hold for all proxies together
}

func (peers Peers) validate(p *problems) {
	if peers.Address != "" {
		p.address(peers.Address, "peers.address")
		host, _, _ := net.SplitHostPort(peers.Address)
		ip := net.ParseIP(host)
		p.check(host != "" && !ip.IsUnspecified(), "peers.address", "%q is no address that others could reach", peers.Address)
	}
	p.check(!peers.ShareLimits || peers.Address != "", "peers.share_limits", "needs peers.address")
}

// Auth says who gets in, and what those are told who do not.
type Auth struct {
	ExposeTenantErrors bool     `mapstructure:"expose_tenant_errors"`
	RequireUserContext bool     `mapstructure:"require_user_context"`
	AllowTrusted       bool     `mapstructure:"allow_trusted"` // serve tenants at isolation level trusted
	Trust              []string `mapstructure:"trust"`         // logins without a password, from loopback only
	Admins             []string `mapstructure:"admins"`        // logins that may use the console
}

// TLS is for the clients' side. Without a certificate there is none.
type TLS struct {
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`
	Required bool   `mapstructure:"required"`
	// ClientCAFile signs the certificates with which clients log in instead of a password; "" = off.
	ClientCAFile string `mapstructure:"client_ca_file"`
}

// Timeouts bound every wait. Zero is no bound, where it is allowed.
type Timeouts struct {
	Startup         time.Duration `mapstructure:"startup"`
	Authentication  time.Duration `mapstructure:"authentication"`
	Connect         time.Duration `mapstructure:"connect"`
	QueueWait       time.Duration `mapstructure:"queue_wait"`
	Frame           time.Duration `mapstructure:"frame"`
	Query           time.Duration `mapstructure:"query"`
	Transaction     time.Duration `mapstructure:"transaction"`
	ClientIdle      time.Duration `mapstructure:"client_idle"`
	IdleTransaction time.Duration `mapstructure:"idle_transaction"`
	ClientWrite     time.Duration `mapstructure:"client_write"`
	Drain           time.Duration `mapstructure:"drain"`
	Upgrade         time.Duration `mapstructure:"upgrade"`
}

// Limits bound what clients may take. The tenants' own, in the registry, go before those named tenant_*; there
// zero is no bound.
type Limits struct {
	Clients                 int `mapstructure:"clients"`
	Startups                int `mapstructure:"startups"`
	TenantClients           int `mapstructure:"tenant_clients"`
	TenantServerConnections int `mapstructure:"tenant_server_connections"`
	LoginFailures           int `mapstructure:"login_failures"`
	MaxStatementBytes       int `mapstructure:"max_statement_bytes"`
	ClientStatements        int `mapstructure:"client_statements"`
}

// Pool is how server connections are kept.
type Pool struct {
	IdleTimeout        time.Duration `mapstructure:"idle_timeout"`
	Lifetime           time.Duration `mapstructure:"lifetime"`
	TenantsSeen        int           `mapstructure:"tenants_seen"`
	Quantum            time.Duration `mapstructure:"quantum"`
	PreparedStatements int           `mapstructure:"prepared_statements"`
}

// Metrics bounds the series.
type Metrics struct {
	MaxTenants int `mapstructure:"max_tenants"`
}

// Traces says where spans go, and how many.
type Traces struct {
	Endpoint string  `mapstructure:"endpoint"` // host:port of OTLP over HTTP; "" = off
	Sample   float64 `mapstructure:"sample"`   // of logins and of transactions, 0 to 1
	Insecure bool    `mapstructure:"insecure"` // HTTP without TLS
	CAFile   string  `mapstructure:"ca_file"`  // "" = the system's
}

// Default is the configuration of an empty file. It lacks registry.dsn, which has no default, and is not valid
// without it.
func Default() *Config {
	return &Config{
		Listen:    "127.0.0.1:6432",
		HTTP:      "127.0.0.1:9127",
		HTTPHosts: []string{},
		IO:        "auto",
		Reactors:  1,
		Log:       Log{Level: "info", Format: "text"},
		Registry:  Registry{CacheSize: 10000, TTL: time.Minute, NegativeTTL: 5 * time.Second, MaxStale: 10 * time.Minute},
		Servers:   map[string]Server{},
		Identity:  Identity{UserSuffix: true},
		Auth:      Auth{Trust: []string{}, Admins: []string{}},
		Timeouts: Timeouts{
			Startup:         10 * time.Second,
			Authentication:  10 * time.Second,
			Connect:         5 * time.Second,
			QueueWait:       30 * time.Second,
			Frame:           time.Minute,
			IdleTransaction: 10 * time.Minute,
			ClientWrite:     10 * time.Minute,
			Upgrade:         time.Hour,
			Drain:           30 * time.Second,
		},
		Limits:  Limits{Clients: 10000, Startups: 2000, LoginFailures: 20, MaxStatementBytes: 16 << 20, ClientStatements: 5000},
		Pool:    Pool{IdleTimeout: 10 * time.Minute, Lifetime: time.Hour, TenantsSeen: 1000, Quantum: 20 * time.Millisecond, PreparedStatements: 200},
		Metrics: Metrics{MaxTenants: 500},
		Traces:  Traces{Sample: 0.01},
	}
}

// Secret is a text that must not be seen: printed or logged in any way it is "[redacted]". Its value is
// string(secret).
type Secret string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps it out of JSON and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
