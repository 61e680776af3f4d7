package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docex-proxy/docex-proxy/e2e/program"
)

// execute runs a suite to its end and returns what it printed on stdout. That goes to a file as well, as does stderr;
// both are named for the endpoint.
func (w *workshop) execute(
	ctx context.Context, at endpoint, dir string, environment []string, binary string, arguments ...string,
) ([]byte, error) {
	return w.executeAs(ctx, at.name, dir, environment, binary, arguments...)
}

// executeAs is execute with other names for the files.
func (w *workshop) executeAs(
	ctx context.Context, name, dir string, environment []string, binary string, arguments ...string,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name = filepath.Join(w.dir, strings.ReplaceAll(name, " ", "_"))
	stdout, err := os.Create(name + ".out")
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, err := os.Create(name + ".err")
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	command := exec.CommandContext(ctx, binary, arguments...)
	command.Dir, command.Stdout, command.Stderr = dir, stdout, stderr
	command.Env = append(program.Environment(), environment...)
	endTogether(command)
	command.WaitDelay = 5 * time.Second
	err = command.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s took more than %s", binary, patience)
	}
	text, reading := os.ReadFile(name + ".out")
	if reading != nil {
		return nil, reading
	}
	return text, err
}
