package metrics

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Hosts says which names the endpoint answers to. On loopback these are loopback's own and those in names: a page from
// elsewhere, whose name has been made to lead here, must not be able to read it by a browser. Elsewhere it is whatever
// name leads there.
type Hosts struct {
	Loopback bool
	Names    []string
}

func (h Hosts) allow(header string) bool {
	if !h.Loopback {
		return true
	}
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = header
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(host, "]"), "["), "."))
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback() || host == "localhost" || slices.ContainsFunc(h.Names, func(name string) bool {
		return strings.EqualFold(name, host)
	})
}

// only lets through what is meant for one of the hosts.
func (h Hosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.allow(r.Host) {
			writeText(w, http.StatusMisdirectedRequest, "this is served to localhost, and to the names in http_hosts")
			return
		}
		next.ServeHTTP(w, r)
	})
}
