package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// questions number what a session asks, so that an answer says what it is to: ask-SESSION-NUMBER. (with the full stop).
// One for another session, of the same tenant even, or out of turn, is then known.
type questions struct {
	session uint64
	asked   uint64 // the last one's number, from 1
	heard   uint64 // of the last one that was answered: answers come in order
	settled uint64 // the last one of the steps before: no answer to it comes any more
}

// ask is a new question's mark.
func (q *questions) ask() string {
	q.asked++
	return fmt.Sprintf("ask-%d-%d.", q.session, q.asked)
}

// settle says that all of them have been answered, or will not be.
func (q *questions) settle() { q.settled = q.asked }

// answered judges every mark of a question that an answer bears.
func (q *questions) answered(answer []byte) error {
	for rest := answer; ; {
		_, after, ok := bytes.Cut(rest, []byte("ask-"))
		if !ok {
			return nil
		}
		if err := q.answeredOne(after); err != nil {
			return err
		}
		rest = after
	}
}

func (q *questions) answeredOne(b []byte) error {
	b, _, ended := bytes.Cut(b[:min(len(b), 42)], []byte("."))
	session, asked, _ := bytes.Cut(b, []byte("-"))
	s, err := strconv.ParseUint(string(session), 10, 64)
	n, err2 := strconv.ParseUint(string(asked), 10, 64)
	switch {
	case !ended || err != nil || err2 != nil:
		return fmt.Errorf("out of step: an answer to half a question, %q", b)
	case s != q.session:
		return fmt.Errorf("out of step: session %d got an answer to session %d", q.session, s)
	case n <= q.settled || n < q.heard || n > q.asked:
		return fmt.Errorf("out of step: an answer to question %d, after %d of those from %d to %d", n, q.heard, q.settled+1, q.asked)
	}
	q.heard = n
	return nil
}
