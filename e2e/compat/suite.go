package main

import (
	"context"
	"fmt"
	"time"
)

// suite is a driver's own test suite, from its published package.
type suite struct {
	name    string // in the table, and on the command line
	tenant  string // the name that the suite expects its database to have
	rights  string // SQL of the superuser in that database: what the suite takes for granted of its role; %s is the role
	prepare func(ctx context.Context, w *workshop) (version string, err error)
	run     func(ctx context.Context, w *workshop, at endpoint) (results, error)
}

// workshop is what a suite works with.
type workshop struct {
	dir      string // of this suite alone, for its sources and its raw output
	programs string // where docex-proxy and docexctl are
	sources  string // a directory with checkouts by driver, for those whose package has no tests; may be ""
	postgres string // the version of the last site
}

// outcome of one test.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped"
)

// result is the outcome of one test, with what it said when it failed.
type result struct {
	outcome outcome
	said    string
}

// results of a suite, by the test's name.
type results map[string]result

func (r results) count(o outcome) int {
	n := 0
	for _, one := range r {
		if one.outcome == o {
			n++
		}
	}
	return n
}

// patience is for one run of one suite.
const patience = 20 * time.Minute

// column is what became of a suite.
type column struct {
	suite           suite
	version         string
	postgres        string // its version
	direct, through results
	err             error // why there are no results
}

// regressions are the tests that pass directly and do not pass through the proxy, with what they said.
func (c column) regressions() results {
	found := make(results)
	for name, r := range c.direct {
		if r.outcome != passed {
			continue
		}
		other, ran := c.through[name]
		switch {
		case !ran:
			found[name] = result{failed, "it did not run"}
		case other.outcome != passed:
			found[name] = other
		}
	}
	return found
}

func (c column) String() string { return fmt.Sprintf("%s %s", c.suite.name, c.version) }
