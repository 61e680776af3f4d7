package metrics

import "github.com/prometheus/client_golang/prometheus"

// Refusals counts the clients that were turned away since the proxy began, by reason.
func (m *Metrics) Refusals() map[string]int64 {
	if m == nil {
		return nil
	}
	return totals(m.refusals)
}

// ServerConnectFailures counts the connections that failed since the proxy began, by server.
func (m *Metrics) ServerConnectFailures() map[string]int64 {
	if m == nil {
		return nil
	}
	return totals(m.serverConnectFailures)
}

// totals reads counters of one label back. What a collector gives out is to be read by a registry only, so it gets one.
func totals(counters *prometheus.CounterVec) map[string]int64 {
	registry := prometheus.NewRegistry()
	if err := registry.Register(counters); err != nil {
		return nil // it has been registered before, so it is as it should be
	}
	families, _ := registry.Gather() // an error leaves out what it is about
	all := make(map[string]int64)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			all[metric.GetLabel()[0].GetValue()] = int64(metric.GetCounter().GetValue())
		}
	}
	return all
}
