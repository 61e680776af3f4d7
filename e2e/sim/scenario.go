//go:build unix

package main

import (
	"slices"
	"strings"
	"time"
)

// scenario is a story that is told to a world, and the rows of its table.
type scenario struct {
	name, title string
	adapt       func(*options)          // nil: as the flags say
	rows        []float64               // ends of the rows, in seconds; the last is the end
	script      func(w *world)          // enters what happens; nil: nothing but the traffic
	columns     func(w *world) []column // beside the usual ones; nil: none
}

func scenarios() []scenario {
	warm := []float64{1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90}
	last := []float64{60, 90}
	return []scenario{
		{name: "steady", title: "A cold start, and then the usual traffic", rows: warm},
		{name: "sticky", title: "The same, with a balancer that sends a tenant's clients to one proxy", rows: warm, adapt: func(o *options) { o.sticky = true }},
		{name: "slot", title: "The same at level slot", rows: last, adapt: func(o *options) { o.isolation = "slot" }},
		{name: "trusted", title: "The same at level trusted", rows: last, adapt: func(o *options) { o.isolation = "trusted" }},
		{name: "herd", title: "All proxies start anew at 70 s, and all clients come back within a second",
			rows: []float64{60, 70, 71, 72, 73, 75, 80, 90}, script: herd},
		{name: "storm", title: "A tenth of the tenants change, every hundredth of them its server, from 65 s to 75 s; at 70 s one proxy hears nothing for 2 s, at 85 s all",
			rows: []float64{55, 65, 70, 75, 80, 85, 88, 89, 90, 95, 100}, script: storm, columns: invalidations},
		{name: "noisy", title: "From 40 s a tenant has 20 clients on each proxy that never pause; at 60 s it gets a limit of a connection for each proxy",
			rows: []float64{30, 40, 41, 45, 60, 61, 65, 80}, script: noise, columns: byClass},
		{name: "proxies", title: "A third of the proxies are lost at 65 s; their clients come to the others within 5 s",
			rows: []float64{55, 65, 66, 68, 70, 75, 80, 90, 100}, script: loseProxies},
		{name: "reach", title: "A third of the servers cannot be reached from 65 s to 125 s (neighbours: their tenants)",
			rows: []float64{55, 65, 66, 70, 75, 95, 125, 126, 127, 130, 140}, script: loseServers, columns: byClass},
		{name: "shares", title: "Limits that all proxies share: a third of the proxies are lost at 20 s, and come back at 50 s",
			rows: []float64{10, 20, 25, 30, 35, 40, 50, 55, 60, 70}, script: contend, columns: shares},
	}
}

func names() []string {
	var all []string
	for _, s := range scenarios() {
		all = append(all, s.name)
	}
	return all
}

func chosen(text string) []scenario {
	return slices.DeleteFunc(scenarios(), func(s scenario) bool { return !strings.Contains(s.name, text) })
}

// atSecond enters what a scenario has happen after so many seconds.
func (w *world) atSecond(seconds float64, f func()) { w.do(w.o.of(seconds), f) }

// replace has new proxies in the place of some, and their clients come back within a while.
func (w *world) replace(old []*proxy, within time.Duration) {
	for _, p := range old {
		w.adrift(p.stop(true), within)
		w.start(p.number)
	}
	w.gather()
}

// start has a new proxy in the place of one that has ended.
func (w *world) start(number int) {
	p, err := newProxy(w, number)
	if err != nil {
		w.violated("%v", err)
		return
	}
	w.proxies[number] = p
}

// lose ends proxies for good.
func (w *world) lose(some []*proxy, within time.Duration) {
	for _, p := range some {
		w.adrift(p.stop(true), within)
	}
	w.gather()
}

// adrift has clients without a proxy come to another one.
func (w *world) adrift(orphans []*session, within time.Duration) {
	for _, s := range orphans {
		w.do(time.Duration(w.rng.Int64N(int64(within))), func() {
			w.again(s)
		})
	}
}

func third[T any](all []T) []T { return slices.Clone(all[:len(all)/3]) }

