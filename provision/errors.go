package provision

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrExists is wrapped where the tenant or login is in the registry already.
	ErrExists = errors.New("already exists")
	// ErrNotFound is wrapped where a tenant that the request names is not in the registry.
	ErrNotFound = errors.New("is not in the registry")
	// ErrNotInitialised is wrapped where Init has not run on this database.
	ErrNotInitialised = errors.New("the registry is not initialised: run `docexctl init` on this database first")
)

// InvalidRequestError says what is wrong with a request, whatever the database holds.
type InvalidRequestError struct{ Reason string }

func (e *InvalidRequestError) Error() string { return e.Reason }

func invalid(format string, args ...any) error {
	return &InvalidRequestError{Reason: fmt.Sprintf(format, args...)}
}

// ConflictError says that an object stands where a new one would go and is not known to the registry. Nothing is
// adopted silently: it may hold somebody's data, or rights that a tenant must not have.
type ConflictError struct {
	Object string // "schema", "role", "database"
	Name   string
	Reason string
}

func (e *ConflictError) Error() string { return fmt.Sprintf("%s %q %s", e.Object, e.Name, e.Reason) }

// KeyMismatchError says that a role's password was derived from another master key than the one at hand. The proxy
// could not log in with a key that does not match.
type KeyMismatchError struct{ Role string }

func (e *KeyMismatchError) Error() string {
	return fmt.Sprintf("the password of role %q was not derived from this master key", e.Role)
}

func asConflict(err error) (*ConflictError, bool)    { return errors.AsType[*ConflictError](err) }
func asMismatch(err error) (*KeyMismatchError, bool) { return errors.AsType[*KeyMismatchError](err) }

// postgresError is what Postgres said, nil when the error is another's.
func postgresError(err error) *pgconn.PgError {
	pgErr, _ := errors.AsType[*pgconn.PgError](err)
	return pgErr
}

func isPostgres(err error) bool { return postgresError(err) != nil }

// hasCode reports whether the error came from Postgres with one of the SQLSTATEs.
func hasCode(err error, codes ...string) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, pgErr.Code)
}

// The SQLSTATEs that have a meaning here: Postgres documentation, appendix A.
const (
	uniqueViolation     = "23505"
	foreignKeyViolation = "23503"
	duplicateObject     = "42710"
	duplicateSchema     = "42P06"
	duplicateDatabase   = "42P04"
	undefinedDatabase   = "3D000"
	dependentObjects    = "2BP01"
	lockNotAvailable    = "55P03"
	deadlockDetected    = "40P01"

	serializationFailure = "40001"
)
