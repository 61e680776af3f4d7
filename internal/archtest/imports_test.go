package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/docex-proxy/docex-proxy"

// room is what a package may import, tests aside. Names are relative to the module.
type room struct {
	ours   []string // packages of the project
	barred []string // packages of the standard library that it must do without
	why    string   // why not more
}

var rooms = map[string]room{
	"cmd/docex-proxy": {
		ours: []string{"configs", "metrics", "metrics/status", "metrics/traces", "registry", "router", "pool", "proxy", "proxy/admin", "proxy/peers", "provision", "internal/buildinfo", "internal/localpg", "internal/manpage", "internal/secret"},
		why:  "the command only wires; it speaks no protocol and no SQL",
	},
	"cmd/docexctl": {
		ours: []string{"configs", "registry", "provision", "provision/sqlite", "router", "internal/buildinfo", "internal/manpage", "internal/secret"},
		why:  "docexctl works on Postgres and never needs the data path; what the proxy would decide, the router says",
	},
	"proxy": {
		ours: []string{"proxy/peers", "proxy/reactor", "proxy/relay", "router", "pool", "metrics", "metrics/traces", "registry", "internal/scram"},
		why:  "a session makes two calls outward, route and acquire; it neither reads the registry nor provisions",
	},
	"proxy/admin": {barred: []string{"net/http", "os", "crypto/tls"}, why: "the console is given what it shows and does"},
	"proxy/peers": {ours: []string{"registry"}, why: "other proxies are known by the registry, and told nothing but cancel requests"},
	"proxy/relay": {
		barred: []string{"net", "net/http", "os", "time", "context", "crypto/tls"},
		why:    "the session's state machine knows no socket and no clock, so that it can be tested as a value and driven in more than one way",
	},
	"proxy/reactor": {why: "it waits for descriptors and for times, and does not know what they are for"},
	"router": {
		ours:   []string{"registry", "pool"},
		barred: []string{"net", "net/http", "crypto/tls", "database/sql"},
		why:    "routing is pure policy: no sockets, no SQL",
	},
	"registry": {
		ours: []string{"metrics"},
		why:  "the registry says what is, and cannot open a connection of a tenant or change what is",
	},
	"pool/slots": {why: "it switches connections of its own; which, and for whom, the pool says"},
	"pool": {
		ours: []string{"metrics", "pool/slots", "internal/scram"},
		why:  "the pool cannot ask who a tenant is: its targets come complete",
	},
	"provision": {
		ours: []string{"registry", "internal/secret", "internal/scram"},
		why:  "all DDL is here, and nothing of the data path",
	},
	"provision/sqlite":   {ours: []string{"registry"}, why: "DocEX's files; it knows nothing of Postgres"},
	"metrics/status":     {barred: []string{"os", "crypto/tls"}, why: "the page is given what it shows"},
	"metrics/traces":     {barred: []string{"net", "net/http"}, why: "a leaf: it takes names and numbers, and the library sends them"},
	"metrics":            {why: "a leaf: everything that is measured may import it"},
	"configs":            {why: "a leaf: only commands see a configuration"},
	"internal/localpg":   {why: "it runs programs; it knows nothing of what they are for"},
	"internal/buildinfo": {why: "a leaf"},
	"internal/manpage":   {ours: []string{"internal/buildinfo"}, why: "it writes down what commands say of themselves"},
	"internal/secret":    {why: "a leaf"},
	"internal/scram":     {why: "a leaf"},
	"internal/archtest":  {why: "it reads the project from outside"},
	"internal/pgtest":    {ours: []string{"internal/localpg"}, why: "it gives tests a Postgres, nothing else"},
	"examples/pgx":       {why: "a user's program: an ordinary driver, nothing of the project"},
	"e2e/program":        {why: "it builds and runs the programs; it knows nothing of what they are tried for"},
	"e2e/bench":          {ours: []string{"e2e/program", "internal/localpg"}, why: "a black box too: it measures the programs beside others"},
	"e2e/browser":        {why: "a black box too: it looks at the status page as people do"},
	"e2e/churn":          {ours: []string{"e2e/program", "internal/localpg"}, why: "a black box too: it uses the programs as many tenants would"},
	"e2e/compat":         {ours: []string{"e2e/program", "internal/localpg"}, why: "a black box too: it speaks to the programs as drivers do"},
	"e2e/docexapp":       {ours: []string{"e2e/program", "internal/localpg"}, why: "a black box too: it has DocEX itself use the programs"},
	"e2e/faults":         {ours: []string{"e2e/program", "internal/localpg"}, why: "a black box too: it breaks what the programs stand on"},
	"e2e/isolation":      {ours: []string{"e2e/program", "internal/localpg"}, why: "a black box too: it attacks the programs as a tenant would"},
	"e2e/sim":            {ours: []string{"pool", "proxy/peers", "registry", "router"}, why: "what decides in its proxies is the product's own, what is around them a model: it needs neither Postgres nor the programs"},
	"e2e":                {why: "a black box: it runs the programs, and would not notice what they really do if it used their packages"},
}

// library is where a module, or a package of one, may be imported, tests aside.
type library struct {
	rooms []string
	why   string
}

