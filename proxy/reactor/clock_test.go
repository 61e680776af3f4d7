//go:build linux && (amd64 || arm64)

package reactor_test

import (
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy/reactor"
)

func TestADeadlineMaySetTheNextOneOfItsClock(t *testing.T) {
	onEach(t, aDeadlineMaySetTheNextOneOfItsClock)
}

func aDeadlineMaySetTheNextOneOfItsClock(t *testing.T, kind reactor.Kind) {
	loop := made(t, kind)
	var clock *reactor.Clock
	var alarm *reactor.Alarm
	rung, done := 0, make(chan struct{})
	clock = loop.NewClock(time.Millisecond, func(owner any) {
		alarm = alarm.Stop()
		if rung++; rung == 3 {
			close(done)
			return
		}
		alarm = clock.Set(owner)
	})
	go loop.Run()
	loop.Post(reactor.Func(func() { alarm = clock.Set("somebody") }))
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the deadlines did not come")
	}
	loop.Stop()
}

func TestDeadlinesOfManyClocksComeInAnyOrder(t *testing.T) {
	onEach(t, deadlinesOfManyClocksComeInAnyOrder)
}

// Each deadline takes back one of another clock and sets a new one, as the end of a session takes back all of its own.
func deadlinesOfManyClocksComeInAnyOrder(t *testing.T, kind reactor.Kind) {
	const clocks, rounds = 7, 400
	loop := made(t, kind)
	var all [clocks]*reactor.Clock
	var alarms [clocks]*reactor.Alarm
	rung, done := 0, make(chan struct{})
	for i := range all {
		all[i] = loop.NewClock(time.Duration(1+i%3)*time.Millisecond, func(any) {
			alarms[i] = alarms[i].Stop()
			other := (i*5 + rung) % clocks
			alarms[other] = alarms[other].Stop()
			rung++
			if rung == rounds {
				close(done)
			}
			for _, again := range []int{i, other} {
				if alarms[again] == nil && rung < rounds {
					alarms[again] = all[again].Set("somebody")
				}
			}
		})
	}
	go loop.Run()
	loop.Post(reactor.Func(func() {
		for i := range all {
			alarms[i] = all[i].Set("somebody")
		}
	}))
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the deadlines did not come")
	}
	loop.Stop()
}
