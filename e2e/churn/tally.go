package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
)

// tally counts what has happened in all sessions.
type tally struct {
	goal     int64
	answers  atomic.Int64 // messages that name their tenant
	messages atomic.Int64 // all that were searched
	sessions atomic.Int64
	steps    atomic.Int64
	foreign  atomic.Int64
	held     atomic.Bool // something has to happen yet, whatever the number of answers

	mu     sync.Mutex
	counts map[string]int
}

func newTally(goal int64) *tally { return &tally{goal: goal, counts: make(map[string]int)} }

func (t *tally) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *tally) counted(what string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[what]
}

func (t *tally) done() bool { return t.answers.Load() >= t.goal && !t.held.Load() }

// check searches an answer for marks, and returns how many were the tenant's own. spoken is a tenant whose schema or role
// the client itself has named, and may find named in an error.
func (t *tally) check(tenant, spoken string, answer []byte) (own int, err error) {
	t.messages.Add(1)
	for name := range marks(answer) {
		switch {
		case bytes.Equal(name, []byte(tenant)):
			own++
		case spoken != "" && bytes.Equal(name, []byte(spoken)):
		default:
			t.foreign.Add(1)
			return own, &foreignError{tenant: tenant, answer: string(answer[:min(len(answer), 300)])}
		}
	}
	if own > 0 {
		t.answers.Add(1)
	}
	return own, nil
}

// marks are the tenants that an answer names: rows and the like say own-t007, roles and schemas tenant_t007.
func marks(answer []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for at := 0; ; at++ {
			next := bytes.IndexByte(answer[at:], 't')
			if at += next; next < 0 || at+nameLength > len(answer) {
				return
			}
			name, before := answer[at:at+nameLength], answer[:at]
			if isName(name) && (bytes.HasSuffix(before, []byte("own-")) || bytes.HasSuffix(before, []byte("tenant_"))) && !yield(name) {
				return
			}
		}
	}
}

const nameLength = len("t007")

func nameOf(number int) string { return fmt.Sprintf("t%03d", number) }

func numberOf(name string) int {
	number, err := strconv.Atoi(name[1:])
	if err != nil {
		panic("a tenant is called " + name)
	}
	return number
}

func isName(name []byte) bool {
	for i, c := range name {
		if i == 0 && c != 't' || i > 0 && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// checkNumber is check for a number that a tenant's rows and sequences have in the place of a mark.
func (t *tally) checkNumber(tenant string, number, unit int64) error {
	if number/unit == int64(numberOf(tenant)) {
		return nil
	}
	t.foreign.Add(1)
	return &foreignError{tenant: tenant, answer: strconv.FormatInt(number, 10)}
}

// foreignError is an answer that bears another tenant's mark.
type foreignError struct{ tenant, answer string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("FOREIGN: tenant %s was answered %q", e.tenant, e.answer)
}
