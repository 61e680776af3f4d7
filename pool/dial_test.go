package pool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

// logbook is a log that can be read while it is written.
type logbook struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *logbook) Write(line []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(line)
}

// about returns the lines that hold the text.
func (l *logbook) about(text string) (lines []string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// refusals acquires in vain, so many times, and returns what was logged about it and how many lines that may be.
func refusals(t *testing.T, b *bench, target pool.Target, times int) (lines []string, bound int) {
	t.Helper()
	var log logbook
	b.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	set := b.set()
	began := time.Now()
	for range times {
		var connect *pool.ConnectError
		if _, err := set.Acquire(context.Background(), target, 0); !errors.As(err, &connect) || connect.Server != target.Server {
			t.Errorf("got %v", err)
		}
	}
	return log.about("tenant=" + target.Tenant), 1 + int(time.Since(began)/time.Second)
}

func TestAFailedConnectIsLoggedWithItsReasonOnceASecond(t *testing.T) {
	b := newBench(t, 1)
	b.options.Password = func(string, int) string { return "wrong" }
	lines, bound := refusals(t, b, b.tenant("wronged"), 10)
	if len(lines) == 0 || len(lines) > bound {
		t.Fatalf("%d lines, want 1 to %d:\n%s", len(lines), bound, strings.Join(lines, ""))
	}
	for _, want := range []string{"level=WARN", "server=main", "sqlstate=28P01", "password authentication failed"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %s in %s", want, lines[0])
		}
	}
	if strings.Contains(lines[0], "master_key_file") {
		t.Errorf("there is a key: %s", lines[0])
	}
}

func TestAServerThatAsksForThePasswordThatThereIsNotIsLoggedWithTheKeyToSet(t *testing.T) {
	b := newBench(t, 1)
	b.options.Password = nil
	if lines, _ := refusals(t, b, b.tenant("keyless"), 1); len(lines) != 1 || !strings.Contains(lines[0], "master_key_file") {
		t.Errorf("logged %q", lines)
	}
}

func TestAServerThatIsNotConfiguredIsLoggedOnceASecond(t *testing.T) {
	b := newBench(t, 1)
	lines, bound := refusals(t, b, pool.Target{Server: "nowhere", Tenant: "lost"}, 10)
	if len(lines) == 0 || len(lines) > bound || !strings.Contains(lines[0], "server=nowhere") {
		t.Errorf("%d lines, want 1 to %d: %q", len(lines), bound, lines)
	}
}
