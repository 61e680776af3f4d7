//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// column is one of a table: its head, and its cell for the row that ends now.
type column struct {
	head string
	cell func(w *world, seconds float64) string // seconds is what the row has taken
}

func figure(f float64, digits int) string {
	if f < 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", digits, f)
}

func perSecond(n int, seconds float64) string { return figure(float64(n)/seconds, 0) }

// ratio is -1, which is not printed, where there is nothing to divide by.
func ratio(n, by int) float64 {
	if by == 0 {
		return -1
	}
	return float64(n) / float64(by)
}

func milliseconds(s *spans, shares ...float64) string {
	var all []string
	for _, share := range shares {
		digits := 1
		if ms := s.milliseconds(share); ms >= 100 {
			digits = 0
		}
		all = append(all, figure(s.milliseconds(share), digits))
	}
	return strings.Join(all, " / ")
}

// usual are the columns of every table.
func usual() []column {
	return []column{
		{"sessions/s", func(w *world, s float64) string { return perSecond(w.tally.logins, s) }},
		{"cache hits %", func(w *world, _ float64) string { return figure(100*ratio(w.tally.hits, w.tally.logins), 1) }},
		{"registry reads/s", func(w *world, s float64) string { return perSecond(w.tally.queries, s) }},
		{"login p50 / p99 ms", func(w *world, _ float64) string { return milliseconds(&w.tally.welcome, 0.5, 0.99) }},
		{"transactions/s", func(w *world, s float64) string { return perSecond(w.tally.transactions, s) }},
		{"wait p50 / p99 / longest ms", func(w *world, _ float64) string { return milliseconds(w.tally.allWaits(), 0.5, 0.99, 1) }},
		{"connects by transaction", func(w *world, _ float64) string { return figure(ratio(w.tally.dials, w.tally.transactions), 2) }},
		{"server connections", func(w *world, s float64) string {
			all := 0
			for _, server := range w.servers {
				all += int(server.sockets.Load())
			}
			return fmt.Sprint(all)
		}},
		{"errors", func(w *world, s float64) string { return w.tally.allFailures().String() }},
	}
}

func (f failures) String() string {
	var all []string
	for _, one := range []struct {
		n    int
		name string
	}{{f.queue, "waited too long"}, {f.connect, "no connection"}, {f.broken, "broken off"}} {
		if one.n > 0 {
			all = append(all, fmt.Sprintf("%d %s", one.n, one.name))
		}
	}
	return strings.Join(all, ", ")
}

// switched are the columns of levels that share connections.
func switched() []column {
	return []column{
		{"switches by transaction", func(w *world, _ float64) string { return figure(ratio(w.tally.switches, w.tally.transactions), 2) }},
	}
}

func invalidations(*world) []column {
	return []column{
		{"changes/s", func(w *world, s float64) string { return perSecond(w.tally.changes, s) }},
		{"tenants judged again/s", func(w *world, s float64) string { return perSecond(w.tally.rechecks, s) }},
	}
}

func byClass(w *world) []column {
	var all []column
	for c, name := range []string{"others", "neighbours", "the noisy"} {
		if class(c) == noisy && w.classOf(w.byRank[min(1000, len(w.byRank)-1)]) != noisy {
			continue
		}
		all = append(all,
			column{name + ": transactions/s", func(w *world, s float64) string { return perSecond(w.tally.waits[c].n, s) }},
			column{name + ": wait p50 / p99 ms", func(w *world, _ float64) string { return milliseconds(&w.tally.waits[c], 0.5, 0.99) }},
			column{name + ": errors", func(w *world, s float64) string { return w.tally.failures[c].String() }})
	}
	return all
}

// shares are the most connections that each of the tenants with limits has had at once.
func shares(w *world) []column {
	all := []column{{"proxies, as they know", func(w *world, s float64) string {
		var live []int
		for _, p := range w.live {
			live = append(live, p.fleet.Live())
		}
		return fmt.Sprintf("%d to %d", slices.Min(live), slices.Max(live))
	}}}
	for i, t := range w.watched {
		all = append(all, column{fmt.Sprintf("limit %d: most at once", w.limits[t]), func(w *world, s float64) string {
			return fmt.Sprint(w.tally.most[i])
		}})
	}
	return all
}

