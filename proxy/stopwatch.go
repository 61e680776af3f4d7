package proxy

import (
	"time"

	"github.com/docex-proxy/docex-proxy/metrics"
)

// stopwatch measures a session's transactions as its client sees them: from the request that begins one, the wait for a
// server connection included, to the answer that ends it.
type stopwatch struct {
	began time.Duration // since the epoch, 0 while it does not run: what an idle session keeps counts, and a Time is thrice as long
}

// epoch is a moment before any session.
var epoch = time.Now()

func (w *stopwatch) running() bool { return w.began != 0 }

// look starts and stops it by whether the client waits for something now, or is in a transaction.
func (w *stopwatch) look(on bool, now time.Time) {
	switch {
	case !on:
		w.began = 0
	case !w.running():
		w.began = now.Sub(epoch)
	}
}

// done counts transactions that have ended now. What is pipelined behind them begins anew.
func (w *stopwatch) done(n int, tenant *metrics.Tenant, now time.Time) {
	took := time.Duration(0)
	if w.running() {
		took = now.Sub(epoch) - w.began
	}
	for range n {
		tenant.TransactionDone(took)
	}
	w.began = 0
}

// measure counts the transactions that have ended, and has the stopwatch run while another is wanted or under way. Called
// with mu held.
func (l *link) measure(wanted bool) {
	if n := l.machine.TakeTransactions(); n > 0 {
		l.stopwatch.done(n, l.tenant, time.Now())
	}
	if on := wanted || l.machine.Busy() || l.machine.Status() != 'I'; on != l.stopwatch.running() {
		l.stopwatch.look(on, time.Now())
	}
}
