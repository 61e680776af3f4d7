package proxy

import (
	"net"
	"testing"
	"time"
)

func TestTheThrottleDelaysAnAddressForOneTenantAfterFailuresOnly(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	th := newThrottle(5, func() time.Time { return now })
	key := keyOf(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1234}, "acme")
	if other := keyOf(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 9}, "acme"); other != key {
		t.Fatal("the port counts")
	}
	for range 4 {
		th.failedOnce(key)
	}
	if wait := th.allow(key); wait != 0 {
		t.Errorf("delayed by %s after 4 failures", wait)
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		th.failedOnce(key)
		if wait := th.allow(key); wait != want {
			t.Errorf("delay %d is %s, want %s", i, wait, want)
		}
	}
	for range 20 {
		th.failedOnce(key)
	}
	if wait := th.allow(key); wait != longestDelay {
		t.Errorf("delay grows to %s", wait)
	}
	if th.allow(keyOf(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, "globex")) != 0 || th.allow(keyOf(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 2)}, "acme")) != 0 {
		t.Error("others are delayed")
	}
	now = now.Add(longestDelay)
	if th.allow(key) != 0 {
		t.Error("the delay does not end")
	}
	th.succeeded(key)
	th.failedOnce(key)
	if th.allow(key) != 0 {
		t.Error("a success does not forget")
	}
}

func TestTheThrottleIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	th := newThrottle(5, func() time.Time { return now })
	for i := range maxThrottled + 100 {
		now = now.Add(time.Millisecond)
		th.failedOnce(throttleKey{address: string(rune(i))})
	}
	if len(th.failed) > maxThrottled {
		t.Errorf("%d entries", len(th.failed))
	}
}
