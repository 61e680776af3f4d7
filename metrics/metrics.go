package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	namespace         = "docex_proxy"
	defaultMaxTenants = 500
)

// Options bounds the series. The zero value is usable.
type Options struct {
	MaxTenants int // tenants with series of their own at one time, further ones fall under tenant="other"; 0 = 500
}

// Metrics is the catalogue. Its methods may be called concurrently, and on nil.
type Metrics struct {
	clientConnections prometheus.Gauge
	sessionsClosed    *prometheus.CounterVec // reason
	refusals          *prometheus.CounterVec // reason
	pins              *prometheus.CounterVec // reason

	acquireWait prometheus.Histogram

	serverConnect         *prometheus.HistogramVec // server
	serverConnectFailures *prometheus.CounterVec   // server
	tenantSwitch          *prometheus.HistogramVec // server
	switchFailures        *prometheus.CounterVec   // server

	lookups           *prometheus.CounterVec // kind, outcome
	registryListening prometheus.Gauge

	tenants *tenants
	pools   *pools
}

// New builds the catalogue and registers it. It panics when reg has one already.
func New(reg prometheus.Registerer, o Options) *Metrics {
	if o.MaxTenants <= 0 {
		o.MaxTenants = defaultMaxTenants
	}
	m := &Metrics{
		clientConnections: gauge("client_connections", "Client connections that are open, in startup or in a session."),
		sessionsClosed:    counters("sessions_closed_total", "Sessions that ended, by reason.", "reason"),
		refusals:          counters("refusals_total", "Client connections refused before a session began, by reason.", "reason"),
		pins:              counters("session_pins_total", "Times a session had to keep its server connection past a transaction, by reason.", "reason"),
		acquireWait: prometheus.NewHistogram(histogram("acquire_wait_seconds",
			"Time a session waited for a server connection.")),
		serverConnect: prometheus.NewHistogramVec(histogram("server_connect_seconds",
			"Time to connect and authenticate to a Postgres server."), []string{"server"}),
		serverConnectFailures: counters("server_connect_failures_total", "Connections to a Postgres server that failed.", "server"),
		tenantSwitch: prometheus.NewHistogramVec(histogram("tenant_switch_seconds",
			"Time to make a server connection of isolation level slot another tenant's."), []string{"server"}),
		switchFailures:    counters("tenant_switch_failures_total", "Switches of isolation level slot that failed.", "server"),
		lookups:           counters("registry_lookups_total", "Lookups in the registry cache, by kind and outcome.", "kind", "outcome"),
		registryListening: gauge("registry_listening", "1 while changes of the registry are pushed to this proxy."),
		tenants:           newTenants(o.MaxTenants),
		pools:             newPools(o.MaxTenants),
	}
	m.createLabels()
	reg.MustRegister(m.clientConnections, m.sessionsClosed, m.refusals, m.pins, m.acquireWait, m.serverConnect,
		m.serverConnectFailures, m.tenantSwitch, m.switchFailures, m.lookups, m.registryListening, m.tenants, m.pools)
	return m
}

// createLabels makes the series whose label values are known beforehand, so that a zero is visible.
func (m *Metrics) createLabels() {
	for _, reason := range refusalReasons() {
		m.refusals.WithLabelValues(reason)
	}
	for _, kind := range []string{"tenant", "schema", "login"} {
		for _, outcome := range []string{"hit", "miss", "negative", "stale", "not_found", "error"} {
			m.lookups.WithLabelValues(kind, outcome)
		}
	}
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// histogram has buckets from a warm acquire (100 µs) to the longest patience (30 s), and is a native histogram besides,
// for a Prometheus that asks for those: each bucket is a tenth wider than the one before.
func histogram(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}
}

// ClientConnected counts a client connection in; ClientDisconnected counts it out.
func (m *Metrics) ClientConnected() {
	if m != nil {
		m.clientConnections.Inc()
	}
}

// ClientDisconnected is the end of what ClientConnected began.
func (m *Metrics) ClientDisconnected() {
	if m != nil {
		m.clientConnections.Dec()
	}
}

// SessionOpened counts a session of the tenant in; SessionClosed counts it out, exactly once.
func (m *Metrics) SessionOpened(tenant string) {
	if m != nil {
		m.tenants.open(tenant)
	}
}

// SessionClosed is the end of what SessionOpened began. The reason is one of a fixed set of words.
func (m *Metrics) SessionClosed(tenant, reason string) {
	if m != nil {
		m.tenants.close(tenant)
		m.sessionsClosed.WithLabelValues(reason).Inc()
	}
}

// SessionRefused counts a client that was turned away, by one of the Reason constants.
func (m *Metrics) SessionRefused(reason string) {
	if m != nil {
		m.refusals.WithLabelValues(reason).Inc()
	}
}

// Tenant returns the tenant's counters for the hot path. A session asks for them after its SessionOpened and lets
// them go at its SessionClosed: until then they keep their series.
func (m *Metrics) Tenant(name string) *Tenant {
	if m == nil {
		return &Tenant{}
	}
	return m.tenants.handle(name)
}

// AcquireWaited records how long a session of the tenant waited for a server connection.
func (m *Metrics) AcquireWaited(tenant string, d time.Duration) {
	if m != nil {
		m.acquireWait.Observe(d.Seconds())
		m.tenants.handle(tenant).waitedNanos.Add(int64(d))
	}
}

// ServerConnected records an attempt to connect to a server of the configuration; err is nil when it succeeded.
func (m *Metrics) ServerConnected(server string, d time.Duration, err error) {
	if m == nil {
		return
	}
	failures := m.serverConnectFailures.WithLabelValues(server) // a zero is visible from the first success on
	if err != nil {
		failures.Inc()
		return
	}
	m.serverConnect.WithLabelValues(server).Observe(d.Seconds())
}

// TenantSwitched records an attempt to make a slot's server connection another tenant's; err is nil when it succeeded.
func (m *Metrics) TenantSwitched(server string, d time.Duration, err error) {
	if m == nil {
		return
	}
	failures := m.switchFailures.WithLabelValues(server)
	if err != nil {
		failures.Inc()
		return
	}
	m.tenantSwitch.WithLabelValues(server).Observe(d.Seconds())
}

// LookupDone counts a lookup; kind is tenant, schema or login; outcome is hit, miss, negative, stale, not_found or error.
func (m *Metrics) LookupDone(kind, outcome string) {
	if m != nil {
		m.lookups.WithLabelValues(kind, outcome).Inc()
	}
}

// RegistryListening says whether changes of the registry are pushed to this proxy.
func (m *Metrics) RegistryListening(up bool) {
	switch {
	case m == nil:
	case up:
		m.registryListening.Set(1)
	default:
		m.registryListening.Set(0)
	}
}

// Pinned counts a session that has to keep its server connection; the reason is one of a fixed set of words.
func (m *Metrics) Pinned(reason string) {
	if m != nil {
		m.pins.WithLabelValues(reason).Inc()
	}
}

// WatchPools makes every scrape ask stats for the state of the pools. The last function given is the one asked.
func (m *Metrics) WatchPools(stats func() []PoolStat) {
	if m != nil {
		m.pools.stats.Store(&stats)
	}
}
