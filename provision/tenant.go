package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	defaultServer    = "main"
	defaultCreatedBy = "cli_user" // DocEX's default
	maxText          = 255        // characters that tenant_registry's columns hold
)

// TenantRequest asks for a tenant. Only ID is required.
type TenantRequest struct {
	ID             registry.TenantID
	DisplayName    string             // "": the id
	CreatedBy      string             // "": "cli_user", as DocEX writes
	Isolation      registry.Isolation // "": role
	Database       string             // of a tenant at level database; "": the schema's name
	Server         string             // the proxy's name of the tenant's server: in Options.Servers, or of DSN's; "": "main"
	IfNotExists    bool               // answer with the tenant that is there instead of ErrExists
	SchemaTemplate string             // "": "tenant_{tenant_id}"; must be the one that DocEX is configured with
	Template       Template           // of the schema's tables; the zero value: DocEX's

	Place   Policy          // how the server is chosen; "": Server names it
	Exclude []string        // servers where Place puts nothing
	Placed  func(Placement) // is told which server has been chosen; nil: nobody is
}

// CreateTenant creates a tenant as DocEX would, and what DocEX does not have: a login role that is confined to the
// tenant's schema, and a route. All or nothing. The tenant can be used when it returns. At level trusted the shared
// login docex_pool may become the role; at level slot docex_switcher may lend it to the slots, which are made with the
// first such tenant where Init has not; at level database the schema is in a database of its own, and what a run
// that was killed has left of one is dropped by the next run for the same tenant; on another server than the registry's it
// may also have been registered already, as being provisioned, and the next run finishes it.
//
// Errors: *registry.InvalidTenantIDError, *InvalidRequestError, ErrExists (also for the loser of two that create the
// same one), *ConflictError for a schema, role or database of that name, *KeyMismatchError, ErrNotInitialised.
func (p *Provisioner) CreateTenant(ctx context.Context, r TenantRequest) (*registry.Tenant, error) {
	c, err := newCreation(p, r)
	if err != nil {
		return nil, err
	}
	if r.Place != PlaceNamed {
		defer c.unplace(ctx)
		if err := c.place(ctx, r); err != nil {
			return nil, err
		}
		if c.placement != nil && r.Placed != nil {
			r.Placed(*c.placement)
		}
	}
	err = c.run(ctx)
	if errors.Is(err, errUnopened) && p.dryRun == nil {
		if err := c.complete(ctx); err != nil {
			return nil, err
		}
		return p.existingTenant(ctx, TenantRequest{ID: r.ID})
	}
	if err != nil && c.marked && p.dryRun == nil {
		if left := p.clearAfterFailure(ctx, c); left != nil {
			err = errors.Join(err, fmt.Errorf("cleaning up failed, creating the tenant again will do it: %w", left))
		}
	}
	if errors.Is(err, ErrExists) && r.IfNotExists {
		return p.existingTenant(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	p.logger.Info("tenant created", slog.String("tenant", string(r.ID)), slog.String("schema", c.tenant.SchemaName),
		slog.Duration("took", p.now().Sub(c.tenant.CreatedAt)))
	return c.tenant, nil
}

// creation is one run of CreateTenant.
type creation struct {
	*work
	*Provisioner
	tenant   *registry.Tenant
	template Template
	verifier string // of the role's derived password; made before the transaction, since it takes a while
	like     string // encoding and locale of its database, for CREATE DATABASE; "": the server's
	closed   bool   // the role may not log in yet, at whatever level

	placement *Placement // nil where the request names the server
	placing   *side      // holds the locks of place; nil where there are none

	left   leftovers // what refuseExisting has found of a run that was killed
	side   *side     // nil until clearLeftovers needs one
	marked bool      // something has been committed that bears the tenant's mark
}

func newCreation(p *Provisioner, r TenantRequest) (*creation, error) {
	if _, err := registry.ParseTenantID(string(r.ID)); err != nil {
		return nil, err
	}
	schema, err := schemaName(r.SchemaTemplate, r.ID)
	if err != nil {
		return nil, err
	}
	withDefault(&r.DisplayName, string(r.ID))
	withDefault(&r.CreatedBy, defaultCreatedBy)
	if err := r.CheckPlace(); err != nil {
		return nil, err
	}
	withDefault(&r.Server, defaultServer)
	withDefault(&r.Isolation, registry.IsolationRole)
	if err := checkIsolation(r); err != nil {
		return nil, err
	}
	if r.Isolation == registry.IsolationDatabase {
		withDefault(&r.Database, schema)
	}
	err = errors.Join(checkText("display-name", r.DisplayName), checkText("created-by", r.CreatedBy),
		checkText("server", r.Server), checkDatabaseName(r.Database))
	if err != nil {
		return nil, err
	}
	now, role := p.timestamp(), RoleName(r.ID, schema)
	r.Template = r.Template.orDefault()
	c := &creation{
		Provisioner: p,
		template:    r.Template,
		verifier:    derivedVerifier(p.key, role, firstGeneration),
		tenant: &registry.Tenant{
			ID:          r.ID,
			DisplayName: r.DisplayName,
			// At level database too: the tables are in a schema. DocEX's "database" is a SQLite file, with a path and
			// without a schema, and DocEX would look for one.
			IsolationStrategy: schemaStrategy,
			SchemaName:        schema,
			CreatedAt:         now,
			CreatedBy:         r.CreatedBy,
			LastUpdatedAt:     now,
			Route: &registry.Route{
				Isolation:        r.Isolation,
				Database:         r.Database, // "": the registry's
				Role:             role,
				SecretGeneration: firstGeneration,
				SchemaVersion:    r.Template.Version(),
				Version:          1,
				UpdatedAt:        now,
			},
		},
	}
	if r.Place != PlaceNamed {
		return c, nil // place settles it
	}
	return c, c.settle(r.Server)
}

// settle says on which server the tenant is to be.
func (c *creation) settle(server string) error {
	c.tenant.Route.Server, c.tenant.Route.Status = server, registry.StatusActive
	if _, abroad := c.at(server); abroad {
		c.tenant.Route.Status = registry.StatusProvisioning
	}
	return c.checkLevel(server)
}

// checkLevel refuses a level that a server cannot have.
func (c *creation) checkLevel(server string) error {
	level := c.tenant.Route.Isolation
	if _, abroad := c.at(server); abroad && level == registry.IsolationTrusted {
		return invalid("a tenant at isolation %s is on the registry's server: on another one it takes isolation %s, %s or %s",
			level, registry.IsolationRole, registry.IsolationSlot, registry.IsolationDatabase)
	}
	if c.isCitus(server) && level != registry.IsolationRole {
		return invalid("server %q is marked as Citus: a tenant there is a schema that is distributed, which takes isolation %s, not %s",
			server, registry.IsolationRole, level)
	}
	return nil
}

// CheckPlace refuses what is contradictory or unknown about the server, with an *InvalidRequestError.
func (r TenantRequest) CheckPlace() error {
	switch {
	case r.Place != PlaceNamed && r.Place != PlaceLeastTenants && r.Place != PlaceLeastBytes:
		return invalid("a server is chosen by %s or %s, not %q", PlaceLeastTenants, PlaceLeastBytes, r.Place)
	case r.Place != PlaceNamed && r.Server != "":
		return invalid("server %q is named, and one is to be chosen by %s: only one of the two", r.Server, r.Place)
	case r.Place == PlaceNamed && len(r.Exclude) > 0:
		return invalid("servers are excluded only where one is chosen, by %s or %s", PlaceLeastTenants, PlaceLeastBytes)
	}
	return nil
}

func checkIsolation(r TenantRequest) error {
	switch r.Isolation {
	case registry.IsolationRole, registry.IsolationSlot, registry.IsolationTrusted:
		if r.Database != "" {
			return invalid("a tenant at isolation %s is in the registry's database and cannot have %q: that takes isolation %s",
				r.Isolation, r.Database, registry.IsolationDatabase)
		}
		return nil
	case registry.IsolationDatabase:
		return nil
	default:
		return invalid("the isolation levels are %s, %s, %s and %s, not %q",
			registry.IsolationRole, registry.IsolationSlot, registry.IsolationTrusted, registry.IsolationDatabase, r.Isolation)
	}
}

// run gives the connections back that it has opened, the transaction's first.
func (c *creation) run(ctx context.Context) error {
	defer c.closeSide(ctx)
	err := c.transact(ctx, func(w *work) []step {
		c.work = w
		withDefault(&c.tenant.Route.Database, w.database)
		return c.steps()
	})
	if err != nil {
		return err
	}
	c.unplace(ctx) // it is in the registry, where others count it
	if c.tenant.Route.Status == registry.StatusProvisioning {
		return c.open(ctx)
	}
	return nil
}

func (c *creation) steps() []step {
	switch {
	case c.tenant.Route.Status == registry.StatusProvisioning:
		return c.foreignSteps()
	case c.tenant.Route.Isolation == registry.IsolationDatabase:
		return c.databaseSteps()
	}
	return []step{
		{"wait for the tenant's lock", c.enterForTenant},
		{"look for what exists", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.refuseExisting) }},
		{"look for Citus", c.lookForCitus},
		{"clear away what a run that was killed has left", c.clearLeftovers},
		{"create the role", c.createTenantRole},
		{"create the schema", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.createSchema) }},
		{"create the tables", c.createTables},
		{"register the tenant", func(ctx context.Context) error { return c.as(ctx, OwnerRole, c.register) }},
		{"grant the shared rights", c.grantSharedRights},
		{"distribute the schema", c.distribute},
		{"check the result", c.verify},
	}
}

