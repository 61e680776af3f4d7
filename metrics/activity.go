package metrics

import (
	"sync"
	"time"
)

const (
	// ratePeriod is what rates are of, at most, and patience how long a Watch may be left alone before it begins anew.
	ratePeriod    = 5 * time.Second
	watchPatience = 15 * time.Second
	// quantilePeriod is after what quantiles begin anew: they are of one to two such periods.
	quantilePeriod = 30 * time.Second
)

// TenantActivity is what a tenant does at present.
type TenantActivity struct {
	Name     string // empty: tenants without series of their own, together
	Tenants  int    // how many those are that have sessions; 1 for a named one
	Sessions int
	Pins     int64 // since the proxy began
	// PerSecond is transactions, of the last seconds; Slowest is what 99 of 100 did not exceed, of the last half minute to
	// minute, 0 when there was none. Both are zero while Rated is false: the Watch has just begun.
	PerSecond float64
	Slowest   time.Duration
	Rated     bool
}

// Watch compares what tenants have done with what they had done a while ago. It keeps nothing but what its callers' visits
// leave: while nobody looks, nothing is done. Its methods may be called concurrently.
type Watch struct {
	metrics *Metrics

	mutex   sync.Mutex
	visits  []visit // of the last ratePeriod, the first may be older
	earlier map[*Tenant]*durationCounts
	later   map[*Tenant]*durationCounts // replaces earlier when quantilePeriod is over
	turned  time.Time                   // when later was taken
}

// visit is how many transactions there were at one moment.
type visit struct {
	at           time.Time
	transactions map[*Tenant]int64
}

// NewWatch begins to watch at its first use.
func (m *Metrics) NewWatch() *Watch { return &Watch{metrics: m} }

// look is one tenant's counters at one moment.
type look struct {
	TenantActivity
	counters     *Tenant
	transactions int64
	durations    *durationCounts
}

// Tenants says what those with series of their own do, and the others together, in no particular order.
func (w *Watch) Tenants(now time.Time) []TenantActivity {
	if w.metrics == nil {
		return nil
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	looks := w.metrics.tenants.look()
	if n := len(w.visits); n > 0 && now.Sub(w.visits[n-1].at) > watchPatience {
		w.visits, w.earlier, w.later = nil, nil, nil
	}
	all := make([]TenantActivity, len(looks))
	for i := range looks {
		all[i] = w.rate(&looks[i], now)
	}
	w.remember(looks, now)
	return all
}

func (w *Watch) rate(l *look, now time.Time) TenantActivity {
	if len(w.visits) == 0 {
		return l.TenantActivity
	}
	first := w.visits[0]
	if period := now.Sub(first.at).Seconds(); period > 0 {
		l.PerSecond = float64(l.transactions-first.transactions[l.counters]) / period
	}
	var counts durationCounts
	counts.add(l.durations, w.earlier[l.counters])
	l.Slowest = counts.quantile(.99)
	l.Rated = true
	return l.TenantActivity
}

func (w *Watch) remember(looks []look, now time.Time) {
	v := visit{now, make(map[*Tenant]int64, len(looks))}
	durations := make(map[*Tenant]*durationCounts, len(looks))
	for _, l := range looks {
		v.transactions[l.counters] = l.transactions
		durations[l.counters] = l.durations
	}
	for len(w.visits) > 1 && now.Sub(w.visits[1].at) >= ratePeriod {
		w.visits = w.visits[1:]
	}
	w.visits = append(w.visits, v)
	switch {
	case w.earlier == nil:
		w.earlier, w.later, w.turned = durations, durations, now
	case now.Sub(w.turned) >= quantilePeriod:
		w.earlier, w.later, w.turned = w.later, durations, now
	}
}

// look reads all counters at once.
func (t *tenants) look() []look {
	t.mutex.RLock()
	defer t.mutex.RUnlock()
	others := TenantActivity{}
	looks := make([]look, 0, len(t.known)+1)
	for name, entry := range t.known {
		if entry.counters == &t.other {
			others.Tenants++
			others.Sessions += entry.sessions
			continue
		}
		looks = append(looks, entry.counters.look(TenantActivity{Name: name, Tenants: 1, Sessions: entry.sessions}))
	}
	return append(looks, t.other.look(others))
}

func (t *Tenant) look(a TenantActivity) look {
	a.Pins = t.pins.Load()
	return look{TenantActivity: a, counters: t, transactions: t.transactions.Load(), durations: t.durations.load()}
}
