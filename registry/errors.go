package registry

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNotFound says that the registry was asked and holds no such tenant, schema or login.
var ErrNotFound = errors.New("registry: not found")

// UnavailableError says that the registry could not be asked, or gave no usable answer: nothing is known about
// whether the tenant or login exists. Err is the cause.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return "registry: " + e.Err.Error() }

func (e *UnavailableError) Unwrap() error { return e.Err }

// errNotInitialised is the cause of an UnavailableError where the schema or one of its tables is missing.
type errNotInitialised struct{ cause error }

func (e *errNotInitialised) Error() string {
	return "the registry's tables are missing from this database: run `docexctl init` on it (" + e.cause.Error() + ")"
}

func (e *errNotInitialised) Unwrap() error { return e.cause }

// unavailable turns whatever a query or a source failed with into an *UnavailableError, once.
func unavailable(err error) error {
	if _, ok := errors.AsType[*UnavailableError](err); ok {
		return err
	}
	return &UnavailableError{Err: err}
}

// readError is unavailable with a hint where the tables have not been created.
func readError(err error) error {
	// SQLSTATE undefined_table and invalid_schema_name: Postgres documentation, appendix A.
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "3F000") {
		return &UnavailableError{Err: &errNotInitialised{cause: err}}
	}
	return unavailable(err)
}