// run plays the scenarios that are chosen, some at a time. What it writes to out is the same for the same options; progress
// has what is not.
func run(t *testing.T, o options, out, progress io.Writer) error {
	fmt.Fprintf(out, "%d proxies, %d servers, %d tenants, level %s, seed %d. %.0f transactions/s in sessions of %d, Zipf %.2f; "+
		"cache_size %d, ttl %s; %d connections for each server, %d by proxy; servers have %d processors, the registry %d.\n",
		o.proxies, o.servers, o.tenants, o.isolation, o.seed, o.rate, o.transactions, o.skew, o.cacheSize, o.ttl, o.connections, o.budget(),
		o.cores, o.registryCores)
	all := chosen(o.scenario)
	told := make([]chan outcome, len(all))
	turns := make(chan struct{}, o.jobs)
	for i := range told {
		told[i] = make(chan outcome, 1)
	}
	go func() {
		for i, s := range all {
			turns <- struct{}{}
			go func() {
				defer func() { <-turns }()
				told[i] <- s.live(t, o)
			}()
		}
	}()
	var failed []error
	for i, s := range all {
		lived := <-told[i]
		if lived.err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.name, lived.err))
		}
		out.Write(lived.report)        //nolint:errcheck // nor are those of the other lines
		progress.Write(lived.progress) //nolint:errcheck // the same
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nNothing was violated.\n")
	return nil
}

// outcome is what a scenario has come to.
type outcome struct {
	report, progress []byte
	err              error
}

// live plays a scenario in a bubble of its own.
func (s scenario) live(t *testing.T, o options) (lived outcome) {
	if s.adapt != nil {
		s.adapt(&o)
	}
	var report bytes.Buffer
	var drained time.Duration
	began := time.Now()
	synctest.Test(t, func(*testing.T) { drained, lived.err = play(o, s, &report) })
	lived.report = report.Bytes()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	lived.progress = fmt.Appendf(nil, "%s: %s, %d MB of the machine's memory", s.name, time.Since(began).Round(time.Second/10), memory.Sys>>20)
	if drained > 0 {
		lived.progress = fmt.Appendf(lived.progress, ", %s in the median for a pool's Drain of one tenant", drained)
	}
	lived.progress = append(lived.progress, '\n')
	return lived
}

// play has a world live through a scenario, in a bubble.
func play(o options, s scenario, out io.Writer) (drained time.Duration, err error) {
	w, err := newWorld(o, o.of(s.rows[len(s.rows)-1]))
	if err != nil {
		return 0, err
	}
	if s.script != nil {
		s.script(w)
	}
	columns := usual()
	if o.isolation != "role" {
		columns = append(columns, switched()...)
	}
	if s.columns != nil {
		columns = append(columns, s.columns(w)...)
	}
	fmt.Fprintf(out, "\n## %s: %s\n\n", s.name, s.title)
	heads := []string{"seconds"}
	for _, c := range columns {
		heads = append(heads, c.head)
	}
	fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
	before := 0.0
	for _, end := range s.rows {
		w.tally = tally{since: w.now, most: make([]int32, len(w.watched))}
		for until := momentAfter(o.of(end)); w.now < until; {
			w.pass()
			for i, t := range w.watched {
				w.tally.most[i] = max(w.tally.most[i], w.leased[t])
			}
		}
		cells := []string{fmt.Sprintf("%.4g–%.4g", before*o.scale, end*o.scale)}
		for _, c := range columns {
			cells = append(cells, c.cell(w, (w.now-w.tally.since).duration().Seconds()))
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
		before = end
	}
	fmt.Fprintf(out, "\n%s\n", w.census())
	w.close()
	return w.drains.median(), w.err()
}

// census says how what there is is spread, at the end.
func (w *world) census() string {
	spread := func(count func(i int) int, n int) string {
		all := make([]int, n)
		for i := range all {
			all[i] = count(i)
		}
		slices.Sort(all)
		return fmt.Sprintf("%d / %d / %d", all[0], all[n/2], all[n-1])
	}
	proxies := w.live
	return fmt.Sprintf("At the end (fewest / median / most): sessions of a proxy %s, tenants with sessions %s, its server connections %s; connections of a server %s, its processors busy in %% %s.",
		spread(func(i int) int {
			n := 0
			for _, t := range proxies[i].present {
				n += len(t.sessions)
			}
			return n
		}, len(proxies)),
		spread(func(i int) int { return len(proxies[i].present) }, len(proxies)),
		spread(func(i int) int {
			n := 0
			for s := range proxies[i].sockets {
				n += int(proxies[i].sockets[s].Load())
			}
			return n
		}, len(proxies)),
		spread(func(i int) int { return int(w.servers[i].sockets.Load()) }, len(w.servers)),
		spread(func(i int) int {
			return int(100 * w.servers[i].busy / (w.elapsed() * time.Duration(w.o.cores)))
		}, len(w.servers)))
}