func (c *creation) enterForTenant(ctx context.Context) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	if err := c.checkServer(ctx); err != nil {
		return err
	}
	return c.lock(ctx, "pg_advisory_xact_lock", tenantLockClass, string(c.tenant.ID))
}

// checkServer refuses a key that is not the one of the server's roles and, at level slot, a server where it is no wall.
func (c *creation) checkServer(ctx context.Context) error {
	roles := []string{RegistryRole}
	if c.tenant.Route.Isolation == registry.IsolationSlot {
		if err := c.refuseOldServer(ctx); err != nil {
			return err
		}
		exists, err := c.roleExists(ctx, systemRole{SwitcherRole, true})
		if err != nil {
			return err
		}
		if exists {
			roles = append(roles, SwitcherRole)
		}
	}
	return c.checkKey(ctx, c.key, roles...)
}

func (c *creation) createTenantRole(ctx context.Context) error {
	role := c.tenant.Route.Role
	login := c.tenant.Route.Isolation != registry.IsolationDatabase && !c.closed // openDatabase lets them log in
	err := c.createRole(ctx, role, login, c.verifier)
	// Roles belong to the cluster, the locks to this database: another database may have been faster.
	if hasCode(err, duplicateObject, uniqueViolation) {
		return roleConflict(role)
	}
	if err != nil || c.superuser {
		return err
	}
	return c.exec(ctx, "GRANT "+quote(role)+" TO CURRENT_USER") // to create its tables; taken back with the last grants
}

