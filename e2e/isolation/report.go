package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// report is everything that is known at the end.
type report struct {
	version string // of Postgres
	command string
	started time.Time
	took    time.Duration
	columns []column
}

// column is one level. absent is why there are no results.
type column struct {
	level   level
	absent  string
	asked   bool // for, by name: then its absence is a failure
	results map[int]result
	reuse   reuse
	took    time.Duration
}

// verdict counts a column.
type verdict struct{ kept, broken, unknown, elsewhere, notRun int }

func (c column) verdict() verdict {
	var v verdict
	for _, a := range table() {
		r, ran := c.results[a.number]
		switch {
		case !a.at(c.level):
			v.elsewhere++
		case !ran:
			v.notRun++
		case r.outcome == unknown:
			v.unknown++
		case r.kept(a.promise.at(c.level)):
			v.kept++
		default:
			v.broken++
		}
	}
	return v
}

// failed reports whether any promise was not shown to be kept.
func (r report) failed() bool {
	for _, c := range r.columns {
		if c.absent != "" {
			if c.asked {
				return true
			}
			continue
		}
		if v := c.verdict(); v.broken+v.unknown > 0 {
			return true
		}
	}
	return false
}

func (r report) write(w io.Writer) {
	fmt.Fprintf(w, "# Isolation report\n\nPostgres %s, %s, `%s`, %s.\n\n", r.version, r.started.UTC().Format("2006-01-02 15:04 MST"), r.command, r.took.Round(time.Second))
	for _, c := range r.columns {
		r.summarise(w, c)
	}
	fmt.Fprintln(w, "\nA cell is what happened; in brackets what is promised, where that is less. refused: every way was answered with an error."+
		" contained: let through, and nothing came of it. leaks: the victim was seen, changed or disturbed. n/a: there is no such thing at this level.")
	fmt.Fprint(w, "\n| case | the hostile tenant's attempt |")
	for _, c := range r.columns {
		fmt.Fprintf(w, " %s |", c.level)
	}
	fmt.Fprint(w, " promise kept |\n|---|---|", strings.Repeat("---|", len(r.columns)+1), "\n")
	for _, a := range table() {
		r.row(w, a)
	}
	r.details(w)
}

func (r report) summarise(w io.Writer, c column) {
	if c.absent != "" {
		fmt.Fprintf(w, "- `%s`: %s\n", c.level, cell(c.absent))
		return
	}
	v := c.verdict()
	fmt.Fprintf(w, "- `%s`: %d promises kept, %d BROKEN, %d errors, %d not applicable, %d not run; %s. After %d of %d attacks that left something behind the victim"+
		" got the very server connection, after %d another login of the tenant did.\n",
		c.level, v.kept, v.broken, v.unknown, v.elsewhere, v.notRun, c.took.Round(time.Second), c.reuse.byVictim, c.reuse.trials, c.reuse.byTenant)
}

func (r report) row(w io.Writer, a attack) {
	fmt.Fprintf(w, "| %d | %s |", a.number, cell(a.sentence))
	kept, ran := true, false
	for _, c := range r.columns {
		found, here := c.results[a.number]
		promised := a.promise.at(c.level)
		switch {
		case !a.at(c.level):
			fmt.Fprint(w, " n/a |")
		case !here:
			fmt.Fprint(w, " not run |")
		case found.outcome != promised:
			fmt.Fprintf(w, " %s (%s) |", found.outcome, promised)
		default:
			fmt.Fprintf(w, " %s |", found.outcome)
		}
		ran = ran || here
		kept = kept && (!here || found.kept(promised))
	}
	switch {
	case !ran:
		fmt.Fprintln(w, " not run |")
	case kept:
		fmt.Fprintln(w, " ok |")
	default:
		fmt.Fprintln(w, " **BROKEN** |")
	}
}

// details says how each case ended. Codes are SQLSTATEs, with how often they came.
func (r report) details(w io.Writer) {
	fmt.Fprint(w, "\n## Details\n\n")
	for _, a := range table() {
		for _, c := range r.columns {
			found, ran := c.results[a.number]
			if !ran {
				continue
			}
			text := found.detail
			if found.err != nil {
				text = strings.TrimPrefix(text+"; error: "+found.err.Error(), "; ")
			}
			mark := ""
			if !found.kept(a.promise.at(c.level)) {
				mark = " **BROKEN**"
			}
			if text != "" {
				fmt.Fprintf(w, "- %d %s%s: %s\n", a.number, c.level, mark, cell(text))
			}
		}
	}
}

// cell keeps a text within one cell of a table.
func cell(text string) string {
	return strings.NewReplacer("\n", " ", "|", "\\|").Replace(text)
}
