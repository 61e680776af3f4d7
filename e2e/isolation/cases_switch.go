package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// switchCases are about the moment in which a slot is put at a tenant's disposal.
func switchCases() []attack {
	return []attack{
		{number: 59, sentence: "A proxy killed in the middle of a switch leaves no membership behind", promise: always(contained), only: levelSlot, run: killed},
		{number: 60, sentence: "RESET ROLE and SET ROLE on a slot, raced 60000 times, win nothing", promise: always(refused), only: levelSlot, run: raced},
	}
}

const (
	// slotPattern matches the roles that the proxy logs in as.
	slotPattern = "^docex_slot_[1-9][0-9]*$"
	// slotMemberships are what a slot can become.
	slotMemberships = "SELECT count(*) FROM pg_auth_members WHERE member::regrole::text ~ '{slots}'"
)

const (
	enoughKills    = 20
	mostKills      = 60
	clientsAtKill  = 4 // of each tenant, on fewer server connections
	recoveryBudget = 5 * time.Second
)

// killed kills the proxy while its connections change hands all the time, and looks what the next one makes of it. A
// kill that leaves no membership shows nothing, so that at least one has to; if none does, one is made by hand.
func killed(t *trial) {
	left, answers, recovery := 0, int64(0), time.Duration(0)
	kills := 0
	for ; kills < enoughKills || left == 0 && kills < mostKills; kills++ {
		answers += t.killAmidSwitches(kills%2 == 1)
		if t.memberships() > 0 {
			left++
		}
		recovery = max(recovery, t.revive())
	}
	if left == 0 {
		t.must(t.proxy.Kill())
		t.awaitNoBackends()
		_, err := t.registry(t.ctx, `GRANT "{beta role}" TO docex_slot_1`)
		t.must(err)
		recovery = max(recovery, t.revive())
		t.note("none of the kills left a membership, so that one was made by hand")
	}
	t.inspectNext(victims, nil)
	t.inspectNext(tenants, nil)
	t.note("%d kills among %d answers, after %d of them a membership was left; %s after the next proxy was ready there was none",
		kills, answers, left, recovery.Round(time.Millisecond))
}

// killAmidSwitches has sessions of both tenants alternate on the server connections, and kills the proxy under them. It
// returns how many answers they were given: each their own. It kills at any time, or aims at a membership that is there.
func (t *trial) killAmidSwitches(aimed bool) int64 {
	var over atomic.Bool
	var answers atomic.Int64
	var parts []func()
	served := make(chan struct{}, 2*clientsAtKill)
	for range clientsAtKill {
		for _, who := range []struct {
			session *session
			role    string
			row     string
		}{{t.victim(), t.others.role, t.rows.text}, {t.hostile(), t.own.role, "own row"}} {
			parts = append(parts, func() {
				for first := true; ; first = false {
					rows, err := who.session.run("SELECT current_user, body FROM shared_name")
					switch {
					case err != nil && over.Load():
						return
					case err != nil:
						t.abandon(fmt.Errorf("a session of %s, before the kill: %w", who.role, err))
					case len(rows) != 1 || rows[0][0] != who.role || rows[0][1] != who.row:
						t.abandon(&strayError{who.role, rows})
					}
					if answers.Add(1); first {
						served <- struct{}{}
					}
				}
			})
		}
	}
	wait := t.aside(parts...)
	for range parts {
		select {
		case <-served:
		case <-time.After(patience):
			over.Store(true)
			t.must(errors.Join(errors.New("not all sessions are served"), t.proxy.Kill()))
		}
	}
	t.pause(time.Duration(rand.IntN(60_000)) * time.Microsecond)
	for end := time.Now().Add(time.Second); aimed && t.memberships() == 0 && time.Now().Before(end); {
	}
	over.Store(true)
	t.must(t.proxy.Kill())
	wait()
	t.awaitNoBackends()
	return answers.Load()
}

// strayError is an answer that was not the session's own.
type strayError struct {
	role string
	rows [][]string
}

func (e *strayError) Error() string {
	return fmt.Sprintf("a session of %s was given %d rows that are not its own", e.role, len(e.rows))
}

// awaitNoBackends waits until Postgres has noticed that the proxy is gone.
func (t *trial) awaitNoBackends() {
	t.must(t.eventually(func() (bool, error) {
		rows, err := t.registry(t.ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename ~ '{slots}' OR usename = 'docex_switcher'")
		return err == nil && rows[0][0] == "0", err
	}))
}

func (t *trial) memberships() int {
	rows, err := t.registry(t.ctx, slotMemberships)
	t.must(err)
	n := 0
	_, err = fmt.Sscan(rows[0][0], &n)
	t.must(err)
	return n
}

// revive starts the proxy again and returns how long after it was ready there was still a membership.
func (t *trial) revive() time.Duration {
	var err error
	t.arena.proxy, err = t.serve(t.ctx, t.level, budget)
	t.must(err)
	ready := time.Now()
	for t.memberships() > 0 {
		if time.Since(ready) > recoveryBudget {
			t.leak("a membership is left %s after the next proxy was ready", recoveryBudget)
			break
		}
		t.pause(5 * time.Millisecond)
	}
	t.checks++
	return time.Since(ready)
}
