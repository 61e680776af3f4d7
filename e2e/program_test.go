package e2e_test

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

// clientPatience is for one run of another client program.
const clientPatience = 3 * time.Minute

// need finds a client program, and fails the test with the line that installs it when there is none: a client that
// was not tried is not known to work.
func need(t testing.TB, program, install string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing; install it with: %s", program, install)
	}
	return path
}

// client runs a client program to its end, in an environment that knows of no other Postgres, and returns what it
// printed on both channels.
func client(t testing.TB, environment []string, program string, arguments ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientPatience)
	defer cancel()
	command := exec.CommandContext(ctx, program, arguments...)
	command.Env = append(cleanEnvironment(), environment...)
	text, err := command.CombinedOutput()
	return string(text), err
}
