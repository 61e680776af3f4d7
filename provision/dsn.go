package provision

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// registryDSN is where the proxy finds the registry: this connection's server and database as docex_registry, whose
// password the proxy derives.
func registryDSN(c *pgconn.Config) string {
	dsn := url.URL{Scheme: "postgres", User: url.User(RegistryRole), Path: "/" + c.Database}
	query := url.Values{}
	port := strconv.Itoa(int(c.Port))
	if strings.HasPrefix(c.Host, "/") || strings.HasPrefix(c.Host, "@") { // a Unix socket's directory
		query.Set("host", c.Host)
		query.Set("port", port)
	} else {
		dsn.Host = net.JoinHostPort(c.Host, port)
		query.Set("sslmode", sslMode(c))
	}
	dsn.RawQuery = query.Encode()
	return dsn.String()
}

// sslMode finds libpq's word for what pgconn made of it: it does not keep the word.
func sslMode(c *pgconn.Config) string {
	switch {
	case c.TLSConfig == nil:
		return "disable"
	case len(c.Fallbacks) > 0 && c.Fallbacks[0].Host == c.Host && c.Fallbacks[0].TLSConfig == nil:
		return "prefer"
	case !c.TLSConfig.InsecureSkipVerify:
		return "verify-full"
	case c.TLSConfig.VerifyPeerCertificate != nil:
		return "verify-ca"
	default:
		return "require"
	}
}

// parameter finds one that pgconn does not keep in a DSN, a URL or libpq's keywords; "" where it is not there.
func parameter(dsn, name string) string {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		parsed, err := url.Parse(dsn)
		if err != nil {
			return ""
		}
		return parsed.Query().Get(name)
	}
	for _, word := range strings.Fields(dsn) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return strings.Trim(value, "'")
		}
	}
	return ""
}
