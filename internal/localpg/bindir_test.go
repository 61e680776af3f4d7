package localpg_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/docex-proxy/docex-proxy/internal/localpg"
)

func writeScript(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func fakePrograms(t *testing.T, dir string) string {
	t.Helper()
	writeScript(t, filepath.Join(dir, "initdb"), "")
	writeScript(t, filepath.Join(dir, "postgres"), "")
	return dir
}

func TestProgramsInThePathComeFirst(t *testing.T) {
	dir := fakePrograms(t, t.TempDir())
	t.Setenv("PATH", "/nowhere"+string(filepath.ListSeparator)+dir)
	if got, err := localpg.FindBinDir(); err != nil || got != dir {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestPgConfigIsAskedWhereThePathHasNone(t *testing.T) {
	programs, path := fakePrograms(t, t.TempDir()), t.TempDir()
	writeScript(t, filepath.Join(path, "pg_config"), "echo "+programs)
	t.Setenv("PATH", path)
	if got, err := localpg.FindBinDir(); err != nil || got != programs {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestTheNewestVersionOfTheDistributionIsTaken(t *testing.T) {
	t.Setenv("PATH", "")
	for _, prefix := range []string{"", "pgsql-", "postgresql@"} {
		root := t.TempDir()
		for _, version := range []string{"9.6", "15", "16", "14"} {
			fakePrograms(t, filepath.Join(root, prefix+version, "bin"))
		}
		writeScript(t, filepath.Join(root, prefix+"17", "bin", "psql"), "") // the client programs alone are no server
		want := filepath.Join(root, prefix+"16", "bin")
		if got, err := localpg.FindBinDirIn([]string{filepath.Join(root, "*", "bin")}); err != nil || got != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}

func TestAMachineWithoutProgramsGetsAnErrorThatSaysHowToInstallThem(t *testing.T) {
	t.Setenv("PATH", "")
	_, err := localpg.FindBinDirIn(nil)
	if !errors.Is(err, localpg.ErrNoBinaries) {
		t.Errorf("got %v", err)
	}
}
