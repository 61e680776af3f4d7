package proxy_test

import (
	"net"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/proxy"
)

func TestARetiredServerAcceptsNobodyAndKeepsItsSessions(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		w := b.dial()
		b.server.Retire()
		b.server.Retire()
		eventually(t, "nobody is accepted", func() bool {
			conn, err := net.DialTimeout("tcp", b.address, patience)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		w.send(query("SELECT 1")) // the session goes on
		w.until('Z')
		w.send(message('X', ""))
		ended := make(chan struct{})
		go func() { b.ended(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("a server without sessions goes on")
		}
	})
}

func TestARetiredServerEndsItsSessionsWhenTheirTimeIsUp(t *testing.T) {
	onBoth(t, 2, func(o *proxy.Options) { o.Outstay = 50 * time.Millisecond }, func(t *testing.T, b *bed) {
		w := b.dial()
		w.send(query("BEGIN"))
		w.until('Z')
		b.server.Retire()
		time.Sleep(100 * time.Millisecond)
		w.send(query("SELECT 1")) // a transaction may finish
		w.until('Z')
		w.send(query("COMMIT"))
		if code := w.ended(); code != "57P01" {
			t.Errorf("it ended with %q", code)
		}
	})
}

func TestACancelRequestFindsItsSessionInTheProcessBefore(t *testing.T) {
	old := newBed(t, 2)
	old.serve()
	after := newBed(t, 2)
	after.options.Forward = func(body []byte) { go old.server.CancelRequest(t.Context(), body) }
	after.serve()

	w := old.dial()
	key := old.key
	w.send(query("SELECT pg_sleep(60)"))
	eventually(t, "it sleeps", func() bool { return old.active() == 1 })
	conn, err := net.Dial("tcp", after.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&wire{t, conn}).send(append([]byte{0, 0, 0, byte(8 + len(key)), 4, 210, 22, 46}, key...))
	w.until('E')
}
