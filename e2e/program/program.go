package program

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const modulePath = "github.com/docex-proxy/docex-proxy"

// Build puts docex-proxy and docexctl into a directory. The flags are of go build.
func Build(ctx context.Context, dir string, flags ...string) error {
	arguments := append([]string{"build", "-o", dir + string(filepath.Separator)}, flags...)
	command := exec.CommandContext(ctx, "go", append(arguments, modulePath+"/cmd/docex-proxy", modulePath+"/cmd/docexctl")...)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return nil
}

// Run runs a program to its end and returns what it printed. The environment is added to Environment.
func Run(ctx context.Context, environment []string, binary string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, binary, arguments...)
	command.Env = append(Environment(), environment...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(binary), strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Environment is this process's own, without what it says about Postgres and DocEX.
func Environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "DOCEX_") && !strings.HasPrefix(variable, "PG") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// FreeAddress is one on loopback on which nobody listens, at the moment.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
