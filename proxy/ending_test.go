package proxy_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/proxy"
)

func TestACancelRequestEndsTheQueryAndNothingElse(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		conn := b.connect()
		go func() {
			eventually(t, "it sleeps", func() bool { return b.active() == 1 })
			if err := conn.CancelRequest(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		b.fails(conn, "SELECT pg_sleep(60)", "57014")
		if got := b.mustExec(conn, "SELECT 'alive'"); got != "alive" {
			t.Error(got)
		}
		if err := conn.CancelRequest(t.Context()); err != nil { // nothing runs
			t.Error(err)
		}
		b.mustExec(conn, "SELECT pg_sleep(0.1)")
	})
}

// cancelsWait has a session wait for what it does not get, and cancels that.
func (b *bed) cancelsWait(conn *pgconn.PgConn) {
	b.t.Helper()
	failed := make(chan error, 1)
	go func() { _, err := exec(b.t.Context(), conn, "SELECT 1"); failed <- err }()
	for {
		time.Sleep(50 * time.Millisecond)
		if err := conn.CancelRequest(b.t.Context()); err != nil {
			b.t.Fatal(err)
		}
		select {
		case err := <-failed:
			if codeOf(err) != "57014" {
				b.t.Error(err)
			}
			return
		default:
		}
	}
}

func TestACancelRequestEndsTheWaitForAConnection(t *testing.T) {
	onBoth(t, 1, nil, func(t *testing.T, b *bed) {
		holder, conn := b.connect(), b.connect()
		b.mustExec(holder, "BEGIN")
		b.cancelsWait(conn)
		b.mustExec(holder, "COMMIT")
		b.mustExec(conn, "SELECT 1")
	})
}

func TestAClientThatGoesTakesItsQueryAndItsConnectionAlong(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		w := b.dial()
		w.send(query("SELECT pg_backend_pid()"))
		process := string(w.until('D')[6:])
		w.until('Z')
		w.send(query("SELECT pg_sleep(60)"))
		eventually(t, "it sleeps", func() bool { return b.active() == 1 })
		w.Close()
		eventually(t, "its backend is gone", func() bool { return b.count("SELECT count(*) FROM pg_stat_activity WHERE pid = "+process) == 0 })
		b.mustExec(b.connect(), "SELECT 1")
	})
}

func TestAServerThatGoesTellsTheClientWhy(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		conn := b.connect()
		failed := make(chan error, 1)
		go func() { _, err := exec(t.Context(), conn, "SELECT pg_sleep(60)"); failed <- err }()
		eventually(t, "it sleeps", func() bool { return b.active() == 1 })
		b.count("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()")
		if err := <-failed; codeOf(err) != "57P01" {
			t.Error(err)
		}
		b.mustExec(b.connect(), "SELECT 1")
	})
}

func TestAShutdownLetsTransactionsEnd(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		idle, busy := b.dial(), b.dial()
		busy.send(query("BEGIN"))
		busy.until('Z')
		stopped := make(chan struct{})
		go func() { b.stop(); close(stopped) }()
		if code := idle.ended(); code != "57P01" {
			t.Errorf("an idle session ended with %q", code)
		}
		busy.send(query("SELECT 1"))
		busy.until('Z')
		busy.send(query("COMMIT"))
		busy.until('Z')
		if code := busy.ended(); code != "57P01" {
			t.Errorf("a session after its transaction ended with %q", code)
		}
		<-stopped
	})
}

func TestAShutdownDoesNotWaitForEver(t *testing.T) {
	onBoth(t, 2, func(o *proxy.Options) { o.Drain = 100 * time.Millisecond }, func(t *testing.T, b *bed) {
		w := b.dial()
		w.send(query("SELECT pg_sleep(60)"))
		eventually(t, "it sleeps", func() bool { return b.active() == 1 })
		b.stop()
		if code := w.ended(); code != "57P01" {
			t.Errorf("the session ended with %q", code)
		}
		eventually(t, "the query is canceled", func() bool { return b.active() == 0 })
	})
}

