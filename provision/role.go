package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/internal/secret"
)

// The roles that Init creates, once per cluster.
const (
	OwnerRole    = "docex_owner"    // NOLOGIN; owns the tenants' schemas, so that no tenant can drop or grant its own
	PoolRole     = "docex_pool"     // LOGIN without any right; may become the roles of tenants at level trusted
	RegistryRole = "docex_registry" // LOGIN; the proxy's registry connection, which may only read, and enter the proxy itself
)

// firstGeneration is the generation of a derived password before any rotation.
const firstGeneration = 1

// membershipOptions is the server_version_num since which GRANT of a role says what the member may do with it.
const membershipOptions = 160000

// noPowers is what every role of the project is created with.
const noPowers = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"

// systemRole is one of the roles that Init creates.
type systemRole struct {
	name  string
	login bool
}

func systemRoles() []systemRole {
	return []systemRole{{OwnerRole, false}, {PoolRole, true}, {RegistryRole, true}}
}

// derivedVerifier makes what Postgres stores of a role's derived password. Sending the verifier instead of the
// password keeps clear text out of the server's log and of pg_stat_activity.
func derivedVerifier(key secret.Key, role string, generation int) string {
	return scram.NewVerifier(key.Password(role, generation)).String()
}

// createRole creates a role without powers. verifier "" is for a role without a password.
func (w *work) createRole(ctx context.Context, name string, login bool, verifier string) error {
	attributes := noPowers + " NOINHERIT NOLOGIN"
	if login {
		attributes = noPowers + " NOINHERIT LOGIN"
	}
	if verifier != "" {
		attributes += " CONNECTION LIMIT -1 PASSWORD " + quoteLiteral(verifier)
	}
	return w.exec(ctx, "CREATE ROLE "+quote(name)+" "+attributes)
}

func (w *work) setPassword(ctx context.Context, role, verifier string) error {
	return w.exec(ctx, "ALTER ROLE "+quote(role)+" PASSWORD "+quoteLiteral(verifier))
}

// roleExists reports whether a role is there, and refuses one that has a power which noPowers takes, or that can
// log in although it should not: somebody else's role of the same name is no role of ours.
func (w *work) roleExists(ctx context.Context, role systemRole) (bool, error) {
	var powerful, login bool
	err := w.tx.QueryRow(ctx, `
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls, rolcanlogin
  FROM pg_roles WHERE rolname = $1`, role.name).Scan(&powerful, &login)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case powerful:
		return false, &ConflictError{Object: "role", Name: role.name, Reason: "exists with more rights than it may have: " +
			"see its attributes with \\du and ALTER ROLE it to " + noPowers}
	case login != role.login:
		return false, &ConflictError{Object: "role", Name: role.name, Reason: fmt.Sprintf(
			"exists with LOGIN %t where it must be %t", login, role.login)}
	}
	return true, nil
}

// storedVerifiers reads what Postgres holds of the roles' passwords, by role; "" where there is none. Readable is
// false where only a superuser would be told.
func (w *work) storedVerifiers(ctx context.Context, roles ...string) (stored map[string]string, readable bool, err error) {
	if err := w.tx.QueryRow(ctx, `SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')`).Scan(&readable); err != nil || !readable {
		return nil, false, err
	}
	rows, err := w.tx.Query(ctx, `SELECT rolname, coalesce(rolpassword, '') FROM pg_authid WHERE rolname = ANY ($1)`, roles)
	if err != nil {
		return nil, false, err
	}
	stored = make(map[string]string, len(roles))
	var name, verifier string
	_, err = pgx.ForEachRow(rows, []any{&name, &verifier}, func() error {
		stored[name] = verifier
		return nil
	})
	return stored, true, err
}

// checkKey answers KeyMismatchError when a role's password is known not to come from the key. A verifier can be
// compared without knowing the password it was made of: derive ours with its salt and see whether it is the same.
func (w *work) checkKey(ctx context.Context, key secret.Key, roles ...string) error {
	stored, readable, err := w.storedVerifiers(ctx, roles...)
	if err != nil || !readable {
		return err
	}
	for _, role := range roles {
		theirs, err := scram.ParseVerifier(stored[role])
		if err != nil { // no password, or one that SCRAM cannot use: derived by nobody
			return &KeyMismatchError{Role: role}
		}
		ours := scram.DeriveVerifier(key.Password(role, firstGeneration), theirs.Salt, theirs.Iterations)
		if ours.String() != theirs.String() {
			return &KeyMismatchError{Role: role}
		}
	}
	return nil
}
