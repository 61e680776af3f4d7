package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEachVerbHasAManualPage(t *testing.T) {
	dir := t.TempDir()
	if code := run(t.Context(), []string{"man", dir}, strings.NewReader(""), io.Discard, os.Stderr); code != 0 {
		t.Fatal("exit code", code)
	}
	var check func(*cobra.Command)
	check = func(command *cobra.Command) {
		page := strings.ReplaceAll(command.CommandPath(), " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.Contains(string(text), ".SH SYNOPSIS") {
			t.Errorf("%v in %q", err, text)
		}
		for _, verb := range command.Commands() {
			if !verb.Hidden {
				check(verb)
			}
		}
	}
	check((&cli{}).root())
}