func (c *creation) createSchema(ctx context.Context) error {
	schema := quote(c.tenant.SchemaName)
	err := c.exec(ctx, "CREATE SCHEMA "+schema+" AUTHORIZATION "+OwnerRole)
	if hasCode(err, duplicateSchema, uniqueViolation) { // made since refuseExisting looked
		return &ConflictError{Object: "schema", Name: c.tenant.SchemaName, Reason: "exists without a tenant in the registry"}
	}
	if err != nil {
		return err
	}
	return c.exec(ctx, "GRANT USAGE, CREATE ON SCHEMA "+schema+" TO "+quote(c.tenant.Route.Role))
}

// createTables creates the tables as the tenant's role, which therefore owns them with all that belongs to them;
// nothing can be forgotten as by ALTER ... OWNER TO. A superuser must not do that in a schema that a tenant has had
// its hands on: a trigger there can RESET ROLE. This schema and its role are not committed yet, nobody else has seen
// them, and only pg_catalog and the schema itself are searched.
func (c *creation) createTables(ctx context.Context) error {
	return c.as(ctx, c.tenant.Route.Role, func(ctx context.Context) error {
		return c.fill(ctx, c.template, c.tenant.SchemaName)
	})
}

func (c *creation) register(ctx context.Context) error {
	err := registry.InsertTenant(ctx, c.tx, c.tenant)
	if hasCode(err, uniqueViolation) { // DocEX itself takes no lock
		return c.existsError()
	}
	if err != nil {
		return err
	}
	detail := struct {
		Schema    string             `json:"schema"`
		Role      string             `json:"role"`
		Isolation registry.Isolation `json:"isolation"`
		Server    string             `json:"server"`
		Database  string             `json:"database,omitempty"` // where it is not the registry's
		Placement *Placement         `json:"placement,omitempty"`
	}{c.tenant.SchemaName, c.tenant.Route.Role, c.tenant.Route.Isolation, c.tenant.Route.Server, "", c.placement}
	if c.tenant.Route.Isolation == registry.IsolationDatabase {
		detail.Database = c.tenant.Route.Database
	}
	return registry.InsertEvent(ctx, c.tx, c.tenant.ID, "create", c.tenant.CreatedBy, detail)
}

