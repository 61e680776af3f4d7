package provision

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	migrationActor = "migration" // what DocEX's design has as created_by of such rows
	// firstTenant is the id that DocEX 2.8 made up where nobody named one.
	firstTenant = "docex_first_tenant"
)

// MigrateRequest asks for the tenants of a DocEX 2 that are in this database, and for those of an early DocEX 3 whose
// registry is in schema public.
type MigrateRequest struct {
	SchemaTemplate string             // as in TenantRequest: the one that the tenants were made with
	Actor          string             // "": "migration"
	Isolation      registry.Isolation // role, slot or trusted; "": role
	KeepAccess     bool               // as in AdoptRequest
	Rename         bool               // ids that DocEX 3 does not allow are changed, and their schemas renamed
}

// MigrationStep is what is to be done about one schema or row, or has been.
type MigrationStep struct {
	Schema string
	ID     registry.TenantID // what it will be; "" where nothing can be
	From   string            // the id that it has, where that is another
	Action string            // migrate, finish, nothing, skip or refuse
	Detail string            // why, or what is to be mended

	row    *registry.Tenant // to be registered; nil where it is
	public bool             // its row is in public.tenant_registry
}

// PlanMigration finds what there is to migrate. It changes nothing.
//
// Errors: *InvalidRequestError, ErrNotInitialised.
func (p *Provisioner) PlanMigration(ctx context.Context, r MigrateRequest) ([]MigrationStep, error) {
	if r.Isolation == registry.IsolationDatabase {
		return nil, invalid("a tenant is migrated where it is, in a schema: that takes isolation role, slot or trusted, not database")
	}
	withDefault(&r.Isolation, registry.IsolationRole)
	if err := checkIsolation(TenantRequest{Isolation: r.Isolation}); err != nil {
		return nil, err
	}
	var m *migration
	quiet := *p
	quiet.dryRun = nil
	err := quiet.transact(ctx, func(w *work) []step {
		m = &migration{work: w, Provisioner: p, request: r}
		return []step{
			{"wait for the registry's lock", w.enter},
			{"look for tenants", func(ctx context.Context) error { return w.as(ctx, OwnerRole, m.find) }},
			{"look at the registry in public", m.findPublic},
		}
	})
	if err != nil {
		return nil, err
	}
	if err := m.plan(); err != nil {
		return nil, err
	}
	return m.steps, nil
}

// MigrateTenant carries one step of a plan out: the row of the registry, the role and the route in one transaction, with
// the tenant suspended; then what its tables lack, as its own role; then it is active. A run that is ended is finished by
// the next plan. It does nothing for a step whose action is another than migrate or finish.
func (p *Provisioner) MigrateTenant(ctx context.Context, r MigrateRequest, s MigrationStep) error {
	withDefault(&r.Actor, migrationActor)
	withDefault(&r.Isolation, registry.IsolationRole)
	switch s.Action {
	case "migrate":
		if err := p.enrol(ctx, r, s); err != nil {
			return err
		}
	case "finish":
	default:
		return nil
	}
	if p.dryRun != nil {
		return nil
	}
	if err := p.modernise(ctx, s.ID); err != nil {
		return fmt.Errorf("its tables: %w", err)
	}
	if _, err := p.UpgradeTenant(ctx, UpgradeRequest{ID: s.ID, Actor: r.Actor, Repair: true}); err != nil {
		return fmt.Errorf("its tables: %w", err)
	}
	if _, err := p.ChangeTenant(ctx, ChangeRequest{ID: s.ID, Actor: r.Actor, Transition: Resume}); err != nil {
		return err
	}
	p.logger.Info("tenant migrated", slog.String("tenant", string(s.ID)), slog.String("schema", s.Schema))
	return nil
}

// migration is one run of PlanMigration.
type migration struct {
	*work
	*Provisioner
	request MigrateRequest

	schemas []foundSchema
	known   map[string]knownTenant // by id
	taken   map[string]bool        // all schemas there are
	public  []*registry.Tenant
	steps   []MigrationStep
}

// foundSchema is one that may be a tenant's.
type foundSchema struct {
	name  string
	core  int  // how many of coreTables it has
	empty bool // they have no page
}

// knownTenant is one that is in the registry.
type knownTenant struct {
	schema   string
	routed   bool
	halfDone bool // it is suspended because a migration was ended
}

