package metrics

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherTenant is the label value of every tenant without series of its own. A tenant that is really called so
// shares it.
const otherTenant = "other"

// Tenant counts what one tenant's sessions do. Its methods are an atomic addition or two.
type Tenant struct {
	transactions atomic.Int64
	received     atomic.Int64 // bytes
	sent         atomic.Int64 // bytes
	waitedNanos  atomic.Int64
	pins         atomic.Int64
	durations    durations // of transactions
}

// TransactionDone counts a transaction that ended, committed or not, and how long the client waited for it.
func (t *Tenant) TransactionDone(took time.Duration) {
	t.transactions.Add(1)
	t.durations.observe(took)
}

// Pinned counts a reason for which a session of the tenant has to keep its server connection.
func (t *Tenant) Pinned() { t.pins.Add(1) }

// Received counts bytes that came from the tenant's clients.
func (t *Tenant) Received(n int) { t.received.Add(int64(n)) }

// Sent counts bytes that went to the tenant's clients.
func (t *Tenant) Sent(n int) { t.sent.Add(int64(n)) }

// tenants collects the per-tenant series. A tenant gets series of its own while there is room, and keeps them as
// long as it has sessions; without sessions they stay visible until another tenant needs the room. What is evicted is
// dropped, not added to other: a series that ends is nothing to rate(), a jump of other would be.
type tenants struct {
	max   int
	other Tenant

	mutex  sync.RWMutex
	known  map[string]*tenantEntry
	idle   list.List // of names with series and no session, the longest idle first
	series int       // entries of known that have series of their own

	sessions, transactions, received, sent, waited *prometheus.Desc
}

type tenantEntry struct {
	counters *Tenant // &tenants.other when the tenant has no series of its own
	sessions int
	idle     *list.Element // its place in tenants.idle, or nil
}

func newTenants(maxTenants int) *tenants {
	describe := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, []string{"tenant"}, nil)
	}
	return &tenants{
		max:          maxTenants,
		known:        map[string]*tenantEntry{},
		sessions:     describe("sessions", "Sessions that are open, by tenant."),
		transactions: describe("transactions_total", "Transactions that ended, committed or not, by tenant."),
		received:     describe("received_bytes_total", "Bytes received from clients, by tenant."),
		sent:         describe("sent_bytes_total", "Bytes sent to clients, by tenant."),
		// Not acquire_wait_seconds_total: in OpenMetrics that is the same family as the histogram acquire_wait_seconds.
		waited: describe("tenant_acquire_wait_seconds_total", "Time sessions waited for a server connection, by tenant."),
	}
}

func (t *tenants) open(name string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	entry := t.entry(name)
	entry.sessions++
	if entry.idle != nil {
		t.idle.Remove(entry.idle)
		entry.idle = nil
	}
}

func (t *tenants) close(name string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	entry, ok := t.known[name]
	if !ok || entry.sessions == 0 {
		return
	}
	entry.sessions--
	switch {
	case entry.sessions > 0:
	case entry.counters == &t.other:
		delete(t.known, name)
	default:
		entry.idle = t.idle.PushBack(name)
	}
}

// handle returns the counters that a tenant counts into now.
func (t *tenants) handle(name string) *Tenant {
	t.mutex.RLock()
	entry, ok := t.known[name]
	t.mutex.RUnlock()
	if ok {
		return entry.counters
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	entry = t.entry(name)
	if entry.sessions == 0 && entry.idle == nil {
		if entry.counters == &t.other {
			delete(t.known, name)
		} else {
			entry.idle = t.idle.PushBack(name)
		}
	}
	return entry.counters
}

// entry finds or makes the tenant's entry; the caller holds the mutex and puts an entry without sessions in its place.
func (t *tenants) entry(name string) *tenantEntry {
	if entry, ok := t.known[name]; ok {
		return entry
	}
	entry := &tenantEntry{counters: &t.other}
	if name != otherTenant && t.makeRoom() {
		entry.counters = &Tenant{}
		t.series++
	}
	t.known[name] = entry
	return entry
}

// makeRoom evicts the longest idle tenant when all series are taken, and reports whether there is room for one more.
func (t *tenants) makeRoom() bool {
	if t.series < t.max {
		return true
	}
	longest := t.idle.Front()
	if longest == nil {
		return false
	}
	delete(t.known, t.idle.Remove(longest).(string))
	t.series--
	return true
}

// TenantFigures is what one tenant's series say.
type TenantFigures struct {
	Name                         string
	Sessions                     int
	Transactions, Received, Sent int64
	Waited                       time.Duration
}

// Tenants lists those with series of their own, and the others together, in no particular order.
func (m *Metrics) Tenants() []TenantFigures {
	if m == nil {
		return nil
	}
	t := m.tenants
	t.mutex.RLock()
	defer t.mutex.RUnlock()
	all := make([]TenantFigures, 0, len(t.known)+1)
	others := TenantFigures{Name: otherTenant}
	for name, entry := range t.known {
		if entry.counters == &t.other {
			others.Sessions += entry.sessions
			continue
		}
		all = append(all, entry.counters.figures(name, entry.sessions))
	}
	if rest := t.other.figures(otherTenant, others.Sessions); rest != (TenantFigures{Name: otherTenant}) {
		all = append(all, rest)
	}
	return all
}

func (t *Tenant) figures(name string, sessions int) TenantFigures {
	return TenantFigures{
		Name: name, Sessions: sessions, Transactions: t.transactions.Load(), Received: t.received.Load(), Sent: t.sent.Load(),
		Waited: time.Duration(t.waitedNanos.Load()),
	}
}

// Describe implements prometheus.Collector.
func (t *tenants) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{t.sessions, t.transactions, t.received, t.sent, t.waited} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (t *tenants) Collect(out chan<- prometheus.Metric) {
	t.mutex.RLock()
	defer t.mutex.RUnlock()
	otherSessions := 0
	for name, entry := range t.known {
		if entry.counters == &t.other {
			otherSessions += entry.sessions
			continue
		}
		t.collect(out, name, entry.sessions, entry.counters)
	}
	t.collect(out, otherTenant, otherSessions, &t.other)
}

func (t *tenants) collect(out chan<- prometheus.Metric, name string, sessions int, counters *Tenant) {
	count := func(desc *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, name)
	}
	out <- prometheus.MustNewConstMetric(t.sessions, prometheus.GaugeValue, float64(sessions), name)
	count(t.transactions, float64(counters.transactions.Load()))
	count(t.received, float64(counters.received.Load()))
	count(t.sent, float64(counters.sent.Load()))
	count(t.waited, time.Duration(counters.waitedNanos.Load()).Seconds())
}