// libraries are the prefixes of import paths; the longest that fits an import decides.
var libraries = map[string]library{
	"github.com/jackc/pgx/v5":                    {[]string{"registry", "provision", "internal/pgtest", "e2e", "e2e/bench", "e2e/churn", "e2e/compat", "e2e/faults", "e2e/isolation", "examples/pgx"}, "SQL is for these; the proxy itself speaks the protocol"},
	"github.com/jackc/pgx/v5/pgconn":             {[]string{"cmd/docexctl", "registry", "provision", "pool", "pool/slots", "internal/pgtest", "e2e", "e2e/bench", "e2e/churn", "e2e/compat", "e2e/faults", "e2e/isolation", "e2e/sim"}, "pool dials and authenticates with pgconn, and takes the connection out of it; docexctl reads a client's DSN as a driver does; a simulation has connections that are none"},
	"github.com/jackc/pgx/v5/pgproto3":           {nil, "two families of message types must not meet: the proxy's is pgproto3/v2"},
	"github.com/jackc/pgproto3/v2":               {[]string{"proxy", "proxy/admin"}, "messages are decoded where sessions begin, and nowhere on the hot path"},
	"github.com/jackc/puddle/v2":                 {[]string{"pool"}, "pooling is decided in one place"},
	"github.com/hashicorp/golang-lru/v2":         {[]string{"registry"}, "it is the registry's cache"},
	"golang.org/x/time":                          {[]string{"registry", "proxy"}, "rates of lookups and of logins"},
	"golang.org/x/sync":                          {[]string{"cmd/docex-proxy", "cmd/docexctl", "e2e/bench", "e2e/churn"}, "goroutines that fail together are the command's"},
	"github.com/prometheus/client_golang":        {[]string{"metrics", "cmd/docex-proxy"}, "the others count with verbs of metrics.Metrics; the command makes the registry object"},
	"go.opentelemetry.io":                        {[]string{"metrics/traces"}, "the others speak of spans in words that have no room for what must not be in them"},
	"github.com/cloudflare/tableflip":            {[]string{"cmd/docex-proxy"}, "listeners go from process to process in the command"},
	"github.com/vbauerster/mpb/v8":               {[]string{"cmd/docexctl"}, "a bar is for people"},
	"modernc.org/sqlite":                         {[]string{"provision/sqlite"}, "files of SQLite are one room's"},
	"github.com/spf13/viper":                     {[]string{"configs"}, "configuration is read in one place"},
	"github.com/go-viper/mapstructure/v2":        {[]string{"configs"}, "viper's decoder"},
	"go.yaml.in/yaml/v3":                         {[]string{"configs", "cmd/docexctl"}, "the proxy's configuration, and DocEX's"},
	"github.com/spf13/cobra":                     {[]string{"cmd/docex-proxy", "cmd/docexctl", "internal/manpage"}, "command lines are the commands'"},
	"github.com/spf13/pflag":                     {[]string{"cmd/docex-proxy", "cmd/docexctl"}, "command lines are the commands'"},
	"github.com/fergusstrange/embedded-postgres": {[]string{"internal/localpg"}, "it fetches server programs, and only where nothing else is there"},
	"go.uber.org/goleak":                         {[]string{"internal/pgtest"}, "it is for tests"},
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func (p listed) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func packages(t *testing.T) []listed {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var one listed
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	for _, p := range packages(t) {
		room, ok := rooms[p.name()]
		if !ok {
			t.Errorf("%s is not among the rooms: enter it, with what it may import and why not more", p.name())
			continue
		}
		for _, path := range p.Imports {
			ours, isOurs := strings.CutPrefix(path, module+"/")
			if isOurs && !slices.Contains(room.ours, ours) || slices.Contains(room.barred, path) {
				t.Errorf("%s must not import %s: %s", p.name(), path, room.why)
			}
		}
	}
}

func TestLibrariesStayInTheirRooms(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.Imports {
			if strings.HasPrefix(path, module) || !strings.Contains(path, ".") { // the standard library has no dots
				continue
			}
			prefix, library := libraryOf(path)
			switch {
			case prefix == "":
				t.Errorf("%s imports %s, which is not among the libraries: a dependency needs a reason", p.name(), path)
			case !slices.Contains(library.rooms, p.name()):
				t.Errorf("%s must not import %s, but %v: %s", p.name(), path, library.rooms, library.why)
			}
		}
	}
}

func libraryOf(path string) (prefix string, found library) {
	for candidate, library := range libraries {
		if (path == candidate || strings.HasPrefix(path, candidate+"/")) && len(candidate) > len(prefix) {
			prefix, found = candidate, library
		}
	}
	return prefix, found
}

func TestTestsOfTheBlackBoxUseNoProductPackage(t *testing.T) {
	for _, p := range packages(t) {
		if p.name() != "e2e" && p.name() != "e2e/browser" {
			continue
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if ours, ok := strings.CutPrefix(path, module+"/"); ok && !slices.Contains([]string{"internal/pgtest", "internal/localpg", "e2e/program"}, ours) {
				t.Errorf("%s must not import %s: %s", p.name(), path, rooms[p.name()].why)
			}
		}
	}
}
