package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "docex-e2e-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return fail(err)
	}
	shared = &site{dir: dir, accounts: make(map[string]account)}
	code := pgtest.Main(m)
	if err := shared.stop(); err != nil {
		return fail(err)
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// build puts both programs into a directory, with the race detector in them.
func build(dir string) error {
	command := exec.Command("go", "build", "-race", "-o", dir+string(filepath.Separator), "./cmd/docex-proxy", "./cmd/docexctl")
	command.Dir = ".."
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, output)
	}
	return nil
}
