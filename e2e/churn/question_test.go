package main

import "testing"

func TestAnAnswerIsToAnOpenQuestionOfTheSessionInTurn(t *testing.T) {
	for _, c := range []struct {
		what   string
		answer string
		fault  bool
	}{
		{"no question", "own-t007", false},
		{"an open one", "ask-17-3.", false},
		{"several in order", "ask-17-3.ask-17-3.\x00ask-17-4.", false},
		{"a skipped one", "ask-17-4.", false},
		{"one of the step before", "ask-17-2.", true},
		{"one that was not asked", "ask-17-5.", true},
		{"one out of turn", "ask-17-4.ask-17-3.", true},
		{"another session's", "ask-18-3.", true},
		{"another session's behind its own", "ask-17-3. ask-18-3.", true},
		{"half of one", "ask-17", true},
		{"half of a number", "ask-17-3", true},
		{"no number", "ask-17-x.", true},
	} {
		q := questions{session: 17}
		q.ask()
		q.ask()
		q.settle()
		if q.ask() != "ask-17-3." || q.ask() != "ask-17-4." {
			t.Fatal("the marks are not what the table takes them for")
		}
		if err := q.answered([]byte(c.answer)); (err != nil) != c.fault {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
