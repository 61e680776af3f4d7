//go:build unix

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

// mostMemory is from how much on it is rather collected than taken. Two scenarios at full size need less.
const mostMemory = 6 << 30

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "sim:", err)
		}
		os.Exit(2)
	}
	// Simulated time is testing/synctest's, which wants a test: this program is one.
	os.Args = os.Args[:1]
	debug.SetGCPercent(200) // most of what there is stays
	debug.SetMemoryLimit(mostMemory)
	everything := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(everything, []testing.InternalTest{{Name: "sim", F: func(t *testing.T) {
		if err := run(t, o, os.Stdout, os.Stderr); err != nil {
			t.Error(err)
		}
	}}}, nil, nil)
}

// options are the flags.
type options struct {
	seed                      uint64
	proxies, servers, tenants int
	scenario                  string
	scale                     float64
	jobs                      int

	rate         float64       // transactions a second, of all tenants
	skew         float64       // Zipf's exponent
	transactions int           // of a session, in the mean
	think        time.Duration // between its transactions, in the mean
	work, hold   time.Duration // of a server's processor and of the client, in a transaction
	cores        int
	strangers    float64

	isolation     string
	connections   int // of each server
	cacheSize     int
	ttl           time.Duration
	queueWait     time.Duration
	quantum       time.Duration
	tenantsSeen   int
	sticky, share bool
	registryCores int
}

func parse(arguments []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.seed, "seed", 1, "of all that is left to chance")
	flags.IntVar(&o.proxies, "proxies", 100, "how many, 3 to 1023")
	flags.IntVar(&o.servers, "servers", 500, "how many, 3 to 999")
	flags.IntVar(&o.tenants, "tenants", 1_000_000, "how many, at least 1000")
	flags.StringVar(&o.scenario, "scenario", "", "those whose name contains the `TEXT`: "+strings.Join(names(), ", "))
	flags.Float64Var(&o.scale, "scale", 1, "of all times of the scenarios; the proxies' own stay")

	flags.IntVar(&o.jobs, "jobs", 2, "scenarios at a time, which take 2 to 3 GB each at full size")
	flags.Float64Var(&o.rate, "rate", 50_000, "transactions a second")
	flags.Float64Var(&o.skew, "skew", 1.1, "of the tenants' popularity: Zipf's exponent, above 1")
	flags.IntVar(&o.transactions, "transactions", 10, "of a session, in the mean")
	flags.DurationVar(&o.think, "think", time.Second, "a client's pause before a transaction, in the mean")
	flags.DurationVar(&o.work, "work", time.Millisecond, "of a server's processor for a transaction, in the mean")
	flags.DurationVar(&o.hold, "hold", 4*time.Millisecond, "what the client adds to a transaction, in the mean")
	flags.IntVar(&o.cores, "cores", 16, "processors of a server")
	flags.Float64Var(&o.strangers, "strangers", 0.01, "the share of sessions that name a tenant that does not exist")

	flags.StringVar(&o.isolation, "isolation", "role", "`LEVEL`: role, slot or trusted")
	flags.IntVar(&o.connections, "connections", 400, "of each server; each proxy gets its part as max_connections")
	flags.IntVar(&o.cacheSize, "cache", 10_000, "registry.cache_size")
	flags.DurationVar(&o.ttl, "ttl", time.Minute, "registry.ttl")
	flags.DurationVar(&o.queueWait, "queue-wait", 30*time.Second, "timeouts.queue_wait")
	flags.DurationVar(&o.quantum, "quantum", 20*time.Millisecond, "pool.quantum")
	flags.IntVar(&o.tenantsSeen, "tenants-seen", 1000, "pool.tenants_seen")
	flags.BoolVar(&o.sticky, "sticky", false, "the balancer sends a tenant's clients to one proxy")
	flags.BoolVar(&o.share, "share-limits", true, "peers.share_limits")
	flags.IntVar(&o.registryCores, "registry-cores", 4, "processors of the registry's server")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.proxies < 3 || o.proxies > 1023 || o.servers < 3 || o.servers > 999 || o.tenants < 1000:
		return o, errors.New("proxies are 3 to 1023, servers 3 to 999, tenants at least 1000")
	case o.isolation != "role" && o.isolation != "slot" && o.isolation != "trusted":
		return o, fmt.Errorf("-isolation %q is none of role, slot, trusted", o.isolation)
	case !(o.skew > 1) || !(o.rate > 0) || !(o.scale > 0) || o.transactions < 1 || o.connections < 1 || o.jobs < 1 || o.cores < 1 || o.registryCores < 1:
		return o, errors.New("-skew is above 1; -rate, -scale, -transactions, -connections, -cores and -registry-cores are above 0")
	case min(o.think, o.work, o.hold, o.quantum, o.ttl) <= 0 || o.queueWait <= 0 || o.cacheSize < 1 || o.tenantsSeen < 0:
		return o, errors.New("times and sizes are above 0")
	case len(chosen(o.scenario)) == 0:
		return o, fmt.Errorf("no scenario contains %q", o.scenario)
	}
	return o, nil
}

// budget is max_connections of each server, on each proxy.
func (o *options) budget() int { return max(1, o.connections/o.proxies) }

// level is the isolation level of all tenants. What the pool does at slot is what it does at trusted; that a switch takes
// longer there is all that is simulated of it.
func (o *options) level() registry.Isolation {
	if o.isolation == "role" {
		return registry.IsolationRole
	}
	return registry.IsolationTrusted
}

func (o *options) switchTime() time.Duration {
	if o.isolation == "slot" {
		return slotSwitch
	}
	return trustedSwitch
}

// between is the mean time from one session's beginning to the next.
func (o *options) between() time.Duration {
	return time.Duration(float64(o.transactions) / o.rate * float64(time.Second))
}

// of is a span of a scenario.
func (o *options) of(seconds float64) time.Duration {
	return time.Duration(seconds * o.scale * float64(time.Second))
}
