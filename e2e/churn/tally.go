package main

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
)

// mark is what every answer of a tenant may bear of its own and of no other: its rows say own-t007, its role and schema
// are tenant_t007.
var mark = regexp.MustCompile(`(?:own-|tenant_)(t[0-9]{3})`)

// tally counts what has happened in all sessions.
type tally struct {
	goal     int64
	answers  atomic.Int64
	sessions atomic.Int64
	foreign  atomic.Int64

	mu     sync.Mutex
	counts map[string]int
}

func newTally(goal int64) *tally { return &tally{goal: goal, counts: make(map[string]int)} }

func (t *tally) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *tally) done() bool { return t.answers.Load() >= t.goal }

// check searches an answer for marks. It counts the answer, and returns how many marks were the tenant's own.
func (t *tally) check(tenant string, answer []byte) (own int, err error) {
	t.answers.Add(1)
	if !bytes.Contains(answer, []byte("own-")) && !bytes.Contains(answer, []byte("tenant_")) {
		return 0, nil
	}
	for _, found := range mark.FindAllSubmatch(answer, -1) {
		if string(found[1]) != tenant {
			t.foreign.Add(1)
			return own, &foreignError{tenant: tenant, answer: bytes.Clone(answer)}
		}
		own++
	}
	return own, nil
}

// foreignError is an answer that bears another tenant's mark.
type foreignError struct {
	tenant string
	answer []byte
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("tenant %s was answered %q", e.tenant, e.answer[:min(len(e.answer), 300)])
}
