//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// answerPatience is how long a client waits for one answer before it gives the connection up.
	answerPatience = 15 * time.Second
	// tryAgain lies between a client's attempts to connect.
	tryAgain      = 25 * time.Millisecond
	loginPatience = 10 * time.Second
)

// fate is what a client knows of a row that it has sent.
type fate int

const (
	unknown      fate = iota // the connection broke meanwhile
	acknowledged             // it is there
	refused                  // it is not
)

// witness is one client, which writes to its tenant's ledger as long as it lives.
type witness struct {
	site   *site
	tenant string
	id     int
	pace   time.Duration // between an answer and the next row

	mu      sync.Mutex // guards what follows
	fates   []fate     // by row
	foreign int        // answers of another tenant
	seen    map[string]int
	last    time.Time     // of the last acknowledged row
	first   time.Time     // of the first one since mark
	longest time.Duration // for an answer, since mark
	since   time.Time     // mark
}

// run writes until the context ends.
func (w *witness) run(ctx context.Context) {
	var conn *pgconn.PgConn
	for ctx.Err() == nil {
		if conn == nil {
			var err error
			if conn, err = w.connect(ctx); err != nil {
				w.note("login: "+kindOf(err), ctx.Err() == nil)
				pause(ctx, tryAgain)
				conn = nil
				continue
			}
		}
		if !w.write(ctx, conn) {
			shut(conn)
			conn = nil
			continue // the pace is between an answer and the next row
		}
		pause(ctx, w.pace)
	}
	if conn != nil {
		shut(conn)
	}
}

func shut(conn *pgconn.PgConn) {
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	conn.Close(ctx) //nolint:errcheck // it may be broken
}

func (w *witness) connect(ctx context.Context) (*pgconn.PgConn, error) {
	ctx, stop := context.WithTimeout(ctx, loginPatience)
	defer stop()
	return pgconn.Connect(ctx, w.site.dsn(w.site.clients.address, appLogin, w.tenant))
}

// write sends a row. It reports whether the connection is of further use.
func (w *witness) write(ctx context.Context, conn *pgconn.PgConn) bool {
	w.mu.Lock()
	n := len(w.fates)
	w.fates = append(w.fates, unknown)
	w.mu.Unlock()
	sql := fmt.Sprintf("INSERT INTO ledger (client, n) VALUES (%d, %d) RETURNING (SELECT name FROM owner)", w.id, n)
	bounded, stop := context.WithTimeout(context.WithoutCancel(ctx), answerPatience)
	defer stop()
	began := time.Now()
	results, err := conn.Exec(bounded, sql).ReadAll()
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, now.Sub(began))
	if err == nil {
		if len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != w.tenant {
			w.foreign++
		}
		w.fates[n], w.last = acknowledged, now
		if w.first.IsZero() && began.After(w.since) {
			w.first = now
		}
		return true
	}
	w.seen[kindOf(err)]++
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok && !lost(refusal) {
		w.fates[n] = refused
		return !conn.IsClosed()
	}
	return false
}

// lost reports whether an error leaves open what has become of the statement: the server connection broke under it, or
// it ended the session, which it may have done while the statement was committing.
func lost(refusal *pgconn.PgError) bool {
	return strings.HasPrefix(refusal.Code, "08") || refusal.Severity == "FATAL"
}

func (w *witness) note(kind string, counts bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if counts {
		w.seen[kind]++
	}
}

// kindOf is an error in a word.
func kindOf(err error) string {
	var refusal *pgconn.PgError
	var network net.Error
	switch {
	case errors.As(err, &refusal):
		return refusal.Code
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "no answer"
	}
	return "disconnected"
}

// mark begins a new count of what is seen.
func (w *witness) mark(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.longest = make(map[string]int), 0
	w.first, w.since = time.Time{}, at
}

// resumeAt has served say when the first row is acknowledged that is sent after the time.
func (w *witness) resumeAt(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.first, w.since = time.Time{}, at
}

func (w *witness) served() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}

// crowd is all witnesses.
type crowd []*witness

// observation is what the crowd saw of one fault.
type observation struct {
	errors       map[string]int
	longest      time.Duration
	recovered    time.Duration // from the end of the fault until all were served again
	acknowledged int           // rows, since the beginning
	wrong        []string      // what must not be
}

func (o *observation) seen() string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(o.errors)) {
		words = append(words, fmt.Sprintf("%s ×%d", kind, o.errors[kind]))
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// awaitService waits until all are served again after a time, and returns how long it took.
func (c crowd) awaitService(ctx context.Context, since time.Time, patience time.Duration) (time.Duration, error) {
	end := time.Now().Add(patience)
	var latest time.Time
	for _, w := range c {
		for {
			if at := w.served(); !at.IsZero() {
				if at.After(latest) {
					latest = at
				}
				break
			}
			if time.Now().After(end) || ctx.Err() != nil {
				return time.Since(since), fmt.Errorf("client %d of %s is not served again within %s", w.id, w.tenant, patience)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return latest.Sub(since), nil
}

// collect adds up what all have seen since mark.
func (c crowd) collect(o *observation) {
	o.errors = make(map[string]int)
	for _, w := range c {
		w.mu.Lock()
		for kind, n := range w.seen {
			o.errors[kind] += n
		}
		o.longest = max(o.longest, w.longest)
		if w.foreign > 0 {
			o.wrong = append(o.wrong, fmt.Sprintf("client %d of %s has had %d answers of another tenant", w.id, w.tenant, w.foreign))
		}
		w.mu.Unlock()
	}
}

// audit compares the ledgers with what the clients know. Rows that are under way meanwhile are open.
func (c crowd) audit(ctx context.Context, s *site, o *observation) error {
	known := make([][]fate, len(c))
	for i, w := range c { // before the ledgers are read: what is known then is true of them
		w.mu.Lock()
		known[i] = slices.Clone(w.fates)
		w.mu.Unlock()
	}
	rows, err := s.ledgers(ctx)
	if err != nil {
		return err
	}
	for i, w := range c {
		there := rows[ledgerKey{w.tenant, w.id}]
		wrong := func(n int, what string, times int) {
			o.wrong = append(o.wrong, fmt.Sprintf("row %d of client %d of %s was %s and is there %d times", n, w.id, w.tenant, what, times))
			w.mu.Lock()
			w.fates[n] = unknown // it is told once
			w.mu.Unlock()
		}
		for n, f := range known[i] {
			switch times := there[n]; {
			case f == acknowledged && times != 1:
				wrong(n, "acknowledged", times)
			case f == refused && times != 0:
				wrong(n, "refused", times)
			case f == acknowledged:
				o.acknowledged++
			}
		}
		delete(rows, ledgerKey{w.tenant, w.id})
	}
	for key, there := range rows {
		o.wrong = append(o.wrong, fmt.Sprintf("%d rows of client %d are in the ledger of %s", len(there), key.client, key.tenant))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
