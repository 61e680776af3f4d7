package pool

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// Host is where a server listens, or one of several that stand in for each other.
type Host struct {
	Name string // a name, an address, or the directory of a unix socket
	Port uint16
}

func (h Host) String() string { return net.JoinHostPort(h.Name, strconv.Itoa(int(h.Port))) }

// hostOf is where a connection leads: the dialer gives each attempt one host.
func hostOf(dialed *pgconn.HijackedConn) Host { return Host{dialed.Config.Host, dialed.Config.Port} }

// attributes is libpq's target_session_attrs (section 34.1.2): at which of the hosts a connection stays.
type attributes string

const (
	anyHost       attributes = "any"
	readWrite     attributes = "read-write"
	readOnly      attributes = "read-only"
	primary       attributes = "primary"
	standby       attributes = "standby"
	preferStandby attributes = "prefer-standby"
)

// allAttributes are libpq's words, in its order.
var allAttributes = [...]attributes{anyHost, readWrite, readOnly, primary, standby, preferStandby}

// single reports whether there can be only one right host at a time.
func (a attributes) single() bool { return a == readWrite || a == primary }

// unsuitableError is a host that could be reached, and is not what is wanted.
type unsuitableError struct{ is, wanted string }

func (e *unsuitableError) Error() string {
	return fmt.Sprintf("it is %s, and target_session_attrs is %s", e.is, e.wanted)
}

// errUnreported is a server from which nobody hears that it has become another.
var errUnreported = errors.New("it does not report in_hot_standby, as Postgres does since version 14")

// accept says whether a server is what is wanted, by what it reports of itself (section 55.2.7).
func (a attributes) accept(parameters map[string]string) error {
	if a == anyHost {
		return nil
	}
	state, ok := parameters["in_hot_standby"]
	if !ok {
		return errUnreported
	}
	return a.suit(state == "on", parameters["default_transaction_read_only"] == "on")
}

// suit says whether a server is what is wanted: one in recovery, one whose transactions are read-only unless they say
// otherwise.
func (a attributes) suit(inStandby, reads bool) error {
	unsuitable := func(is string) error { return &unsuitableError{is, string(a)} }
	switch {
	case inStandby && a.single():
		return unsuitable("a standby")
	case reads && a == readWrite:
		return unsuitable("read-only by default")
	case !inStandby && (a == standby || a == preferStandby):
		return unsuitable("no standby")
	case !inStandby && !reads && a == readOnly:
		return unsuitable("neither a standby nor read-only by default")
	}
	return nil
}

// attributes is what is wanted of the server's hosts.
func (s Server) attributes() attributes {
	switch {
	case s.SessionAttributes != "":
		return attributes(s.SessionAttributes)
	case len(s.Hosts) > 1:
		return primary
	}
	return anyHost
}

func (s Server) validateHosts() error {
	if len(s.Hosts) == 0 {
		return errors.New("no host")
	}
	for _, h := range s.Hosts {
		switch {
		case h.Name == "":
			return errors.New("no host")
		case h.Port == 0:
			return errors.New("no port")
		}
	}
	if a := s.attributes(); !slices.Contains(allAttributes[:], a) {
		return fmt.Errorf("target_session_attrs %q is not one of %v", a, allAttributes)
	}
	return nil
}
