package manpage_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/internal/manpage"
)

func run(*cobra.Command, []string) error { return nil }

func TestEachVerbThatHelpListsHasAPage(t *testing.T) {
	root := &cobra.Command{Use: "tool", Short: "A tool"}
	group := &cobra.Command{Use: "thing", Short: "Things", RunE: run}
	group.AddCommand(&cobra.Command{Use: "make ID", Short: "Make a thing", RunE: run})
	root.AddCommand(group, &cobra.Command{Use: "internal", Hidden: true, RunE: run})
	dir := filepath.Join(t.TempDir(), "man1")
	if err := manpage.Write(root, dir); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{"tool-thing-make.1", "tool-thing.1", "tool.1"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, want %v, %v", names, want, err)
	}
}

func TestIndentedLinesStayLines(t *testing.T) {
	root := &cobra.Command{Use: "tool", Short: "A tool", RunE: run, Long: "It is one of\n\n  small   the first\n  large   the second\n\nand nothing else."}
	dir := t.TempDir()
	if err := manpage.Write(root, dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "tool.1"))
	if want := "  small   the first\n  large   the second\n"; err != nil || !strings.Contains(string(page), want) {
		t.Errorf("%v in\n%s", err, page)
	}
}