func (m *migration) find(ctx context.Context) error {
	rows, err := m.tx.Query(ctx, `
SELECT nspname, (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind IN ('r', 'p') AND relname = ANY ($1)),
       NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relkind = 'r' AND relname = ANY ($1) AND pg_relation_size(oid) > 0)
  FROM pg_namespace AS n WHERE nspname !~ '^pg_' AND nspname <> ALL ($2) ORDER BY 1`,
		coreTables, []string{"information_schema", systemSchema, extensionSchema, "public", referenceSchema})
	if err != nil {
		return err
	}
	m.taken = make(map[string]bool)
	var f foundSchema
	_, err = pgx.ForEachRow(rows, []any{&f.name, &f.core, &f.empty}, func() error {
		m.schemas, m.taken[f.name] = append(m.schemas, f), true
		return nil
	})
	if err != nil {
		return err
	}
	rows, err = m.tx.Query(ctx, `
SELECT tenant_id, coalesce(schema_name, ''), t.tenant_id IS NOT NULL, coalesce(t.status = 'suspended' AND EXISTS (
         SELECT FROM docex_system.tenant_event AS e WHERE e.tenant_id = r.tenant_id AND verb = 'migrate' AND NOT EXISTS (
           SELECT FROM docex_system.tenant_event AS later WHERE later.tenant_id = r.tenant_id AND later.id > e.id AND later.verb IN ('resume', 'suspend'))), false)
  FROM docex_system.tenant_registry AS r LEFT JOIN docex_system.tenant_route AS t USING (tenant_id)`)
	if err != nil {
		return err
	}
	m.known = make(map[string]knownTenant)
	var id string
	var k knownTenant
	_, err = pgx.ForEachRow(rows, []any{&id, &k.schema, &k.routed, &k.halfDone}, func() error {
		m.known[id] = k
		return nil
	})
	return err
}

// findPublic reads the registry that an early DocEX 3 left in the default database's schema.
func (m *migration) findPublic(ctx context.Context) error {
	var there bool
	err := m.tx.QueryRow(ctx, `SELECT to_regclass('public.tenant_registry') IS NOT NULL AND
 (SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('public.tenant_registry'))`).Scan(&there)
	if err != nil || !there {
		return err
	}
	rows, err := m.tx.Query(ctx, `
SELECT tenant_id::text, display_name::text, is_system, coalesce(schema_name, '')::text, created_at, created_by::text FROM ONLY public.tenant_registry ORDER BY created_at, 1`)
	if err != nil {
		return err
	}
	m.public, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*registry.Tenant, error) {
		t := &registry.Tenant{IsolationStrategy: schemaStrategy}
		err := row.Scan(&t.ID, &t.DisplayName, &t.IsSystem, &t.SchemaName, &t.CreatedAt, &t.CreatedBy)
		return t, err
	})
	return err
}

// plan decides about what was found.
func (m *migration) plan() error {
	pattern, err := reverse(m.request.SchemaTemplate)
	if err != nil {
		return err
	}
	public := make(map[string]*registry.Tenant)
	for _, t := range m.public {
		public[string(t.ID)] = t
	}
	of := make(map[string]bool) // ids that a schema has been found for
	for _, f := range m.schemas {
		found := pattern.FindStringSubmatch(f.name)
		if found == nil {
			if f.core == len(coreTables) && !m.registered(f.name) {
				m.steps = append(m.steps, MigrationStep{Schema: f.name, Action: "skip", Detail: "has a tenant's tables, and a name that the template does not make"})
			}
			continue
		}
		of[found[1]] = true
		m.steps = append(m.steps, m.decide(f, found[1], public[found[1]]))
	}
	for _, t := range m.public { // what has no schema
		if _, known := m.known[string(t.ID)]; !t.IsSystem && !of[string(t.ID)] && !known {
			m.steps = append(m.steps, MigrationStep{Schema: t.SchemaName, From: string(t.ID), Action: "skip", Detail: "is in public.tenant_registry and has no schema"})
		}
	}
	m.refuseCollisions()
	return nil
}

func (m *migration) registered(schema string) bool {
	for _, k := range m.known {
		if k.schema == schema {
			return true
		}
	}
	return false
}

