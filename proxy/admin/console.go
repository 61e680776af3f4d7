package admin

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Tenant is what is known of one tenant's use of this proxy, since it started.
type Tenant struct {
	Name         string
	Sessions     int
	Transactions int64
	Received     int64         // bytes, from clients
	Sent         int64         // bytes, to clients
	Waited       time.Duration // for server connections
}

// Pool is the server connections of one tenant.
type Pool struct {
	Tenant, Role, Server, Database    string
	Isolation                         string // role, slot, trusted or database
	Replica                           bool   // the server replicates the tenant's, and is for reading
	Idle, Active, Connecting, Waiting int
}

// Session is one client connection past its login.
type Session struct {
	ID                        uint64
	Tenant, User, Application string
	Address                   netip.AddrPort
	Began                     time.Time
	TLS, OwnConnection        bool
	Replica                   bool     // it has asked for the tenant's replica
	Pins                      []string // reasons for which it has kept a server connection so far
}

// Server is one Postgres server of the configuration.
type Server struct {
	Name, Host string
	Port       uint16
	Max        int // server connections
}

// Peer is a proxy of the same registry.
type Peer struct {
	Number int
	Host   string
	Port   uint16
}

// Setting is one key of the configuration.
type Setting struct{ Key, Value, Default string }

// Options is what a Console shows and does. All functions may be called at the same time.
type Options struct {
	Version  string
	Tenants  func() []Tenant
	Pools    func() []Pool
	Sessions func() []Session
	Servers  func() []Server
	Settings func() []Setting
	Peers    func() []Peer // the proxies that are alive, this one included, by their numbers

	Kill      func(tenant string) int // ends a tenant's sessions and says how many; "" is all tenants
	Reconnect func(tenant string)     // has server connections closed when they are released; "" all
	// WaitClose returns when those that a Reconnect has found are closed.
	WaitClose func(ctx context.Context, tenant string) error
	// Pause holds back new transactions of a tenant, "" for all, and returns when none runs any more and their server
	// connections are closed. When ctx ends before, nothing is paused. Resume ends a pause of the same name; it reports
	// false when there is none.
	Pause    func(ctx context.Context, tenant string) error
	Resume   func(tenant string) bool
	Paused   func() []string
	Reload   func(ctx context.Context) error
	Shutdown func()
	// Explain says what the proxy would do with a client that sends these startup parameters, in words.
	Explain func(ctx context.Context, parameters map[string]string) ([][2]string, error)

	Now func() time.Time // nil: time.Now
}

// Console answers commands. It is safe for concurrent use.
type Console struct {
	o Options

	mu       sync.Mutex // guards what follows
	earlier  sample     // where the averages begin
	latest   sample
	averages time.Duration
}

// New makes a Console.
func New(o Options) *Console {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Console{o: o, earlier: sample{at: o.Now()}, latest: sample{at: o.Now()}}
}

// Error is an answer to a command that cannot be served.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Hint    string
}

func (e *Error) Error() string { return e.Message }

var errUnsupported = &Error{Code: "0A000", Message: "the console speaks the simple query protocol only", Hint: "psql does; in drivers it has to be asked for"}

// table is an answer.
type table struct {
	columns []column
	rows    [][]any // string, int64, or nil for NULL
	tag     string
}

type column struct {
	name    string
	integer bool
}

// texts and integers make columns by their names; one that begins with # is a number.
func columnsOf(names string) []column {
	var all []column
	for _, name := range strings.Fields(names) {
		bare, integer := strings.CutPrefix(name, "#")
		all = append(all, column{bare, integer})
	}
	return all
}

