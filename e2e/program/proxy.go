package program

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// readyPatience and stopPatience bound the wait for a proxy to be ready, and to end. It has to end by itself: the
	// drain timeout of its configuration is shorter.
	readyPatience = 20 * time.Second
	stopPatience  = 20 * time.Second
	// logShown is how much of the end of a log is worth reading, in bytes: a panic with its first goroutines.
	logShown = 3000
)

// Proxy is a running docex-proxy serve.
type Proxy struct {
	Address string // for clients
	HTTP    string // host and port of its pages
	Log     string // path of what it prints

	command *exec.Cmd
	exited  chan struct{} // closed when it has ended
	exit    error         // how, from then on
	killed  bool
}

// Serve runs a proxy and returns when it answers /readyz. The configuration leaves both addresses to the environment, to
// which more may be added. What the proxy prints goes to the file log. Whoever gets it calls Stop.
func Serve(ctx context.Context, binary, config, log string, environment ...string) (*Proxy, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	return ServeAt(ctx, address, binary, config, log, environment...)
}

// ServeAt is Serve at an address for clients.
func ServeAt(ctx context.Context, address, binary, config, log string, environment ...string) (*Proxy, error) {
	page, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	p := &Proxy{Address: address, HTTP: page, Log: log, command: exec.Command(binary, "serve", "--config", config), exited: make(chan struct{})}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p.command.Stdout, p.command.Stderr = file, file
	p.command.Env = append(append(Environment(), environment...), "DOCEX_PROXY_LISTEN="+address, "DOCEX_PROXY_HTTP="+page)
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		p.exit = p.command.Wait()
	}()
	if err := p.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("proxy: %w: %s", err, p.Said()), p.Stop())
	}
	return p, nil
}

func (p *Proxy) awaitReady(ctx context.Context) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(readyPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ended, err := p.Ended(); ended {
			return fmt.Errorf("it ended: %v", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		response, err := client.Get("http://" + p.HTTP + "/readyz")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("not ready within %s", readyPatience)
}

// PID is the process's.
func (p *Proxy) PID() int { return p.command.Process.Pid }

// Said is the end of the proxy's log.
func (p *Proxy) Said() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-logShown):]))
}

// Ended reports whether the proxy has ended, and how: nil is as it should when it is told to.
func (p *Proxy) Ended() (ended bool, how error) {
	select {
	case <-p.exited:
		return true, p.exit
	default:
		return false, nil
	}
}

// Kill ends the proxy as the kernel does that is out of memory.
func (p *Proxy) Kill() error {
	if err := p.command.Process.Kill(); err != nil {
		return err
	}
	<-p.exited
	p.killed = true
	return nil
}

// Stop ends the proxy as an operator does, if it is there. It is an error when the proxy has ended in another way.
func (p *Proxy) Stop() error {
	if p.killed {
		return nil
	}
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		if p.exit != nil {
			return fmt.Errorf("proxy: %w: %s", p.exit, p.Said())
		}
		return nil
	case <-time.After(stopPatience):
		p.command.Process.Signal(syscall.SIGQUIT) //nolint:errcheck // it is to say in its log what it waits for
		time.Sleep(time.Second)
		return errors.Join(fmt.Errorf("proxy still runs after %s: %s has its goroutines", stopPatience, p.Log), p.command.Process.Kill())
	}
}
