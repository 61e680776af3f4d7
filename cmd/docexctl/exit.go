package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotFound   = 3
	exitConflict   = 4
	exitPartlyDone = 5
)

// usageError is about the command line, whatever Postgres holds.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// partlyDoneError is about a request whose first part stands although the second failed.
type partlyDoneError struct {
	done string
	err  error
}

func (e *partlyDoneError) Error() string { return e.done + ", but then: " + e.err.Error() }
func (e *partlyDoneError) Unwrap() error { return e.err }

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case is[*partlyDoneError](err):
		return exitPartlyDone
	case is[*usageError](err), is[*registry.InvalidTenantIDError](err), is[*provision.InvalidRequestError](err):
		return exitUsage
	case errors.Is(err, registry.ErrNotFound), errors.Is(err, provision.ErrNotFound), errors.Is(err, sqlite.ErrNotFound):
		return exitNotFound
	case errors.Is(err, provision.ErrExists), is[*provision.ConflictError](err), errors.Is(err, sqlite.ErrExists), is[*sqlite.StateError](err):
		return exitConflict
	default:
		return exitFailed
	}
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// oneLine is an error as one line: joined errors and Postgres' own come in several.
func oneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}
