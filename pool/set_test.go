package pool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/pool"
)

func TestTheFirstQueryRunsAsTheRoleOfTheTargetOnItsSearchPath(t *testing.T) {
	b := newBench(t, 4)
	set := b.set()
	for _, target := range b.tenants(3) {
		c := acquire(t, set, target, 0)
		if got := mustAsk(t, c, "SELECT name FROM whoami"); got != target.Tenant {
			t.Errorf("tenant %s read the table of %s", target.Tenant, got)
		}
		if got := mustAsk(t, c, "SELECT session_user||' '||current_user"); got != target.Role+" "+target.Role {
			t.Errorf("the users are %s, want twice %s", got, target.Role)
		}
		if got := mustAsk(t, c, "SHOW search_path"); got != target.SearchPath {
			t.Errorf("the search path is %s, want %s", got, target.SearchPath)
		}
		if got := c.Parameters()["client_encoding"]; got != "UTF8" {
			t.Errorf("the client encoding is %q", got)
		}
		if got := mustAsk(t, c, "SELECT pg_backend_pid()"); got != fmt.Sprint(c.PID()) {
			t.Errorf("the backend is %s, PID says %d", got, c.PID())
		}
		if c.Target() != target {
			t.Errorf("the connection says it is for %v, want %v", c.Target(), target)
		}
		c.Release()
	}
}

func TestTheEnvironmentDoesNotReachServerConnections(t *testing.T) {
	b := newBench(t, 1)
	target := b.tenant("env")
	for name, value := range map[string]string{
		"PGHOST": "nowhere.invalid", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "nothing", "PGPASSWORD": "wrong",
		"PGOPTIONS": "-c search_path=pg_catalog", "PGAPPNAME": "somebody", "PGTZ": "Asia/Tokyo", "PGSSLMODE": "verify-full",
		"PGSSLROOTCERT": "/nowhere", "PGTARGETSESSIONATTRS": "standby", "PGREQUIREAUTH": "gss", "PGCHANNELBINDING": "require",
	} {
		t.Setenv(name, value)
	}
	c := acquire(t, b.set(), target, 0)
	defer c.Release()
	if got := mustAsk(t, c, "SELECT current_setting('search_path')||' '||current_setting('application_name')"); got != target.SearchPath+" " {
		t.Errorf("the settings are %s", got)
	}
	if zone := mustAsk(t, c, "SHOW timezone"); zone == "Asia/Tokyo" {
		t.Error("PGTZ reached the server")
	}
}

func TestTheConnectionUsedLastIsLeasedFirstWithItsState(t *testing.T) {
	b := newBench(t, 4)
	b.options.NewState = func() any { return new(int) }
	set, target := b.set(), b.tenant("lifo")
	first, second := acquire(t, set, target, 0), acquire(t, set, target, 0)
	*second.State.(*int) = 42
	first.Release()
	second.Release()
	again := acquire(t, set, target, 0)
	defer again.Release()
	if again.PID() != second.PID() || *again.State.(*int) != 42 {
		t.Errorf("backend %d with state %d came back, want %d with 42", again.PID(), *again.State.(*int), second.PID())
	}
}

func TestTheIdleConnectionUsedLeastRecentlyMakesRoom(t *testing.T) {
	b := newBench(t, 2)
	b.options.Quantum = time.Minute // no connection is old enough to be given up for its age
	set, targets := b.set(), b.tenants(3)
	for _, target := range targets[:2] {
		acquire(t, set, target, 0).Release()
	}
	acquire(t, set, targets[0], 0).Release()
	acquire(t, set, targets[2], 0).Release()
	if idle := stat(set, targets[0]).Idle; idle != 1 {
		t.Errorf("the target used last has %d idle connections, want its one", idle)
	}
	if stat(set, targets[1]) != (pool.Stat{Target: targets[1]}) {
		t.Errorf("the target used least recently kept %+v", stat(set, targets[1]))
	}
	if n := b.backends(); n != 2 {
		t.Errorf("%d backends, want 2", n)
	}
}

