// Package metrics holds every instrument of the proxy, as verbs that the other packages call when something has
// happened, and the HTTP endpoint that shows them.
//
// It owns names, help texts, labels and their bounds. It does not decide what happened, imports no other package of
// the project, and registers only with the Registerer it is given. A nil *Metrics counts nothing, so that a package
// can be used without one.
//
// The one invariant: the number of series is bounded. Tenants are the only label whose values come from outside, and
// no more than Options.MaxTenants of them have series of their own; the rest are summed under tenant="other".
//
// The catalogue is pinned by testdata/metrics.golden.
package metrics