func TestEveryPhaseHasItsDeadline(t *testing.T) {
	const moment = 150 * time.Millisecond
	for name, c := range map[string]struct {
		limit func(*proxy.Options)
		do    func(b *bed, w *wire)
		code  string
	}{
		"a client between transactions": {func(o *proxy.Options) { o.ClientIdle = moment }, func(*bed, *wire) {}, "57P05"},
		"a client after a transaction": {func(o *proxy.Options) { o.ClientIdle = moment },
			func(_ *bed, w *wire) { w.send(query("SELECT 1")); w.until('Z') }, "57P05"},
		"a client within a transaction": {func(o *proxy.Options) { o.IdleTransaction = moment },
			func(_ *bed, w *wire) { w.send(query("BEGIN")); w.until('Z') }, "25P03"},
		"half a message": {func(o *proxy.Options) { o.FrameTimeout = moment },
			func(_ *bed, w *wire) { w.send(query("SELECT 1")[:7]) }, "08P01"},
		"half a large message": {func(o *proxy.Options) { o.FrameTimeout = moment },
			func(_ *bed, w *wire) { w.send(queryf("SELECT 1 /*%0100000d*/", 1)[:50000]) }, "08P01"},
		"a query": {func(o *proxy.Options) { o.Query = moment },
			func(_ *bed, w *wire) { w.send(query("SELECT pg_sleep(60)")) }, "57014"},
		"a transaction": {func(o *proxy.Options) { o.Transaction = moment },
			func(_ *bed, w *wire) { w.send(query("BEGIN")); w.until('Z') }, "25P04"},
		"the wait for a connection": {func(o *proxy.Options) { o.QueueWait = 10 * moment }, func(b *bed, w *wire) {
			holders := []*wire{b.dial(), b.dial()}
			for _, holder := range holders {
				holder.send(query("BEGIN"))
				holder.until('Z')
			}
			w.send(query("SELECT 1"))
			if body := w.until('E'); string(body[:2]) != "SE" {
				b.t.Errorf("%q", body)
			}
			w.until('Z') // the session lives
			holders[0].send(query("COMMIT"))
			holders[0].until('Z')
			w.send(query("SELECT 1"))
			w.until('Z')
			w.send(message('X', ""))
		}, ""},
		"a client that does not read": {func(o *proxy.Options) { o.ClientWrite = moment }, func(b *bed, w *wire) {
			w.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 50000)"))
			eventually(b.t, "the server connection is closed", func() bool {
				return b.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%repeat%' AND pid <> pg_backend_pid()") == 0
			})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, 2, c.limit, func(t *testing.T, b *bed) {
				w := b.dial()
				c.do(b, w)
				if code := w.ended(); code != c.code {
					t.Errorf("SQLSTATE %q, want %q", code, c.code)
				}
			})
		})
	}
}

func TestASessionThatGoesOnIsNotTimedOut(t *testing.T) {
	const moment = 300 * time.Millisecond
	limits := func(o *proxy.Options) {
		o.ClientIdle, o.IdleTransaction, o.Query, o.FrameTimeout = moment, moment, moment, moment
	}
	onBoth(t, 2, limits, func(t *testing.T, b *bed) {
		w := b.dial()
		for i := range 15 {
			time.Sleep(moment / 3)
			w.send(query([]string{"BEGIN", "SELECT 1", "COMMIT"}[i%3]))
			w.until('Z')
		}
	})
}

func TestSessionsDoNotMeetInTheTurmoil(t *testing.T) {
	const workers, period = 24, 4 * time.Second
	onBoth(t, 4, func(o *proxy.Options) { o.QueueWait = 200 * time.Millisecond }, func(t *testing.T, b *bed) {
		var wait sync.WaitGroup
		var answers, sessions atomic.Int64
		end := time.Now().Add(period)
		for i := range workers {
			wait.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				for time.Now().Before(end) && !t.Failed() {
					sessions.Add(1)
					live(t, b, fmt.Sprintf("worker-%d-%d", i, random.Uint32()), random, &answers)
				}
			})
		}
		wait.Wait()
		t.Logf("%d answers in %d sessions", answers.Load(), sessions.Load())
		eventually(t, "nothing runs any more", func() bool { return b.active() == 0 })
		b.mustExec(b.connect(), "SELECT 1")
	})
}

// live is one session that checks that every answer is its own, and ends as it likes.
func live(t *testing.T, b *bed, name string, random *rand.Rand, answers *atomic.Int64) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	conn, err := pgconn.Connect(ctx, "postgres://app@"+b.address+"/db?sslmode=disable")
	if err != nil {
		if codeOf(err) != "53300" { // which says that the wait was too long
			t.Error(err)
		}
		return
	}
	defer conn.Close(ctx)
	for random.IntN(20) > 0 {
		switch random.IntN(8) {
		case 0: // goes while something runs
			conn.Exec(ctx, "SELECT pg_sleep(0.05), '"+name+"'")
			conn.Conn().Close()
			return
		case 1: // cancels, perhaps too late
			go conn.CancelRequest(ctx)
			exec(ctx, conn, "SELECT pg_sleep(0.01)")
			continue
		case 2:
			exec(ctx, conn, "BEGIN")
			exec(ctx, conn, "SELECT 1/0")
			exec(ctx, conn, "ROLLBACK")
			continue
		}
		value, err := exec(ctx, conn, "SELECT '"+name+"' || repeat('-', "+fmt.Sprint(random.IntN(20000))+")")
		switch code := codeOf(err); {
		case err == nil && len(value) >= len(name) && value[:len(name)] == name:
			answers.Add(1)
		case code == "57014" || code == "53300": // the cancel request came late, or the wait was too long
		default:
			t.Errorf("%s: %.60q, %v", name, value, err)
			return
		}
	}
}

func TestACancelRequestThatNobodyKnowsIsIgnored(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		conn, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		request := binary.BigEndian.AppendUint32(nil, 16)
		request = append(binary.BigEndian.AppendUint32(request, 80877102), 1, 2, 3, 4, 5, 6, 7, 8)
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Error("it was answered")
		}
	})
}