// grantSharedRights comes last: its grants change one row each that all tenants share, and Postgres answers a
// second change in the meantime with "tuple concurrently updated".
func (c *creation) grantSharedRights(ctx context.Context) error {
	if err := c.lock(ctx, "pg_advisory_xact_lock", accessListsLock); err != nil {
		return err
	}
	database, role := quote(c.database), quote(c.tenant.Route.Role)
	err := c.as(ctx, OwnerRole, func(ctx context.Context) error {
		return c.exec(ctx, "GRANT CONNECT, TEMPORARY ON DATABASE "+database+" TO "+role+";\n"+
			"GRANT USAGE ON SCHEMA "+extensionSchema+", public TO "+role)
	})
	if err != nil {
		return err
	}
	err = c.exec(ctx, "ALTER ROLE "+role+" IN DATABASE "+database+" SET search_path = "+tenantSearchPath(c.tenant.SchemaName))
	if err == nil {
		err = c.lend(ctx)
	}
	if err != nil || c.superuser {
		return err
	}
	return c.exec(ctx, "REVOKE "+role+" FROM CURRENT_USER")
}

// lend lets the role that the proxy switches with at some levels get at the tenant's.
func (c *creation) lend(ctx context.Context) error {
	switch c.tenant.Route.Isolation {
	case registry.IsolationTrusted:
		return c.lendToPool(ctx)
	case registry.IsolationSlot:
		return c.lendToSlots(ctx)
	default:
		return nil
	}
}

// verify sees to it that the tenant will work: a GRANT without the right to grant is a warning for Postgres.
func (c *creation) verify(ctx context.Context) error {
	if c.show != nil { // a dry run in a database that does not exist
		return nil
	}
	var rights bool
	var tables int
	err := c.tx.QueryRow(ctx, `
SELECT has_database_privilege(r.oid, current_database(), 'CONNECT') AND has_database_privilege(r.oid, current_database(), 'TEMPORARY')
   AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_schema_privilege(r.oid, n.oid, 'CREATE')
   AND has_schema_privilege(r.oid, 'ext', 'USAGE') AND has_schema_privilege(r.oid, 'public', 'USAGE'),
       (SELECT count(*) FROM pg_class AS c WHERE c.relname = ANY ($3) AND c.relnamespace = n.oid AND c.relowner = r.oid AND c.relkind = 'r')
  FROM pg_roles AS r, pg_namespace AS n WHERE r.rolname = $1 AND n.nspname = $2`, // by name: that has an index
		c.tenant.Route.Role, c.tenant.SchemaName, businessTableNames()).Scan(&rights, &tables)
	switch {
	case err != nil:
		return err
	case c.template.docex() && tables != businessTableCount:
		return fmt.Errorf("role %q owns %d tables where it should own %d", c.tenant.Route.Role, tables, businessTableCount)
	case !rights:
		return fmt.Errorf("role %q did not get its rights: may %s grant on this database and on the schemas %s and public? "+
			"`docexctl init` as a superuser lets it", c.tenant.Route.Role, OwnerRole, extensionSchema)
	}
	return nil
}

func withDefault[T ~string](value *T, otherwise T) {
	if *value == "" {
		*value = otherwise
	}
}

// checkText refuses what a varchar(255) column cannot hold.
func checkText(field, text string) error {
	switch {
	case !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0:
		return invalid("%s is not valid UTF-8 text", field)
	case utf8.RuneCountInString(text) > maxText:
		return invalid("%s has more than %d characters", field, maxText)
	}
	return nil
}
