package provision

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// keyedRole is a role with a derived password.
type keyedRole struct {
	Role       string
	Generation int
}

// rekey sets the passwords of the roles that exist, the tenants' among them. Roles of another database's registry
// in the same cluster are not known here.
func (i *initialisation) rekey(ctx context.Context) error {
	if !i.request.Rekey {
		return nil
	}
	rows, err := i.tx.Query(ctx, `
SELECT rolname, generation
  FROM (SELECT role_name, secret_generation FROM docex_system.tenant_route
         UNION ALL SELECT rolname, $2 FROM pg_roles WHERE rolname = ANY ($1) OR rolname ~ $3) AS known (name, generation)
  JOIN pg_roles ON rolname = name
 ORDER BY rolname`, []string{PoolRole, RegistryRole, SwitcherRole}, firstGeneration, slotPattern)
	if err != nil {
		return err
	}
	roles, err := pgx.CollectRows(rows, pgx.RowToStructByPos[keyedRole])
	if err != nil {
		return err
	}
	for _, role := range roles {
		if slices.Contains(i.keyed, role.Role) {
			continue
		}
		if err := i.setPassword(ctx, role.Role, derivedVerifier(i.key, role.Role, role.Generation)); err != nil {
			return err
		}
		i.result.RolesRekeyed = append(i.result.RolesRekeyed, role.Role)
	}
	return i.findAbroad(ctx)
}

// findAbroad lists the tenants' roles of other servers.
func (i *initialisation) findAbroad(ctx context.Context) error {
	rows, err := i.tx.Query(ctx, `
SELECT server, role_name, secret_generation, EXISTS (SELECT FROM pg_roles WHERE rolname = role_name)
  FROM docex_system.tenant_route WHERE status <> $1 ORDER BY server, role_name`, registry.StatusProvisioning)
	if err != nil {
		return err
	}
	i.abroad = make(map[string]map[string]int)
	unreached := make(map[string]bool)
	var server string
	var role keyedRole
	var here bool
	_, err = pgx.ForEachRow(rows, []any{&server, &role.Role, &role.Generation, &here}, func() error {
		switch _, abroad := i.at(server); {
		case abroad:
			if i.abroad[server] == nil {
				i.abroad[server] = make(map[string]int)
			}
			i.abroad[server][role.Role] = role.Generation
		case !here && server != defaultServer:
			unreached[server] = true
		}
		return nil
	})
	i.result.NotRekeyed = slices.Sorted(maps.Keys(unreached))
	return err
}

// rekeyAbroad does on other servers what rekey does on the registry's, after that has been committed. When it is ended, Init
// again with the same key goes on.
func (p *Provisioner) rekeyAbroad(ctx context.Context, i *initialisation) error {
	for _, server := range slices.Sorted(maps.Keys(i.abroad)) {
		err := p.rekeyServer(ctx, i, server)
		if err != nil {
			return fmt.Errorf("the roles of server %q have not got their new passwords, those of the registry's have: run it again with the same key: %w", server, err)
		}
	}
	return nil
}

func (p *Provisioner) rekeyServer(ctx context.Context, i *initialisation, server string) error {
	s, err := p.openServer(ctx, server, i.work)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return s.transact(ctx, func(w *work) error {
		known := i.abroad[server]
		roles := slices.Sorted(maps.Keys(known))
		if w.show == nil {
			rows, err := w.tx.Query(ctx, `SELECT rolname FROM pg_roles WHERE rolname = ANY ($1) OR rolname = $2 OR rolname ~ $3 ORDER BY rolname`,
				roles, SwitcherRole, slotPattern)
			if err != nil {
				return err
			}
			if roles, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				return err
			}
		}
		for _, role := range roles {
			if err := w.setPassword(ctx, role, derivedVerifier(p.key, role, cmp.Or(known[role], firstGeneration))); err != nil {
				return err
			}
			i.result.RolesRekeyed = append(i.result.RolesRekeyed, server+"/"+role)
		}
		return nil
	})
}
