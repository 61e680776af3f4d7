package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// poison is something that a session leaves on its server connection. Statements that are refused leave nothing, which
// is no failure of the attack: some go too far for some levels.
type poison struct {
	statements []string
	leave      func(*session) error // beside the statements, or instead of them
	look       func(*session) error // further than inspect does; in a transaction
}

func (p poison) String() string {
	if len(p.statements) == 0 {
		return "Parse"
	}
	return fmt.Sprintf("%q", strings.Join(p.statements, "; "))
}

// settled is a poison whose statements are all that it is.
func settled(statements ...string) poison { return poison{statements: statements} }

// missing checks that a statement fails in the given way.
func missing(sql, code string) func(*session) error {
	return func(s *session) error {
		_, err := s.run(sql)
		if err == nil {
			s.t.leak("%s works in a session that it was not prepared in", sql)
		} else if sqlstate(err) != code {
			return err
		}
		return nil
	}
}

// leaves makes a case of poisons: the hostile tenant leaves each by a goodbye and by cutting the line, and the victim's
// next sessions, on whatever connection, find nothing.
func leaves(poisons ...poison) func(*trial) {
	return func(t *trial) { t.leave(victims, poisons) }
}

// leavesToItself is the same within the hostile tenant: another of its logins finds nothing.
func leavesToItself(poisons ...poison) func(*trial) {
	return func(t *trial) { t.leave(tenants, poisons) }
}

func (t *trial) leave(whose string, poisons []poison) {
	for _, p := range poisons {
		for _, part := range []func(*session){(*session).close, (*session).cut} {
			s := t.hostile()
			used := []string{s.backend()}
			t.must(p.apply(s))
			if backend, err := s.run("SELECT pg_backend_pid()"); err == nil {
				used = append(used, backend[0][0])
			}
			part(s)
			before := len(t.leaked)
			t.noteReuse(whose, used, t.inspectNext(whose, p.look))
			if len(t.leaked) > before {
				t.note("left by %s", p)
			}
		}
	}
}

// apply is an error only when the session cannot go on.
func (p poison) apply(s *session) error {
	for _, sql := range p.statements {
		_, err := s.run(sql)
		if _, refused := errors.AsType[*pgconn.PgError](err); err != nil && !refused {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	if p.leave != nil {
		return p.leave(s)
	}
	return nil
}

func (t *trial) noteReuse(whose string, used, next []string) {
	t.arena.reuse.trials++
	reused := slices.ContainsFunc(used, func(backend string) bool { return slices.Contains(next, backend) })
	switch {
	case reused && whose == victims:
		t.arena.reuse.byVictim++
	case reused:
		t.arena.reuse.byTenant++
	}
}

// sqlstate is the code of an error that a server sent, "" of any other.
func sqlstate(err error) string {
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refusal.Code
	}
	return ""
}
