package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/metrics/traces"
	"github.com/docex-proxy/docex-proxy/proxy"
)

func TestMessagesMayComeByteByByte(t *testing.T) {
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		w := b.dial()
		stream := append(query("SELECT 'one'"), message('P', "s\x00SELECT $1::text\x00\x00\x00")...)
		stream = append(stream, message('B', "\x00s\x00\x00\x00\x00\x01\x00\x00\x00\x03two\x00\x00")...)
		stream = append(append(stream, message('E', "\x00\x00\x00\x00\x00")...), message('S', "")...)
		for i := range stream {
			w.send(stream[i : i+1])
			if i%16 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		for _, want := range []string{"one", "two"} {
			if row := w.until('D'); string(row[6:]) != want {
				t.Errorf("%q, want %q", row[6:], want)
			}
			w.until('Z')
		}
	})
}

func TestAPipelineIsTakenWhoeverReadsFirst(t *testing.T) {
	const queries, size = 3000, 2000
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		w := b.dial()
		go func() { // written whole before anything is read
			var stream []byte
			for i := range queries {
				stream = append(stream, queryf("SELECT %d, repeat('x', %d) /*%s*/", i, size, strings.Repeat("y", size))...)
			}
			w.send(stream)
		}()
		time.Sleep(200 * time.Millisecond)
		for i := range queries {
			row := w.until('D')
			number := strconv.Itoa(i)
			if !bytes.HasPrefix(row[6:], []byte(number)) || len(row) != 2+4+len(number)+4+size {
				t.Fatalf("answer %d begins with %q and has %d bytes", i, row[:16], len(row))
			}
			w.until('Z')
		}
	})
}

func TestALargeResultTakesNoMemoryWhileItsReaderIsSlow(t *testing.T) {
	const rows, size = 32000, 8000 // 256 MB
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		w := b.dial()
		w.send(queryf("SELECT repeat('x', %d) FROM generate_series(1, %d)", size, rows))
		time.Sleep(300 * time.Millisecond)
		before, most, got := heap(), uint64(0), 0
		buffer := make([]byte, 1<<20)
		for i := 0; got < rows*(size+11); i++ {
			w.SetReadDeadline(time.Now().Add(patience))
			n, err := w.Read(buffer)
			if got += n; err != nil {
				t.Fatal(err)
			}
			if i%500 == 0 {
				most = max(most, heap())
				time.Sleep(5 * time.Millisecond)
			}
		}
		if most > before+16<<20 {
			t.Errorf("%d MB on the heap grew to %d MB", before>>20, most>>20)
		}
	})
}

// heap is what is in use, garbage aside.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse
}

func TestALargeCopyGoesThrough(t *testing.T) {
	const lines = 40_000
	onBoth(t, 2, nil, func(t *testing.T, b *bed) {
		conn := b.connect()
		b.mustExec(conn, "CREATE TABLE copied (n int, pad text)")
		reader, writer := io.Pipe()
		go func() {
			for i := range lines {
				fmt.Fprintf(writer, "%d\t%s\n", i, strings.Repeat("z", i%300))
			}
			writer.Close()
		}()
		if _, err := conn.CopyFrom(t.Context(), reader, "COPY copied FROM STDIN"); err != nil {
			t.Fatal(err)
		}
		if got := b.mustExec(conn, "SELECT count(*) || '/' || sum(n) FROM copied"); got != "40000/799980000" {
			t.Error(got)
		}
		var out bytes.Buffer
		if _, err := conn.CopyTo(t.Context(), &out, "COPY (SELECT n FROM copied ORDER BY n) TO STDOUT"); err != nil || out.Len() != 228890 {
			t.Errorf("%d bytes, %v", out.Len(), err)
		}
	})
}

func TestManySessionsTakeTurnsOnFewConnections(t *testing.T) {
	const sessions, rounds = 40, 50
	onBoth(t, 3, nil, func(t *testing.T, b *bed) {
		var wait sync.WaitGroup
		for i := range sessions {
			conn := b.connect()
			wait.Go(func() {
				for j := range rounds {
					want := fmt.Sprintf("%d/%d", i, j)
					if got, err := exec(context.Background(), conn, "SELECT '"+want+"'"); err != nil || got != want {
						t.Errorf("%q, %v, want %q", got, err, want)
						return
					}
				}
			})
		}
		wait.Wait()
	})
}

func TestAThousandSessionsLeaveNothingBehind(t *testing.T) {
	const sessions, connections = 1000, 4
	onBoth(t, connections, nil, func(t *testing.T, b *bed) {
		b.dial().Close() // what the process opens once is open
		before := descriptors(t)
		wires := make([]*wire, sessions)
		for i := range wires {
			wires[i] = b.dial()
		}
		if b.options.Reactors > 0 {
			eventually(t, "no session has a goroutine", func() bool { return runtime.NumGoroutine() < 100 })
		}
		for i, w := range wires {
			w.send(queryf("SELECT %d", i))
		}
		for i, w := range wires {
			if row := w.until('D'); string(row[6:]) != strconv.Itoa(i) {
				t.Errorf("session %d got %q", i, row[6:])
			}
			w.until('Z')
		}
		for i, w := range wires {
			if i%2 == 0 {
				w.send(message('X', ""))
			}
			w.Close()
		}
		eventually(t, "the descriptors are closed", func() bool { return descriptors(t) <= before+connections })
		b.stop()
	})
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAMessageCostsNoMemory(t *testing.T) {
	if !proxy.HasReactors {
		return // it is a promise of the reactors
	}
	b := newBed(t, 2)
	b.options.Reactors, b.options.IdleTransaction, b.options.Query, b.options.Transaction = 1, time.Hour, time.Hour, time.Hour
	b.options.Traces = untaken(t)
	b.serve()
	w := b.dial()
	request, answer := query("SELECT 1"), make([]byte, 1000)
	again := func() {
		w.Write(request)
		for n := 0; n == 0 || answer[n-6] != 'Z'; {
			m, err := w.Read(answer[n:])
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
	}
	w.SetDeadline(time.Time{})
	if allocations := testing.AllocsPerRun(500, again); allocations > 0 {
		t.Errorf("%v allocations for a message and its answer", allocations)
	}
}

// untaken is a tracer that samples next to nothing.
func untaken(t *testing.T) *traces.Tracer {
	tracer, err := traces.New(t.Context(), traces.Options{Endpoint: "127.0.0.1:1", Sample: 1e-12, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tracer.Close(context.Background()) })
	return tracer
}