// herd kills all proxies, whose successors are there at once.
func herd(w *world) {
	w.atSecond(70, func() { w.replace(slices.Clone(w.proxies), time.Second) })
}

// moving is of how many changes one leads the tenant to another server.
const moving = 100

// storm has tenants change, and then those that listen lose their connections to the registry.
func storm(w *world) {
	changes := w.o.tenants / 10
	began, lasting := w.o.of(65), w.o.of(10)
	for i := range changes {
		w.do(began+lasting*time.Duration(i)/time.Duration(changes), func() {
			t := int32(w.rng.IntN(w.o.tenants))
			if i%moving == 0 {
				w.home[t] = (w.home[t] + 1) % int16(len(w.servers))
			}
			w.office.change(t)
		})
	}
	w.atSecond(70, func() { w.proxies[0].deafen(2 * time.Second) })
	w.atSecond(85, func() {
		for _, p := range w.proxies {
			// A proxy tries again after a pause that grows to between 1 and 2 s: registry.Listen.
			p.deafen(2*time.Second + time.Duration(w.rng.Int64N(int64(time.Second))))
		}
	})
}

// noise has a tenant of the middle that is too loud.
func noise(w *world) {
	loud := w.byRank[min(1000, len(w.byRank)-1)]
	w.classOf = func(t int32) class {
		switch {
		case t == loud:
			return noisy
		case w.home[t] == w.home[loud]:
			return neighbours
		}
		return others
	}
	w.atSecond(40, func() { w.crowd(w.live, loud, 20) })
	w.atSecond(60, func() {
		w.limits[loud] = w.o.proxies
		w.office.change(loud)
	})
}

// crowd has so many clients of a tenant on each of the proxies that never pause.
func (w *world) crowd(proxies []*proxy, t int32, clients int) {
	for _, p := range proxies {
		for range clients {
			w.admit(&session{tenant: t, name: tenantName(t), class: noisy, left: endless}, p)
		}
	}
}

const endless = 1 << 30

// loseProxies kills the first third.
func loseProxies(w *world) {
	w.atSecond(65, func() { w.lose(third(w.proxies), 5*time.Second) })
}

// loseServers has the first third out of reach.
func loseServers(w *world) {
	lost := third(w.servers)
	w.classOf = func(t int32) class {
		if int(w.home[t]) < len(lost) {
			return neighbours
		}
		return others
	}
	strike := func(is bool) func() {
		return func() {
			for _, s := range lost {
				w.unreachable(s, is)
			}
		}
	}
	w.atSecond(65, strike(true))
	w.atSecond(125, strike(false))
}

// contenders are the limits of tenants, in connections for each proxy.
var contenders = [...]float64{0.2, 1, 1.5, 2, 3, 4}

// limited are the tenants with limits: each on a server of its own, and not among those that many ask for.
func (w *world) limited() []int32 {
	var all []int32
	for i := range contenders {
		t := slices.IndexFunc(w.byRank[len(w.byRank)/2:], func(t int32) bool { return int(w.home[t]) == i*(len(w.servers)-1)/len(contenders) })
		all = append(all, w.byRank[len(w.byRank)/2+t])
	}
	return all
}

// contend has tenants with limits want more than they may have.
func contend(w *world) {
	for i, t := range w.limited() {
		w.limits[t] = max(1, int(contenders[i]*float64(w.o.proxies)))
	}
	w.watched = w.limited()
	crowds := func(proxies []*proxy) {
		for _, t := range w.watched {
			w.crowd(proxies, t, 6)
		}
	}
	w.do(tick, func() { crowds(w.proxies) })
	lost := third(w.proxies)
	w.atSecond(20, func() {
		for _, p := range lost {
			p.stop(true) // the clients of the crowds do not come back: those of the others are enough
		}
		w.gather()
	})
	w.atSecond(50, func() {
		for _, p := range lost {
			w.start(p.number)
		}
		w.gather()
		crowds(w.proxies[:len(lost)])
	})
}