// reverse is the pattern by which a schema's name says whose it is.
func reverse(template string) (*regexp.Regexp, error) {
	if template == "" {
		template = defaultSchemaTemplate
	}
	before, after, found := strings.Cut(template, templateVariable)
	if !found || strings.Contains(after, templateVariable) {
		return nil, invalid("schema template %q does not have %s once: a schema's name does not say whose it is", template, templateVariable)
	}
	return regexp.MustCompile(`\A` + regexp.QuoteMeta(before) + `((?s).+)` + regexp.QuoteMeta(after) + `\z`), nil
}

func (m *migration) decide(f foundSchema, id string, row *registry.Tenant) MigrationStep {
	s := MigrationStep{Schema: f.name, ID: registry.TenantID(id), Action: "migrate"}
	known, registered := m.known[id]
	switch {
	case registered && known.halfDone && known.schema == f.name:
		s.Action, s.Detail = "finish", "a run was ended"
		return s
	case registered && known.routed:
		s.Action = "nothing"
		return s
	case f.core < len(coreTables):
		s.ID, s.Action = "", "skip"
		s.Detail = fmt.Sprintf("has %d of the five tables by which a tenant is known: %s", f.core, strings.Join(coreTables, ", "))
		return s
	case id == firstTenant && f.empty:
		s.ID, s.Action, s.Detail = "", "skip", "is the tenant that DocEX makes up, and empty"
		return s
	case len(f.name) == maxIdentifier && !registered:
		s.Detail = "the name is as long as Postgres keeps of one: two tenants may have met in it. "
	}
	if _, err := registry.ParseTenantID(id); err != nil {
		s = m.rename(s, id, err)
		if s.Action == "refuse" {
			return s
		}
	}
	if !registered || s.From != "" {
		s.row = &registry.Tenant{
			ID: s.ID, DisplayName: id, IsolationStrategy: schemaStrategy, SchemaName: s.Schema,
			CreatedAt: m.timestamp(), LastUpdatedAt: m.timestamp(), CreatedBy: cmp.Or(m.request.Actor, migrationActor),
		}
	}
	if s.row != nil && row != nil {
		s.public = true
		s.row.DisplayName, s.row.CreatedAt, s.row.CreatedBy = row.DisplayName, row.CreatedAt, row.CreatedBy
		s.Detail += "its row is moved from public.tenant_registry"
	}
	s.Detail = strings.TrimSpace(s.Detail)
	return s
}

// rename finds an id that DocEX 3 allows, or refuses.
func (m *migration) rename(s MigrationStep, id string, reason error) MigrationStep {
	wanted := validID(id)
	schema, err := schemaName(m.request.SchemaTemplate, wanted)
	if err == nil {
		_, err = registry.ParseTenantID(string(wanted))
	}
	switch {
	case registry.TenantID(id).IsSystem() || err != nil:
		s.ID, s.Action, s.Detail = "", "refuse", reason.Error()
	case m.taken[schema]:
		s.ID, s.Action, s.Detail = "", "refuse", fmt.Sprintf("%v; schema %q, which it would get, is there", reason, schema)
	case !m.request.Rename:
		s.ID, s.Action = "", "refuse"
		s.Detail = fmt.Sprintf("DocEX 3 allows no id %q: --rename makes it %q, in schema %q", id, wanted, schema)
	default:
		s.ID, s.From = wanted, id
		s.Detail = fmt.Sprintf("renamed: schema %q to %q. ", s.Schema, schema)
	}
	return s
}

// longestID is DocEX's bound, in characters.
const longestID = 30

var notOfAnID = regexp.MustCompile(`[^A-Za-z0-9_]+`)

// validID makes an id of any text. What is cut off an over-long one leaves a hash, so that two do not become one.
func validID(text string) registry.TenantID {
	id := notOfAnID.ReplaceAllString(text, "_")
	if id[0] >= '0' && id[0] <= '9' {
		id = "t" + id
	}
	if len(id) > longestID {
		sum := sha256.Sum256([]byte(text))
		id = id[:longestID-9] + "_" + hex.EncodeToString(sum[:4])
	}
	return registry.TenantID(id)
}

// refuseCollisions refuses ids that two steps would give.
func (m *migration) refuseCollisions() {
	count := make(map[registry.TenantID]int)
	for _, s := range m.steps {
		count[s.ID]++
	}
	for i := range m.steps {
		if s := &m.steps[i]; s.Action == "migrate" && count[s.ID] > 1 {
			s.Action, s.Detail = "refuse", fmt.Sprintf("another schema's tenant would be %q too: rename one of them yourself", s.ID)
		}
	}
}
