package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What -drop takes.
const (
	dropRole   = "role"
	dropSchema = "schema"
)

// refusals are counted under this name.
const refusals = "queries of tenants that are gone, refused"

// errNothingShown is a run in which no tenant that has lost something was seen to be refused.
var errNothingShown = errors.New("no tenant that has lost something has asked for anything: a run with more answers will show more")

// takeAway takes the role or the schema of half of the tenants, one after the other, under load. The registry is not
// told: the proxy goes on routing to them. The rows stay where they are when the role goes.
func takeAway(ctx context.Context, s *site, what string, t *tally) error {
	for _, of := range s.tenants[len(s.tenants)/2:] {
		of.losing.Store(true)
		if err := s.take(ctx, of, what); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
				err = fmt.Errorf("%w: %s", err, refused.Detail)
			}
			return fmt.Errorf("dropping the %s of %s: %w", what, of.name, err)
		}
		of.gone.Store(true)
		pause(100)
	}
	for end := time.Now().Add(dropPatience); t.counted(refusals) == 0; pause(50) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return errNothingShown
		}
	}
	return nil
}

// dropPatience bounds the repetitions: a session may have a temporary table of the role's just then, or a lock.
const dropPatience = 60 * time.Second

func (s *site) take(ctx context.Context, of *tenant, what string) error {
	role := "tenant_" + of.name
	sql := "DROP SCHEMA " + role + " CASCADE"
	if what == dropRole {
		sql = "REASSIGN OWNED BY " + role + " TO docex_owner; DROP OWNED BY " + role + " CASCADE; " +
			"SET LOCAL ROLE docex_owner; " + // the grantor of these, which DROP OWNED leaves
			"REVOKE ALL ON DATABASE " + database + " FROM " + role + "; REVOKE ALL ON SCHEMA public FROM " + role + "; " +
			"RESET ROLE; DROP ROLE " + role
	}
	err := s.admin(ctx, "SET lock_timeout = '5s'; "+sql)
	for end := time.Now().Add(dropPatience); err != nil && ctx.Err() == nil && time.Now().Before(end); {
		pause(50)
		err = s.admin(ctx, "SET lock_timeout = '5s'; "+sql)
	}
	return err
}
