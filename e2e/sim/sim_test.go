//go:build unix

package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// small is a configuration with everything that the full one has, and tight where that one is.
func small(t *testing.T, arguments ...string) options {
	t.Helper()
	o, err := parse(append([]string{"-proxies", "4", "-servers", "8", "-tenants", "2000", "-rate", "400", "-connections", "16", "-ttl", "3s",
		"-cache", "50", "-hold", "20ms", "-tenants-seen", "10", "-scale", "0.04"}, arguments...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestNothingIsViolatedAndTheSameSeedGivesTheSameReport(t *testing.T) {
	var reports [3]bytes.Buffer
	for i, arguments := range []string{"-isolation role", "-isolation role", "-isolation trusted -seed 2 -share-limits=false"} {
		if err := run(t, small(t, strings.Fields(arguments)...), &reports[i], io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := reports[0].String(), reports[1].String(); first != second {
		t.Errorf("two runs with one seed differ:\n%s\n%s", first, second)
	}
}

// lived plays a script on a small world, for so many seconds, and says what was violated.
func lived(t *testing.T, seconds float64, script func(w *world)) (err error) {
	t.Helper()
	s := scenario{rows: []float64{seconds}, script: script}
	o := small(t, "-scale", "1")
	synctest.Test(t, func(*testing.T) { _, err = play(o, s, io.Discard) })
	return err
}

func TestWhatMustNotBeIsReported(t *testing.T) {
	for name, sabotage := range map[string]struct {
		script func(w *world)
		report string
	}{
		"a change that nobody hears of": {func(w *world) {
			w.atSecond(1, func() {
				for t := range w.office.version { // as if a trigger were missing
					w.office.version[t]++
				}
			})
		}, "has heard of"},
		"a connection that leads elsewhere": {func(w *world) {
			w.atSecond(1, func() { w.servers[0].name = "elsewhere" })
		}, "gives"},
		"a socket more than the budget allows": {func(w *world) {
			w.proxies[0].sockets[0].Add(int32(w.o.budget()))
			w.servers[0].sockets.Add(int32(w.o.budget()))
		}, "sockets to"},
		"a session that is never told": {func(w *world) { w.waiting++ }, "never told"},
	} {
		if err := lived(t, 2, sabotage.script); err == nil || !strings.Contains(err.Error(), sabotage.report) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := lived(t, 2, func(*world) {}); err != nil {
		t.Errorf("without it: %v", err)
	}
}

func TestWrongUsageIsRefused(t *testing.T) {
	for _, arguments := range []string{"-proxies 2", "-skew 1", "-scenario nowhere", "-isolation database", "-rate 0", "rest", "-unknown"} {
		if _, err := parse(strings.Fields(arguments), io.Discard); err == nil {
			t.Errorf("%s: no error", arguments)
		}
	}
}

func TestTheCalendarKeepsItsOrder(t *testing.T) {
	c := newCalendar(time.Second)
	var order strings.Builder
	for _, one := range []struct {
		after time.Duration
		name  string
	}{{2 * tick, "c"}, {0, "a"}, {tick, "b"}, {tick + 1, "d"}, {time.Hour, "never"}} {
		c.do(one.after, func() { order.WriteString(one.name) })
	}
	for c.now = range moment(100) {
		for e := c.due(); e != nil; e = c.due() {
			e.what.happen()
		}
	}
	if order.String() != "abcd" {
		t.Error(order.String())
	}
}

func TestSpansAreCountedWithinASixteenth(t *testing.T) {
	for m := moment(0); m < 1_000_000; m += 1 + m/100 {
		if up := upTo(bucketOf(m)); up < m || up > m+m/16 || m > 0 && upTo(bucketOf(m)-1) >= m {
			t.Fatalf("%d is in the bucket up to %d", m, up)
		}
	}
	var s spans
	for m := range moment(1000) {
		s.add(m)
	}
	if p50, longest := s.milliseconds(0.5), s.milliseconds(1); p50 < 50 || p50 > 54 || longest != 99.9 {
		t.Errorf("p50 %v ms, longest %v ms", p50, longest)
	}
}

func TestTenantsArePlacedWhereTheFewestAre(t *testing.T) {
	counts := make([]int, 3)
	for _, s := range settle(100, 3, leastTenants) {
		counts[s]++
	}
	if counts[0] != 34 || counts[1] != 33 || counts[2] != 33 {
		t.Error(counts)
	}
}
