package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	raceConnections = 6 // more than a level's other cases have: some are held, the others change hands
	holders         = 3
	raceTries       = 60_000
	raceAtLeast     = 5 * time.Second
	raceAtMost      = 45 * time.Second
	burst           = 50  // tries in one write
	blockTries      = 500 // tries in one DO block
)

// tries are how the hostile tenant, on a slot and in no role, reaches for the victim. The scan of a catalogue has the
// backend take note of what others have committed: without it, a GRANT would not be seen within a transaction.
var tries = []string{
	`SELECT 1 FROM pg_am LIMIT 0; SET ROLE "{beta role}"; SELECT body FROM {beta}.canary`,
	"SELECT 1 FROM pg_am LIMIT 0; SELECT body FROM {beta}.canary",
	"SELECT 1 FROM pg_am LIMIT 0; SELECT set_config('role', '{beta role}', false)",
	`SELECT 1 FROM pg_am LIMIT 0; SET LOCAL ROLE "{beta role}"`,
}

// race is the hostile tenant's sessions against the switches of the victim's.
type race struct {
	t     *trial
	over  atomic.Bool
	lost  atomic.Int64 // tries that were refused
	won   atomic.Int64
	moved atomic.Int64 // transactions of the victim
}

// raced holds some connections in transactions, out of the role, and reaches for the victim from there, while the
// victim's sessions and others of the hostile tenant are switched on and off on the rest.
func raced(t *trial) {
	t.moveTo(raceConnections)
	r := &race{t: t}
	var parts []func()
	for range holders {
		w := t.hostile().hijack()
		parts = append(parts, func() { r.hold(w) })
		leaver, victim := t.hostile(), t.victim()
		parts = append(parts, func() { r.leaveRole(leaver) }, func() { r.beServed(victim) })
	}
	began := time.Now()
	wait := t.aside(parts...)
	seen := 0
	for took := time.Duration(0); took < raceAtMost && (took < raceAtLeast || r.lost.Load() < raceTries); took = time.Since(began) {
		if t.memberships() > 0 {
			seen++
		}
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(began)
	r.over.Store(true)
	wait()
	if lost := r.lost.Load(); lost < raceTries {
		t.abandon(fmt.Errorf("only %d tries in %s", lost, took))
	}
	if won := r.won.Load(); won > 0 {
		t.leak("%d tries won", won)
	}
	t.refusals["42501"] += int(r.lost.Load())
	r.control()
	t.note("in %s: %d transactions of the victim, %d switches, a membership was seen %d times", took.Round(100*time.Millisecond),
		r.moved.Load(), t.switches(), seen)
}

// moveTo serves the trial by a proxy of its own, with so many server connections.
func (t *trial) moveTo(connections int) {
	p, err := t.serve(t.ctx, t.level, connections)
	t.must(err)
	before := t.arena.proxy
	t.arena.proxy = p
	t.atEnd(func() {
		t.arena.proxy = before
		t.must(p.Stop())
	})
}

// hold keeps a connection for one transaction after the other, and tries in each from savepoint to savepoint.
func (r *race) hold(w *wire) {
	for !r.over.Load() {
		r.begin(w)
		for range 5 {
			r.burst(w)
			r.block(w)
		}
		w.order("ROLLBACK")
	}
}

// begin starts a transaction out of the role. A switch may hand the connection over at any time before.
func (r *race) begin(w *wire) {
	w.order("BEGIN")
	w.order("RESET ROLE")
	w.order("SAVEPOINT evil")
}

// order runs a statement that has to succeed.
func (w *wire) order(sql string) {
	w.t.must(w.Conn.SetDeadline(time.Now().Add(patience)))
	w.say(queryMessage(w.t.named(sql)))
	for _, f := range w.until('Z') {
		if f.kind == 'E' {
			w.t.abandon(fmt.Errorf("%s: %w", sql, f.refusal()))
		}
	}
}

// burst tries many times in one write.
func (r *race) burst(w *wire) {
	var messages [][]byte
	for n := range burst {
		messages = append(messages, queryMessage(r.t.named(tries[n%len(tries)])), queryMessage("ROLLBACK TO evil"))
	}
	w.say(messages...)
	for range burst {
		r.count(w.until('Z'))
		w.until('Z') // of the ROLLBACK TO
	}
}

// block tries many times in one statement, where no message passes the proxy.
func (r *race) block(w *wire) {
	w.say(queryMessage(r.t.named(fmt.Sprintf(`DO $evil$
BEGIN
	FOR n IN 1..%d LOOP
		BEGIN
			PERFORM 1 FROM pg_am LIMIT 0;
			EXECUTE 'SET ROLE "{beta role}"';
			RAISE EXCEPTION 'won';
		EXCEPTION WHEN insufficient_privilege THEN
		END;
	END LOOP;
END$evil$`, blockTries))))
	answer := w.until('Z')
	for _, f := range answer {
		if f.kind == 'E' {
			r.won.Add(1)
			w.order("ROLLBACK TO evil")
			return
		}
	}
	r.lost.Add(blockTries)
}

// count counts the answer to a try. Any error but a refusal spoils the race.
func (r *race) count(answer []frame) {
	at := slices.IndexFunc(answer, func(f frame) bool { return f.kind == 'E' })
	switch {
	case at < 0:
		r.won.Add(1)
	case answer[at].refusal().Code != "42501":
		r.t.abandon(answer[at].refusal())
	default:
		r.lost.Add(1)
	}
}

// leaveRole reaches for the victim where the connection is given back after each try, and with it the slot.
func (r *race) leaveRole(s *session) {
	for !r.over.Load() {
		for _, sql := range []string{`RESET ROLE; SET ROLE "{beta role}"`, "RESET ROLE", `SET ROLE "{beta role}"`} {
			_, err := s.run(sql)
			switch code := sqlstate(err); {
			case code == "42501":
				r.lost.Add(1)
			case err != nil:
				r.t.abandon(err)
			case sql != "RESET ROLE":
				r.won.Add(1)
			}
		}
	}
}

// beServed is the victim at work.
func (r *race) beServed(s *session) {
	for ; !r.over.Load(); r.moved.Add(1) {
		rows, err := s.run("SELECT body FROM shared_name")
		if err != nil || len(rows) != 1 || rows[0][0] != r.t.rows.text {
			r.t.abandon(fmt.Errorf("the victim is not served: %d rows, %w", len(rows), err))
		}
	}
}

// control gives the slot what a switch would have to leave: then the same tries win, each of them. What they are for
// is left out, as it would be a leak.
func (r *race) control() {
	s := r.t.hostile()
	defer s.close()
	slot := s.must("BEGIN; RESET ROLE; SAVEPOINT evil; SELECT session_user")
	grant := func(sql string) {
		_, err := r.t.registry(r.t.ctx, sql)
		r.t.must(err)
	}
	grant(`GRANT "{beta role}" TO ` + slot)
	for _, try := range tries {
		if try = strings.ReplaceAll(try, "; SELECT body FROM {beta}.canary", ""); !strings.Contains(try, "role") {
			continue
		}
		if _, err := s.run(try); err != nil {
			r.t.abandon(errors.Join(errors.New("a try could not have won"), err))
		}
		s.must("ROLLBACK TO evil")
	}
	grant(`REVOKE "{beta role}" FROM ` + slot)
	s.must("ROLLBACK")
}

// switches is how many the proxy has counted.
func (t *trial) switches() int {
	response, err := http.Get("http://" + t.proxy.HTTP + "/metrics")
	t.must(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	t.must(err)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.Contains(name, "tenant_switch_seconds_count") {
			n := 0
			_, err := fmt.Sscan(value, &n)
			t.must(err)
			return n
		}
	}
	t.abandon(errors.New("the proxy counts no switches"))
	return 0
}