// run answers one command.
func (c *Console) run(ctx context.Context, command string) (*table, error) {
	words, err := split(command)
	if err != nil {
		return nil, err
	}
	verb, rest := strings.ToUpper(words[0]), words[1:]
	switch verb {
	case "SHOW":
		return c.show(rest)
	case "KILL":
		if len(rest) != 1 {
			return nil, syntax("KILL names one tenant")
		}
		c.o.Kill(rest[0])
		return &table{tag: "KILL"}, nil
	case "RECONNECT":
		if len(rest) > 1 {
			return nil, syntax("RECONNECT names one tenant, or none for all")
		}
		c.o.Reconnect(strings.Join(rest, ""))
		return &table{tag: "RECONNECT"}, nil
	case "WAIT_CLOSE":
		if len(rest) > 1 {
			return nil, syntax("WAIT_CLOSE names one tenant, or none for all")
		}
		if err := c.o.WaitClose(ctx, strings.Join(rest, "")); err != nil {
			return nil, &Error{Code: "57014", Message: "still in use: " + err.Error()}
		}
		return &table{tag: verb}, nil
	case "PAUSE", "RESUME":
		if len(rest) > 1 {
			return nil, syntax(verb + " names one tenant, or none for all")
		}
		return c.pause(ctx, verb, strings.Join(rest, ""))
	case "RELOAD":
		if err := c.o.Reload(ctx); err != nil {
			return nil, &Error{Code: "F0000", Message: "nothing is reloaded: " + err.Error()}
		}
		return &table{tag: "RELOAD"}, nil
	case "SHUTDOWN":
		c.o.Shutdown()
		return &table{tag: "SHUTDOWN"}, nil
	case "EXPLAIN":
		return c.explain(ctx, rest)
	case "SET", "BEGIN", "COMMIT", "ROLLBACK": // drivers say so unasked
		return &table{tag: verb}, nil
	case "SUSPEND", "DISABLE", "ENABLE", "KILL_CLIENT":
		return nil, &Error{Code: "0A000", Message: verb + " is not supported", Hint: "SHOW HELP lists what is; docexctl tenant suspend keeps a tenant out."}
	}
	return nil, syntax("unknown command: SHOW HELP lists those that there are")
}

// pausePatience is how long PAUSE waits for what runs.
const pausePatience = time.Minute

// pause serves PAUSE and RESUME.
func (c *Console) pause(ctx context.Context, verb, tenant string) (*table, error) {
	if verb == "RESUME" {
		if !c.o.Resume(tenant) {
			return nil, &Error{Code: "55000", Message: "nothing of that name is paused"}
		}
		return &table{tag: verb}, nil
	}
	ctx, stop := context.WithTimeout(ctx, pausePatience)
	defer stop()
	if err := c.o.Pause(ctx, tenant); err != nil {
		return nil, &Error{Code: "55000", Message: "nothing is paused: " + err.Error()}
	}
	return &table{tag: verb}, nil
}

func syntax(text string) error { return &Error{Code: "42601", Message: text} }

// split reads words, and text in single or double quotes as one.
func split(command string) ([]string, error) {
	var words []string
	for rest := strings.TrimSpace(command); rest != ""; rest = strings.TrimLeft(rest, " \t\r\n") {
		if quote := rest[0]; quote == '\'' || quote == '"' {
			end := strings.IndexByte(rest[1:], quote)
			if end < 0 {
				return nil, syntax("a quote is not closed")
			}
			words, rest = append(words, rest[1:1+end]), rest[2+end:]
			continue
		}
		end := strings.IndexAny(rest, " \t\r\n'\"")
		if end < 0 {
			end = len(rest)
		}
		words, rest = append(words, rest[:end]), rest[end:]
	}
	if len(words) == 0 {
		return nil, errors.New("no command") // the caller has looked
	}
	return words, nil
}

// explain takes EXPLAIN ROUTE and startup parameters, as name=value or 'name=value'.
func (c *Console) explain(ctx context.Context, words []string) (*table, error) {
	if len(words) < 2 || !strings.EqualFold(words[0], "ROUTE") {
		return nil, syntax("say EXPLAIN ROUTE user=login.tenant, with what else a client would send")
	}
	parameters := make(map[string]string)
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, syntax("a startup parameter is NAME=VALUE")
		}
		parameters[name] = value
	}
	lines, err := c.o.Explain(ctx, parameters)
	if err != nil {
		return nil, &Error{Code: "08006", Message: err.Error()}
	}
	t := &table{columns: columnsOf("key value"), tag: "EXPLAIN"}
	for _, line := range lines {
		t.rows = append(t.rows, []any{line[0], line[1]})
	}
	return t, nil
}
