package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program under test that keeps running. Its output goes to files, so that no goroutine is needed to
// read it while nobody waits for its end.
type process struct {
	name    string
	command *exec.Cmd
	stdout  string // paths of files
	stderr  string

	waitOnce sync.Once
	exited   chan struct{}
	err      error // of Wait, once exited is closed
}

// stopPatience is longer than any drain that the tests configure.
const stopPatience = 20 * time.Second

// launch starts a program with an environment of its own: what this machine says about Postgres is left out.
func launch(dir, name, binary string, environment []string, arguments ...string) (*process, error) {
	return launchAs(nil, dir, name, binary, environment, arguments...)
}

// launchAs is launch with attributes of the process, such as the user it runs as; nil has none.
func launchAs(attributes *syscall.SysProcAttr, dir, name, binary string, environment []string, arguments ...string) (*process, error) {
	p := &process{
		name: name, command: exec.Command(binary, arguments...), exited: make(chan struct{}),
		stdout: filepath.Join(dir, name+".out"), stderr: filepath.Join(dir, name+".log"),
	}
	stdout, err := os.Create(p.stdout)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, err := os.Create(p.stderr)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	p.command.Stdout, p.command.Stderr, p.command.SysProcAttr = stdout, stderr, attributes
	p.command.Env = append(cleanEnvironment(), environment...)
	return p, p.command.Start()
}

// cleanEnvironment is this machine's without what it says about Postgres and about proxies, except for what carries the
// sessions: the whole suite runs on either, with DOCEX_PROXY_IO.
func cleanEnvironment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		chosen := name == "DOCEX_PROXY_IO" || name == "DOCEX_PROXY_REACTORS"
		if chosen || !strings.HasPrefix(name, "DOCEX_") && !strings.HasPrefix(name, "PG") {
			kept = append(kept, variable)
		}
	}
	return kept
}

func (p *process) printed() string { return read(p.stdout) }

func (p *process) logged() string { return read(p.stderr) }

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// wait returns the exit code, or an error when the program is still running after the given time.
func (p *process) wait(patience time.Duration) (int, error) {
	p.waitOnce.Do(func() {
		go func() {
			p.err = p.command.Wait()
			close(p.exited)
		}()
	})
	select {
	case <-p.exited:
	case <-time.After(patience):
		return 0, fmt.Errorf("%s still runs after %s", p.name, patience)
	}
	if status := (*exec.ExitError)(nil); p.err != nil && !errors.As(p.err, &status) {
		return 0, p.err
	}
	return p.command.ProcessState.ExitCode(), nil
}

// stop ends the program as an operator does, and says what was wrong with its life or its end.
func (p *process) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	code, err := p.wait(stopPatience)
	if err != nil {
		p.command.Process.Kill() //nolint:errcheck // it may have ended by now
		<-p.exited
		return err
	}
	if code != 0 {
		return fmt.Errorf("%s: exit code %d", p.name, code)
	}
	return p.races()
}

func (p *process) races() error {
	if log := p.logged(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
		return fmt.Errorf("%s:\n%s", p.name, lastLines(log, 200))
	}
	return nil
}

// guard stops the program at the end of a test, and shows what it said when the test has failed.
func (p *process) guard(t *testing.T) {
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s%s", p.name, lastLines(p.printed(), 20), lastLines(p.logged(), 60))
		}
	})
}

func lastLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// alive reports whether the program has not ended: neither gone nor waiting to be reaped.
func (p *process) alive() bool { return alive(p.command.Process.Pid) }

func alive(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(status, []byte(") Z "))
}

// memory is what the program has in RAM, in bytes.
func (p *process) memory(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(read(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatalf("%s: no VmRSS", p.name)
	return 0
}

// eventually waits until a condition holds.
func eventually(t testing.TB, patience time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