func TestALimitBoundsTheConnectionsOfATarget(t *testing.T) {
	b := newBench(t, 4)
	set, target := b.set(), b.tenant("limited")
	first, second := acquire(t, set, target, 2), acquire(t, set, target, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := set.Acquire(ctx, target, 2)
	var queue *pool.QueueError
	if !errors.As(err, &queue) || !errors.Is(err, context.DeadlineExceeded) || queue.Waited < 40*time.Millisecond {
		t.Errorf("past the limit: %v", err)
	}
	other := acquire(t, set, b.tenant("unlimited"), 0) // the rest of the budget is there for others
	other.Release()
	first.Release()
	third := acquire(t, set, target, 2)
	if third.PID() != first.PID() {
		t.Errorf("backend %d was leased, want the released %d", third.PID(), first.PID())
	}
	second.Release()
	third.Release()
}

func TestALoweredLimitClosesWhatIsAboveIt(t *testing.T) {
	b := newBench(t, 4)
	set, target := b.set(), b.tenant("lowered")
	leases := []*pool.Conn{acquire(t, set, target, 0), acquire(t, set, target, 0), acquire(t, set, target, 0)}
	leases[0].Release()
	acquire(t, set, target, 1).Release()
	leases[1].Release()
	leases[2].Release()
	eventually(t, "one backend is left", func() bool { return b.backends() == 1 })
}

func TestAWrongPasswordIsAConnectErrorThatHoldsTheServersOwn(t *testing.T) {
	b := newBench(t, 1)
	target := b.tenant("scram")
	passwords := map[int]string{1: "wrong", 2: "right"}
	b.options.Password = func(role string, generation int) string {
		if role != target.Role {
			t.Errorf("asked for the password of %s", role)
		}
		return passwords[generation]
	}
	set := b.set()
	target.Generation = 1
	_, err := set.Acquire(t.Context(), target, 0)
	var connect *pool.ConnectError
	var server *pgconn.PgError
	if !errors.As(err, &connect) || connect.Server != "main" || !errors.As(err, &server) || server.Code != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
	target.Generation = 2
	acquire(t, set, target, 0).Release()
}

func TestAPasswordIsNotSentInClearText(t *testing.T) {
	b := newBench(t, 1)
	target := b.tenant("clear")
	b.requireAuthentication(target.Role, "password")
	b.options.Password = func(string, int) string { return "right" }
	_, err := b.set().Acquire(t.Context(), target, 0)
	var connect *pool.ConnectError
	if !errors.As(err, &connect) {
		t.Errorf("a server that asks for clear text: %v", err)
	}
}

func TestAServerThatCannotBeReachedIsAConnectErrorWithinTheTimeout(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	b := newBench(t, 1)
	b.options.ConnectTimeout = 200 * time.Millisecond
	servers := maps.Clone(b.options.Servers)
	for name, l := range map[string]net.Listener{"mute": mute, "gone": gone} {
		server := servers["main"]
		server.Hosts = []pool.Host{{Name: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}}
		servers[name] = server
	}
	b.options.Servers = servers
	set := b.set()
	for _, name := range []string{"mute", "gone", "unknown"} {
		began := time.Now()
		_, err := set.Acquire(t.Context(), pool.Target{Server: name, Role: "r", Database: "d"}, 0)
		var connect *pool.ConnectError
		if !errors.As(err, &connect) || connect.Server != name {
			t.Errorf("server %s: %v", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("server %s took %v", name, took)
		}
	}
}

func TestAFailedConnectFreesItsSlotForTheNext(t *testing.T) {
	b := newBench(t, 1)
	set, good := b.set(), b.tenant("good")
	bad := pool.Target{Server: "main", Database: b.database, Role: "nobody_knows_me", Tenant: "bad"}
	held := acquire(t, set, good, 0)
	failures := make(chan error, 3)
	for range cap(failures) {
		go func() {
			_, err := set.Acquire(context.Background(), bad, 0)
			failures <- err
		}()
	}
	eventually(t, "they wait", func() bool { return stat(set, bad).Waiting == cap(failures) })
	held.Release()
	for range cap(failures) {
		var connect *pool.ConnectError
		if err := <-failures; !errors.As(err, &connect) {
			t.Errorf("a role that does not exist: %v", err)
		}
	}
	acquire(t, set, good, 0).Release()
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	b := newBench(t, 1)
	fine := b.options.Servers["main"]
	for name, spoil := range map[string]func(*pool.Server){
		"no host": func(s *pool.Server) { s.Hosts = nil },
		"no port": func(s *pool.Server) { s.Hosts = []pool.Host{{Name: "db"}} },
		"no name": func(s *pool.Server) { s.Hosts = []pool.Host{{Name: "db", Port: 1}, {Port: 1}} },
		"no such": func(s *pool.Server) { s.SessionAttributes = "master" },
		"no room": func(s *pool.Server) { s.MaxConnections = 0 },
		"sslmode": func(s *pool.Server) { s.SSLMode = "allow" },
		"CA file": func(s *pool.Server) { s.SSLMode, s.SSLRootCert = "verify-full", "/nowhere/root.crt" },
	} {
		options, server := b.options, fine
		spoil(&server)
		options.Servers = map[string]pool.Server{"main": server}
		if _, err := pool.New(options); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
