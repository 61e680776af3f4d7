package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const modulePath = "github.com/docex-proxy/docex-proxy"

// build puts both programs into a directory.
func build(ctx context.Context, dir string) error {
	command := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		modulePath+"/cmd/docex-proxy", modulePath+"/cmd/docexctl")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return nil
}

// cleanEnvironment leaves out what this machine says about Postgres and DocEX.
func cleanEnvironment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "DOCEX_") && !strings.HasPrefix(variable, "PG") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// proxy is a running docex-proxy serve.
type proxy struct {
	command *exec.Cmd
	address string
	http    string
	log     string // path
	exited  chan error
}

const (
	readyPatience = 20 * time.Second
	stopPatience  = 20 * time.Second
)

// startProxy returns when the proxy answers /readyz. The configuration leaves both addresses to the environment.
func startProxy(ctx context.Context, binary, config, log string) (*proxy, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	page, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &proxy{command: exec.Command(binary, "serve", "--config", config), address: address, http: page, log: log, exited: make(chan error, 1)}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p.command.Stdout, p.command.Stderr = file, file
	p.command.Env = append(cleanEnvironment(), "DOCEX_PROXY_LISTEN="+address, "DOCEX_PROXY_HTTP="+page)
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() { p.exited <- p.command.Wait() }()
	if err := p.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("proxy: %w: %s", err, p.said()), p.stop())
	}
	return p, nil
}

func (p *proxy) awaitReady(ctx context.Context) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(readyPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-p.exited:
			p.exited <- err
			return fmt.Errorf("it ended: %v", err)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		response, err := client.Get("http://" + p.http + "/readyz")
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

// said is the end of the proxy's log.
func (p *proxy) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "")
}

// stop ends the proxy as an operator does.
func (p *proxy) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.exited:
		p.exited <- err
		if err != nil {
			return fmt.Errorf("proxy: %w: %s", err, p.said())
		}
		return nil
	case <-time.After(stopPatience):
		return errors.Join(fmt.Errorf("proxy still runs after %s", stopPatience), p.command.Process.Kill())
	}
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// runProgram runs a program to its end and returns what it printed.
func runProgram(ctx context.Context, environment []string, binary string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, binary, arguments...)
	command.Env = append(cleanEnvironment(), environment...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(binary), strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
