package e2e_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// manager is a service manager: it hears what services say.
type manager struct {
	t      *testing.T
	socket string
	heard  chan string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "docex-notify-") // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{t: t, socket: filepath.Join(dir, "notify"), heard: make(chan string, 100)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, m.socket: 0o777} { // the proxy may be another user
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", m.socket)
	go func() {
		buffer := make([]byte, 1024)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			m.heard <- string(buffer[:n])
		}
	}()
	return m
}

var mainPID = regexp.MustCompile(`MAINPID=(\d+)`)

// ready waits until a process says that it serves, and returns it. It is ended with the test.
func (m *manager) ready() (pid int) {
	m.t.Helper()
	select {
	case text := <-m.heard:
		found := mainPID.FindStringSubmatch(text)
		if !strings.Contains(text, "READY=1") || found == nil {
			m.t.Fatalf("the service manager was told %q", text)
		}
		pid, _ = strconv.Atoi(found[1])
	case <-time.After(30 * time.Second):
		m.t.Fatal("nobody is ready")
	}
	m.t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

// tenantOf creates a tenant at a level, named after it.
func (s *site) tenantOf(t *testing.T, id, level string) account {
	if level == "slot" {
		return s.slotTenant(t, id+"_slot")
	}
	return s.tenant(t, id)
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d goes on", pid)
		}
	}
}

func TestAnUpgradeDropsNoTransaction(t *testing.T) {
	s := theSite(t)
	for _, level := range []string{"role", "slot"} {
		t.Run(level, func(t *testing.T) {
			m := newManager(t)
			p := s.startProxy(t, settings{"limits.login_failures": "0"})
			pid := m.ready()
			a := s.tenantOf(t, "upgraded", level)
			script := filepath.Join(t.TempDir(), "load.sql")
			if err := os.WriteFile(script, []byte("SELECT 1;\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			var load sync.WaitGroup
			done := make(chan struct{})
			var outputs [2]string
			for i, arguments := range [][]string{
				{"-n", "-f", script, "-M", "prepared", "-c", "8", "-T", "9"}, // sessions that stay
				{"-n", "-f", script, "-C", "-c", "4", "-T", "9"},             // a login for each transaction
			} {
				load.Go(func() {
					output, err := p.pgbench(t, a, arguments...)
					if err != nil {
						t.Errorf("pgbench %s: %v\n%s", strings.Join(arguments, " "), err, lastLines(output, 20))
					}
					outputs[i] = output
				})
			}
			go func() { load.Wait(); close(done) }()
			time.Sleep(2 * time.Second)
			if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			next := m.ready()
			if next == pid || !alive(pid) {
				t.Errorf("process %d took over from %d, which is alive: %t", next, pid, alive(pid))
			}
			<-done
			for _, output := range outputs {
				if !strings.Contains(output, "number of failed transactions: 0 ") {
					t.Errorf("transactions failed:\n%s", lastLines(output, 20))
				}
			}
			awaitEnd(t, pid) // its sessions have ended
			if status, _, err := p.get("/readyz"); status != 200 {
				t.Errorf("readyz: %d, %v", status, err)
			}
			syscall.Kill(next, syscall.SIGTERM)
			awaitEnd(t, next)
		})
	}
}

func TestASessionOfTheProcessBeforeCanBeCanceledAndAFailedUpgradeChangesNothing(t *testing.T) {
	s := theSite(t)
	m := newManager(t)
	config := filepath.Join(t.TempDir(), "proxy.yaml")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for dir := filepath.Dir(config); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
			os.Chmod(dir, 0o755)
		}
	}
	write(string(text))
	p := s.startProxyWith(t, config, nil)
	pid := m.ready()
	a := s.tenant(t, "canceled_over")
	conn, err := pgconn.Connect(t.Context(), p.dsn(a))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())

	write("nonsense: true\n" + string(text))
	syscall.Kill(pid, syscall.SIGUSR2)
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.logged(), "no other process has taken over"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a failed upgrade is not in the log:\n%s", p.logged())
		}
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
		t.Error(err)
	}
	other, err := pgconn.Connect(t.Context(), p.dsn(a))
	if err != nil {
		t.Fatal(err)
	}
	other.Close(context.Background())

	write(string(text))
	syscall.Kill(pid, syscall.SIGUSR2)
	next := m.ready()
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)").ReadAll()
		failed <- err
	}()
	time.Sleep(500 * time.Millisecond)
	if err := conn.CancelRequest(t.Context()); err != nil { // it reaches the new process
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		if err == nil || !strings.Contains(err.Error(), "57014") {
			t.Errorf("the query ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the query was not canceled")
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	awaitEnd(t, pid)
	syscall.Kill(next, syscall.SIGTERM)
	awaitEnd(t, next)
}
