package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

// enrol registers and adopts in one transaction. The tenant is suspended at its end.
func (p *Provisioner) enrol(ctx context.Context, r MigrateRequest, s MigrationStep) error {
	if err := checkText("actor", r.Actor); err != nil {
		return err
	}
	return p.transact(ctx, func(w *work) []step {
		a := &adoption{request: AdoptRequest{ID: s.ID, Actor: r.Actor, Isolation: r.Isolation, KeepAccess: r.KeepAccess}}
		a.creation = &creation{work: w, Provisioner: p, tenant: &registry.Tenant{ID: s.ID, Route: &registry.Route{
			Status: registry.StatusSuspended, Isolation: r.Isolation, Server: defaultServer, Database: w.database, SecretGeneration: firstGeneration, Version: 1,
		}}}
		a.outdated = true
		steps := a.steps()
		e := &enrolment{adoption: a, request: r, step: s}
		return slices.Insert(steps, 1,
			step{"rename the schema", e.renameSchema},
			step{"register the tenant", func(ctx context.Context) error { return w.as(ctx, OwnerRole, e.registerRow) }},
			step{"take it out of public's registry", e.leavePublic})
	})
}

// enrolment is what a migration does before it adopts.
type enrolment struct {
	*adoption
	request MigrateRequest
	step    MigrationStep
}

func (e *enrolment) renameSchema(ctx context.Context) error {
	if e.step.From == "" {
		return nil
	}
	schema, err := schemaName(e.request.SchemaTemplate, e.step.ID)
	if err != nil {
		return err
	}
	e.step.row.SchemaName = schema
	return e.exec(ctx, "ALTER SCHEMA "+quote(e.step.Schema)+" RENAME TO "+quote(schema))
}

func (e *enrolment) registerRow(ctx context.Context) error {
	if e.step.row != nil {
		if err := e.insertRow(ctx); err != nil {
			return err
		}
	}
	return registry.InsertEvent(ctx, e.tx, e.step.ID, "migrate", e.request.Actor, struct {
		Schema string `json:"schema"`
		From   string `json:"from,omitempty"`
	}{e.step.Schema, e.step.From})
}

func (e *enrolment) insertRow(ctx context.Context) error {
	if e.step.From != "" { // a row of that id would lead nowhere
		if _, err := e.tx.Exec(ctx, `DELETE FROM docex_system.tenant_registry WHERE tenant_id = $1 AND NOT is_system`, e.step.From); err != nil {
			return err
		}
	}
	err := registry.InsertTenant(ctx, e.tx, e.step.row)
	if hasCode(err, uniqueViolation) {
		return e.existsError()
	}
	return err
}

func (e *enrolment) leavePublic(ctx context.Context) error {
	if !e.step.public {
		return nil
	}
	return e.exec(ctx, "DELETE FROM ONLY public.tenant_registry WHERE tenant_id = "+quoteLiteral(cmp.Or(e.step.From, string(e.step.ID))))
}

// modernise changes what older versions of DocEX made otherwise, as the tenant's role: enum types that became text, and
// the column coordination_id. It may run again.
func (p *Provisioner) modernise(ctx context.Context, id registry.TenantID) error {
	tenant, config, err := p.tenantConfig(ctx, id)
	if err != nil {
		return err
	}
	conn, err := connectAsTenant(ctx, id, config)
	if err != nil {
		return err
	}
	defer closeDetached(ctx, conn)
	rows, err := conn.Query(ctx, `
SELECT c.relname, a.attname, a.atttypid::pg_catalog.regtype::pg_catalog.text, t.typnamespace = n.oid
  FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
 WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname = ANY ($2) AND t.typtype = 'e' AND NOT a.attisdropped`, tenant.SchemaName, businessTableNames())
	if err != nil {
		return err
	}
	var statements, types []string
	var table, column, enum string
	var own bool
	if _, err := pgx.ForEachRow(rows, []any{&table, &column, &enum, &own}, func() error {
		statements = append(statements,
			fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT, ALTER COLUMN %[2]s TYPE varchar(50) USING %[2]s::text", quote(table), quote(column)))
		if own {
			types = append(types, enum)
		}
		return nil
	}); err != nil {
		return err
	}
	slices.Sort(types)
	for _, enum := range slices.Compact(types) {
		statements = append(statements, "DROP TYPE IF EXISTS "+enum)
	}
	statements = append(statements, "ALTER TABLE IF EXISTS document_metadata ADD COLUMN IF NOT EXISTS coordination_id uuid")
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range statements {
			_, err := tx.Exec(ctx, sql)
			if err != nil {
				return errors.Join(fmt.Errorf("%s", sql), err)
			}
		}
		return nil
	})
}
