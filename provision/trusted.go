package provision

import (
	"context"
	"fmt"
)

// lendToPool lets the shared login become the tenant's role, and nothing more: it inherits none of its rights, so it
// can do nothing before a SET ROLE.
func (c *creation) lendToPool(ctx context.Context) error {
	err := c.as(ctx, OwnerRole, func(ctx context.Context) error {
		return c.exec(ctx, "GRANT CONNECT ON DATABASE "+quote(c.database)+" TO "+PoolRole)
	})
	if err != nil {
		return err
	}
	grant := "GRANT " + quote(c.tenant.Route.Role) + " TO " + PoolRole
	if c.version >= membershipOptions { // before, docex_pool's own NOINHERIT decides
		grant += " WITH INHERIT FALSE, SET TRUE, ADMIN FALSE"
	}
	if err := c.exec(ctx, grant); err != nil {
		return err
	}
	var member, inherits bool
	err = c.tx.QueryRow(ctx, `SELECT pg_has_role($1, $2, 'MEMBER'), pg_has_role($1, $2, 'USAGE')`, PoolRole, c.tenant.Route.Role).
		Scan(&member, &inherits)
	switch {
	case err != nil:
		return err
	case !member:
		return fmt.Errorf("role %s has not become a member of %q", PoolRole, c.tenant.Route.Role)
	case inherits:
		return &ConflictError{Object: "role", Name: PoolRole, Reason: "inherits the rights of tenants' roles: ALTER ROLE it to NOINHERIT"}
	}
	return nil
}
