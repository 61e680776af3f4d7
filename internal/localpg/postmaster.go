package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	logFile      = "server.log"
	logTailBytes = 2 << 10
	pollInterval = 20 * time.Millisecond
	stopPatience = 10 * time.Second // per step of shutdownSignals
)

// postmaster is one server process. The goroutine in run owns it; exited is closed when it is gone.
type postmaster struct {
	cmd     *exec.Cmd
	dataDir string
	started chan error
	exited  chan struct{}
	exitErr error // valid once exited is closed
}

// startPostmaster runs postgres and returns when it accepts connections. When it does not, the process is gone.
func startPostmaster(ctx context.Context, binDir, dataDir string, account account) (*postmaster, error) {
	log, err := os.OpenFile(filepath.Join(dataDir, logFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own descriptor by then
	if err := account.give(log.Name()); err != nil {
		return nil, err
	}
	cmd := exec.Command(program(binDir, "postgres"), "-D", dataDir)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = environment(), dataDir, log, log
	cmd.SysProcAttr = account.attributes()
	dieWithParent(cmd.SysProcAttr)

	p := &postmaster{cmd: cmd, dataDir: dataDir, started: make(chan error, 1), exited: make(chan struct{})}
	go p.run()
	if err := <-p.started; err != nil {
		<-p.exited
		return nil, err
	}
	if err := p.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// run starts the process and waits for its end on one locked thread: the kernel sends the parent-death signal when
// the starting thread ends, so that thread has to live as long as the process.
func (p *postmaster) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.exited)
	err := p.cmd.Start()
	p.started <- err
	if err == nil {
		p.exitErr = p.cmd.Wait()
	}
}

func (p *postmaster) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !p.ready() {
		select {
		case <-tick.C:
		case <-p.exited:
			return fmt.Errorf("postgres ended while starting (%w): %s", p.exitErr, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer (%w): %s", context.Cause(ctx), p.logTail())
		}
	}
	return nil
}

// ready reads postmaster.pid: line 1 is the process id, line 8 says "ready" once connections are accepted. The id
// has to be ours, since a crashed predecessor may have left the file.
func (p *postmaster) ready() bool {
	text, err := os.ReadFile(filepath.Join(p.dataDir, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(p.cmd.Process.Pid) && strings.TrimSpace(lines[7]) == "ready"
}

func (p *postmaster) logTail() string {
	text, err := os.ReadFile(filepath.Join(p.dataDir, logFile))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logTailBytes):]))
}

// stop ends the process, more harshly at each step, and returns when it is gone.
func (p *postmaster) stop() error {
	for _, signal := range shutdownSignals() {
		if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop postgres: %w", err)
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(stopPatience):
		}
	}
	return fmt.Errorf("postgres (process %d) survived every signal", p.cmd.Process.Pid)
}
