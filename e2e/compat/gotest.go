package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// module downloads a Go module by Go's own means, copies it to where its tests may write, and returns its version.
func module(ctx context.Context, path, into string) (version string, err error) {
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", path)
	command.Dir = os.TempDir() // outside of any module, so that none has to name it
	output, err := command.Output()
	var downloaded struct{ Version, Dir, Error string }
	if e := json.Unmarshal(output, &downloaded); e != nil || downloaded.Dir == "" {
		return "", fmt.Errorf("%s: %w %s", path, errors.Join(err, e), downloaded.Error)
	}
	if err := os.RemoveAll(into); err != nil {
		return "", err
	}
	if err := os.CopyFS(into, os.DirFS(downloaded.Dir)); err != nil {
		return "", err
	}
	return downloaded.Version, writable(into)
}

// writable lets the owner write below dir: the module cache is read-only.
func writable(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o200)
	})
}

// goTest runs the tests of a module, package by package.
func goTest(ctx context.Context, w *workshop, at endpoint, environment []string, packages ...string) (results, error) {
	arguments := append([]string{"test", "-json", "-count=1", "-p=1", "-parallel=2", "-vet=off", "-timeout=15m"}, packages...)
	raw, err := w.execute(ctx, at, filepath.Join(w.dir, "source"), append(environment, "GOFLAGS=-mod=mod"), "go", arguments...)
	found, parsing := goTestResults(bytes.NewReader(raw))
	if len(found) == 0 {
		return nil, errors.Join(errors.New("no test ran"), err, parsing)
	}
	return found, parsing
}

// number is of a temporary directory: a subtest's name may have one.
var number = regexp.MustCompile(`[0-9]{6,}`)

// goTestResults reads what `go test -json` prints. A test that began and has no end has failed, and so has the package
// of a test binary that did not get to its tests.
func goTestResults(output io.Reader) (results, error) {
	found, said := make(results), make(map[string]*strings.Builder)
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Package, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue // what the build says is no JSON
		}
		name := number.ReplaceAllString(event.Package+"."+event.Test, "N")
		switch event.Action {
		case "output":
			if said[name] == nil {
				said[name] = &strings.Builder{}
			}
			said[name].WriteString(event.Output)
		case "run":
			found[name] = result{outcome: failed}
		case "pass", "skip":
			if event.Test != "" {
				found[name] = result{outcome: map[string]outcome{"pass": passed, "skip": skipped}[event.Action]}
			}
		case "fail":
			found[name] = result{outcome: failed}
		}
	}
	for name, r := range found {
		if r.outcome == failed && said[name] != nil {
			r.said = said[name].String()
			found[name] = r
		}
	}
	return found, lines.Err()
}
