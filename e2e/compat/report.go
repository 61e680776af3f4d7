package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// report writes the table of docs/compatibility.md, the tests that pass directly only with the reason for each, and what
// those said that have none. It returns how many these are.
func report(out io.Writer, columns []column) (unexplained int) {
	fmt.Fprintln(out, "| suite | version | Postgres | passed directly | of them through the proxy | differ for a reason | faults |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	for _, c := range columns {
		if c.err != nil {
			fmt.Fprintf(out, "| %s | %s | | not run: %s | | | |\n", c.suite.name, c.version, strings.ReplaceAll(c.err.Error(), "\n", " "))
			continue
		}
		regressions, faults := c.regressions(), len(c.faults())
		direct := c.direct.count(passed)
		fmt.Fprintf(out, "| %s | %s | %s | %d | %d | %d | %d |\n",
			c.suite.name, c.version, c.postgres, direct, direct-len(regressions), len(regressions)-faults, faults)
		unexplained += faults
	}
	for _, c := range columns {
		c.explain(out)
	}
	return unexplained
}

// explain lists the suite's tests by reason, and what each of the others said.
func (c column) explain(out io.Writer) {
	byReason := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(c.regressions())) {
		if because := why(c.suite.name, name); because != "" {
			byReason[because] = append(byReason[because], name)
		}
	}
	for _, because := range slices.Sorted(maps.Keys(byReason)) {
		fmt.Fprintf(out, "\n%s, %s: `%s`\n", c.suite.name, because, strings.Join(byReason[because], "`, `"))
	}
	for _, name := range c.faults() {
		fmt.Fprintf(out, "\n%s: %s\n%s", c.suite.name, name, c.regressions()[name].said)
	}
}

// faults are the tests that pass directly only, for no known reason.
func (c column) faults() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.regressions())), func(name string) bool { return why(c.suite.name, name) != "" })
}
