package localpg_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

// TestAKilledParentTakesTheClusterWithIt runs this test binary once more, as the parent that is killed.
func TestAKilledParentTakesTheClusterWithIt(t *testing.T) {
	if dir := os.Getenv("LOCALPG_TEST_PARENT"); dir != "" {
		start(t, localpg.Options{DataDir: dir})
		os.Stdout.WriteString("started\n")
		select {}
	}
	dir := filepath.Join(openDir(t), "data")
	parent := exec.Command(os.Args[0], "-test.run=^TestAKilledParentTakesTheClusterWithIt$")
	parent.Env = append(os.Environ(), "LOCALPG_TEST_PARENT="+dir)
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // says "killed"
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := os.Stat(filepath.Join(dir, "postmaster.pid"))
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the postmaster is still there")
		}
		time.Sleep(50 * time.Millisecond)
	}
}
