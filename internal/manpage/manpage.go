// Package manpage writes the manual pages of a command line from the command line itself, so that they say what the
// program does. It owns their form; the words are the commands'.
package manpage

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/docex-proxy/docex-proxy/internal/buildinfo"
)

// Write makes a page, for section 1, of each verb that help lists. Their date is SOURCE_DATE_EPOCH, where that is set.
// The commands are not for running afterwards.
func Write(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	keepLines(root)
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Manual: "docex-proxy", Source: root.Name() + " " + buildinfo.Version()}, dir)
}

// keepLines has the lines that are indented in help printed as they are: to Markdown, which the pages are made of, those are
// lines that are indented by four.
func keepLines(command *cobra.Command) {
	var text []string
	before := ""
	for line := range strings.Lines(command.Long) {
		if indented(line) {
			line = "    " + line
		}
		if indented(line) != indented(before) && strings.TrimSpace(line) != "" {
			text = append(text, "\n")
		}
		text, before = append(text, line), line
	}
	command.Long = strings.Join(text, "")
	for _, verb := range command.Commands() {
		keepLines(verb)
	}
}

func indented(line string) bool {
	return strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
}
