//go:build linux

package main

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

const patience = 10 * time.Second

// echo is a server that says everything again.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn) //nolint:errcheck // it ends with the connection
				conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func newTestRelay(t *testing.T) *relay {
	t.Helper()
	r, err := newRelay(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func dial(t *testing.T, r *relay) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", r.address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// says sends a text and returns how much of it came back within the time.
func says(conn net.Conn, text string, within time.Duration) (string, error) {
	if _, err := conn.Write([]byte(text)); err != nil {
		return "", err
	}
	conn.SetReadDeadline(time.Now().Add(within)) //nolint:errcheck // the read will tell
	b := make([]byte, len(text))
	n, err := io.ReadFull(conn, b)
	return string(b[:n]), err
}

func TestARelayPassesOnAndHeals(t *testing.T) {
	r := newTestRelay(t)
	conn := dial(t, r)
	if got, err := says(conn, "hello", patience); got != "hello" {
		t.Fatal(got, err)
	}
	r.silent.Store(true)
	if got, err := says(conn, "quiet", 50*time.Millisecond); got != "" || err == nil {
		t.Errorf("a silent relay has passed on %q", got)
	}
	if err := r.heal(); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); string(b) != "quiet" { // nothing was lost
		t.Errorf("%q, %v", b, err)
	}
	r.delay.Store(int64(30 * time.Millisecond))
	began := time.Now()
	if got, _ := says(conn, "late", patience); got != "late" || time.Since(began) < 60*time.Millisecond {
		t.Errorf("%q after %s", got, time.Since(began))
	}
}

func TestARelayResetsRefusesAndCuts(t *testing.T) {
	r := newTestRelay(t)
	conn := dial(t, r)
	says(conn, "hello", patience)
	r.refuse()
	r.reset()
	if _, err := says(conn, "hello", patience); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("after a reset: %v", err)
	}
	if other, err := net.DialTimeout("tcp", r.address, patience); err == nil {
		other.Close()
		t.Error("a relay that refuses has accepted")
	}
	if err := r.heal(); err != nil {
		t.Fatal(err)
	}
	conn = dial(t, r)
	r.cut.Store(3)
	if got, err := says(conn, "hello", patience); len(got) > 3 || err == nil {
		t.Errorf("of 3 bytes came %q, %v", got, err)
	}
	r.cut.Store(0)
	conn = dial(t, r)
	says(conn, "hello", patience)
	r.finish()
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a FIN came as %v", err)
	}
}
