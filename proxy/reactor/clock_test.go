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
