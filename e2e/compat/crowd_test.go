package main

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// crowd are two other sessions of the same tenant. While the session that is watched is idle, they take and leave both
// server connections in turn, so that it never finds the one that it had, nor finds it as it left it.
type crowd struct {
	members [2]*member
	holder  int // the member that has a connection, in a transaction
}

// member is a session of the crowd, whose answers are read by a goroutine of its own, which ends with the connection.
type member struct {
	*session
	answered chan struct{} // once for each ReadyForQuery
}

// dirt is what a member does in its transaction: everything that the watched session may have too, but different.
var dirt = []pgproto3.FrontendMessage{
	&pgproto3.Query{String: "BEGIN; SET work_mem = '9MB'; SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET search_path = pg_catalog; " +
		"SET application_name = 'crowd'; DECLARE c CURSOR FOR SELECT 'the crowd''s'"},
	&pgproto3.Parse{Name: "s", Query: "SELECT 'the crowd''s'"}, &pgproto3.Parse{Name: "t", Query: "SELECT 'the crowd''s', $1::text"},
	&pgproto3.Parse{Query: "SELECT 'the crowd''s unnamed'"}, &pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}, &pgproto3.Sync{},
}

const readyInDirt = 2

func newCrowd(t testing.TB, at endpoint) *crowd {
	t.Helper()
	c := &crowd{}
	for i := range c.members {
		m := &member{session: dial(t, at, nil), answered: make(chan struct{}, 100)}
		go m.listen()
		c.members[i] = m
	}
	c.members[0].take()
	c.members[0].await(t, answerPatience)
	return c
}

func (m *member) listen() {
	for {
		message, err := m.Receive()
		if err != nil {
			return
		}
		if _, ready := message.(*pgproto3.ReadyForQuery); ready {
			m.answered <- struct{}{}
		}
	}
}

// take begins a transaction, and so needs a connection; await says when it has got it.
func (m *member) take() { m.say(dirt...) } //nolint:errcheck // a connection that is gone answers nothing

// await waits for all answers to take, and reports false when not even the first one came in time.
func (m *member) await(t testing.TB, patience time.Duration) bool {
	t.Helper()
	for n := range readyInDirt {
		select {
		case <-m.answered:
		case <-time.After(patience):
			if n > 0 {
				t.Fatal("the crowd is stuck")
			}
			return false
		}
		patience = answerPatience
	}
	return true
}

// leave ends the transaction. What was set in it stays: it is committed.
func (m *member) leave(t testing.TB) {
	t.Helper()
	if err := m.say(&pgproto3.Query{String: "COMMIT"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.answered:
	case <-time.After(answerPatience):
		t.Fatal("the crowd is stuck")
	}
}

// turnPatience tells a connection that is free from one that the watched session keeps.
const turnPatience = 20 * time.Millisecond

// turn hands the connections on: the member without one takes the one that is free, then the other member leaves the
// one it had. Where the watched session keeps its connection, there is none free, and the members pass on their own.
func (c *crowd) turn(t testing.TB) {
	t.Helper()
	from, to := c.members[c.holder], c.members[1-c.holder]
	to.take()
	got := to.await(t, turnPatience)
	from.leave(t)
	if !got {
		to.await(t, answerPatience)
	}
	c.holder = 1 - c.holder
}
