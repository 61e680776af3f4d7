//go:build unix

package main

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// news is what a goroutine of the proxies' code tells the world: that it dials, reads the registry, closes a connection,
// grants one. Several can come within a moment, in any order: they are dealt with in the order of what they say, so that
// a run does not depend on who was faster.
type news struct {
	kind   kind
	proxy  int
	server int
	name   string // role or tenant
	id     int64  // of a wire or a session
	tell   func()
}

type kind int

const (
	ofClosing kind = iota
	ofDial
	ofQuery
	ofRoute
	ofRecheck
	ofRecheckEnd
	ofGrant
)

func (n news) compare(m news) int {
	return cmp.Or(cmp.Compare(n.kind, m.kind), cmp.Compare(n.proxy, m.proxy), cmp.Compare(n.server, m.server),
		strings.Compare(n.name, m.name), cmp.Compare(n.id, m.id))
}

// newsDesk takes news from any goroutine.
type newsDesk struct {
	mu   sync.Mutex
	held []news
	read []news
}

func (d *newsDesk) hand(n news) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = append(d.held, n)
}

// take returns what has come, sorted. It is valid until the next call.
func (d *newsDesk) take() []news {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.read = d.read[:0], d.held
	slices.SortStableFunc(d.read, news.compare)
	return d.read
}
