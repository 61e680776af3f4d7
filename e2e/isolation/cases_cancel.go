package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"
)

// cancelCases end others' statements, or the tenant's own at the wrong time.
func cancelCases() []attack {
	return []attack{
		{number: 55, sentence: "Cancel requests with foreign, stale, guessed and malformed keys", promise: always(contained), run: foreignKeys},
		{number: 56, sentence: "Cancel requests that race the release of the server connection", promise: always(contained), run: racingCancels},
	}
}

// cancel sends a CancelRequest and waits until the proxy closes the connection.
func (t *trial) cancel(pid uint32, secret []byte) {
	conn, err := net.DialTimeout("tcp", t.proxy.Address, patience)
	t.must(err)
	defer conn.Close()
	t.must(conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write(packet(cancelRequestCode, append(int32s(pid), secret...)...))
	t.must(err)
	conn.Read(make([]byte, 1)) //nolint:errcheck // the end is the answer
}

// sleeping runs a long statement and returns what became of it.
func (s *session) sleeping(seconds string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := s.run("SELECT pg_sleep(" + seconds + ")")
		done <- err
	}()
	return done
}

func foreignKeys(t *trial) {
	own := t.hostile()
	t.controlCancel(own)
	stale := t.hostile().hijack()
	stale.say(terminateMessage())
	stale.ended()
	victim := t.victim()
	backend, err := strconv.ParseUint(victim.backend(), 10, 32)
	t.must(err)
	pid, secret := victim.conn.PID(), victim.conn.SecretKey()
	asleep := victim.sleeping("2")
	t.shortly()
	t.cancel(own.conn.PID(), own.conn.SecretKey())
	t.cancel(stale.pid, stale.secret)
	t.cancel(pid, own.conn.SecretKey())
	t.cancel(own.conn.PID(), secret)
	t.cancel(uint32(backend), own.conn.SecretKey())
	for guess := range uint32(200) {
		t.cancel(pid, int32s(guess*2654435761))
		t.cancel(pid+guess%7, make([]byte, len(secret)))
	}
	t.cancel(pid, nil)
	t.cancel(pid, secret[:len(secret)-1])
	t.cancel(pid, append(append([]byte{}, secret...), 0))
	if err := <-asleep; err != nil {
		t.leak("the victim's statement ended: %v", err)
	}
	t.checks++
}

// controlCancel shows that a cancel request with the right key does what it is sent for: otherwise the others would
// prove nothing.
func (t *trial) controlCancel(s *session) {
	asleep := s.sleeping("3")
	t.must(t.eventually(func() (bool, error) {
		rows, err := t.registry(t.ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(3)'")
		return err == nil && rows[0][0] == "1", err
	}))
	t.cancel(s.conn.PID(), s.conn.SecretKey())
	if err := <-asleep; sqlstate(err) != "57014" {
		t.abandon(errors.New("a cancel request with the right key did nothing"))
	}
}

// racingCancels keeps the connections changing hands while the hostile tenant cancels its own statements just as they
// end. The victim must never be the one who is cancelled.
func racingCancels(t *trial) {
	ctx, stop := context.WithTimeout(t.ctx, 2*time.Second)
	defer stop()
	victim, hostile := t.victim(), t.hostile()
	type ended struct {
		runs int
		err  error
	}
	served := make(chan ended, 1)
	go func() {
		var e ended
		for ctx.Err() == nil && e.err == nil {
			_, e.err = victim.run("SELECT 1 FROM pg_sleep(0.001)")
			e.runs++
		}
		served <- e
	}()
	cancels := 0
	w := hostile.hijack()
	for ; ctx.Err() == nil; cancels++ {
		w.say(queryMessage("SELECT 1"))
		t.cancel(w.pid, w.secret)
		for _, f := range w.until('Z') {
			if f.kind == 'E' && f.refusal().Code != "57014" {
				t.abandon(f.refusal())
			}
		}
	}
	e := <-served
	if e.err != nil {
		t.leak("the victim's statement ended: %v", e.err)
	}
	t.note("%d cancels against %d statements", cancels, e.runs)
	t.checks++
}
