package provision

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/docex-proxy/docex-proxy/registry"
)

// DocEX's own values for the system tenant's row.
const (
	systemDisplayName = "DocEX System"
	systemActor       = "system"
	schemaStrategy    = "schema"
)

// InitRequest asks for the registry and the system tenant.
type InitRequest struct {
	Actor string // who does it, for created_by and the audit trail; "" is "system", as DocEX writes
	// Rekey gives the roles of this database's registry passwords that are derived from the key at hand, whatever
	// they were derived from before. Every proxy needs the same key from then on.
	Rekey bool
	// NewKey says that the key has been drawn for this request, so that no role which exists can match it. It
	// matters where the stored verifiers cannot be read and compared.
	NewKey bool
	// Harden is the hardening to add; "" is HardenNone. What an earlier run has hardened stays so.
	Harden Hardening
	// Slots is how many slots there shall be at least, for tenants at isolation level slot; 0 leaves them as they are.
	// There never become fewer.
	Slots int
}

// InitResult says what Init found and did.
type InitResult struct {
	Database     string
	Created      bool     // the system tenant was not in the registry before
	RolesCreated []string // of docex_owner, docex_pool, docex_registry, docex_switcher
	RolesRekeyed []string // those, the slots and the tenants' roles, when asked for
	NotRekeyed   []string // servers of tenants that nobody has said how to reach: their passwords are the old ones
	Slots        int      // that this database has now; 0 while it is not prepared for isolation level slot
	SlotsCreated int
	Hardening    Hardening // of the database, now
	RightsTaken  int       // by hardening, from PUBLIC
	RegistryDSN  string    // for the proxy's configuration; without a password, which it derives
}

// Init creates what the proxy and docexctl need in a database: the registry's tables, the system tenant with its
// tables, the roles docex_owner, docex_pool and docex_registry, the schema ext and, when asked to, docex_switcher and
// the slots; and it takes the rights of PUBLIC on
// the database and on schema public away. It can run again, also over a system tenant that DocEX has made, and then
// completes what is missing.
//
// Errors: *InvalidRequestError, *KeyMismatchError, *ConflictError for a role that is not ours, or what Postgres said.
func (p *Provisioner) Init(ctx context.Context, r InitRequest) (InitResult, error) {
	if r.Actor == "" {
		r.Actor = systemActor
	}
	withDefault(&r.Harden, HardenNone)
	if r.Harden != HardenNone && r.Harden != HardenLight {
		return InitResult{}, invalid("unknown hardening %q: %s or %s", r.Harden, HardenNone, HardenLight)
	}
	if r.Slots < 0 || r.Slots > mostSlots {
		return InitResult{}, invalid("the number of slots is from 1 to %d, or 0 to leave them as they are, not %d", mostSlots, r.Slots)
	}
	if err := checkText("created-by", r.Actor); err != nil {
		return InitResult{}, err
	}
	var i *initialisation
	err := p.transact(ctx, func(w *work) []step {
		i = &initialisation{work: w, Provisioner: p, request: r}
		i.result.Database, i.result.RegistryDSN = w.database, w.registryDSN
		return i.steps()
	})
	if err != nil {
		return InitResult{}, err
	}
	if err := p.rekeyAbroad(ctx, i); err != nil {
		return InitResult{}, err
	}
	p.logger.Info("registry initialised", slog.String("database", i.result.Database), slog.Bool("created", i.result.Created),
		slog.Int("roles_created", len(i.result.RolesCreated)), slog.Int("slots", i.result.Slots), slog.Int("roles_rekeyed", len(i.result.RolesRekeyed)))
	return i.result, nil
}

// initialisation is one run of Init.
type initialisation struct {
	*work
	*Provisioner
	request InitRequest
	result  InitResult
	keyed   []string                  // roles that have been created, with the key at hand
	abroad  map[string]map[string]int // of the tenants' roles on other servers, by server and role, the generation; for rekey
}

func (i *initialisation) steps() []step {
	return []step{
		{"wait for the registry's lock", i.enterAlone},
		{"create the roles", i.createRoles},
		{"create the registry's tables", i.migrateRegistry},
		{"let the registry's triggers notify", i.letTriggersNotify},
		{"let proxies enter themselves", i.letProxiesBeat},
		{"create the system tenant's tables", func(ctx context.Context) error { return i.createBusinessTables(ctx, systemSchema) }},
		{"register the system tenant", i.registerSystemTenant},
		{"set the rights", i.setRights},
		{"create the slots", i.createSlots},
		{"harden the catalogs", i.hardenCatalogs},
		{"set the passwords anew", i.rekey},
		{"write the audit trail", i.recordEvent},
	}
}

func (i *initialisation) enterAlone(ctx context.Context) error {
	return i.lock(ctx, "pg_advisory_xact_lock", gateLock)
}

// createRoles gives a password to the roles that it creates, and to no other unless Rekey asks: a proxy may be
// running with the key that the existing ones were derived from. Running init on another machine, where a new key
// has just been drawn, would lock that proxy out; so a key that does not match is an error instead.
func (i *initialisation) createRoles(ctx context.Context) error {
	var existing []string
	for _, role := range systemRoles() {
		exists, err := i.roleExists(ctx, role)
		if err != nil {
			return err
		}
		if exists && role.login {
			existing = append(existing, role.name)
		}
		if exists {
			continue
		}
		verifier := ""
		if role.login {
			verifier = derivedVerifier(i.key, role.name, firstGeneration)
		}
		if err := i.createRole(ctx, role.name, role.login, verifier); err != nil {
			return err
		}
		i.result.RolesCreated = append(i.result.RolesCreated, role.name)
		i.keyed = append(i.keyed, role.name)
	}
	// Of another registry in this cluster, or of this one.
	switcher, err := i.roleExists(ctx, systemRole{SwitcherRole, true})
	if err != nil {
		return err
	}
	if switcher {
		existing = append(existing, SwitcherRole)
	}
	if i.request.Rekey || len(existing) == 0 {
		return nil
	}
	if i.request.NewKey {
		return &KeyMismatchError{Role: existing[0]}
	}
	return i.checkKey(ctx, i.key, existing...)
}

// createSlots also completes, in a database that has slots, what a newer version or another database's registry has
// added.
func (i *initialisation) createSlots(ctx context.Context) error {
	prepared, _, err := i.slotsPrepared(ctx)
	if err != nil || i.request.Slots == 0 && !prepared {
		return err
	}
	created, slots, err := i.prepareSlots(ctx, i.key, i.request.Slots)
	if err != nil {
		return err
	}
	others, slotsCreated := withoutSlots(created)
	i.keyed = append(i.keyed, created...)
	i.result.RolesCreated = append(i.result.RolesCreated, others...)
	i.result.Slots, i.result.SlotsCreated = slots, slotsCreated
	return nil
}

// migrateRegistry runs all of the registry's files each time: they may run again, and a table that says which have
// run could only disagree with what is there.
func (i *initialisation) migrateRegistry(ctx context.Context) error {
	names, err := fs.Glob(registry.Migrations, "migrations/*.sql") // sorted: by number
	if err != nil {
		return err
	}
	for _, name := range names {
		sql, err := registry.Migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if err := i.exec(ctx, string(sql)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// letProxiesBeat has proxies enter themselves, and nothing else, into the table of proxies.
func (i *initialisation) letProxiesBeat(ctx context.Context) error {
	sql := "GRANT SELECT, INSERT, UPDATE, DELETE ON docex_system.proxy_instance TO " + OwnerRole + ";\n"
	for _, function := range []string{"proxy_beat(text, text)", "proxy_leave(text)"} {
		sql += fmt.Sprintf("ALTER FUNCTION docex_system.%[1]s OWNER TO %[2]s;\nALTER FUNCTION docex_system.%[1]s SECURITY DEFINER;\n"+
			"REVOKE EXECUTE ON FUNCTION docex_system.%[1]s FROM PUBLIC;\nGRANT EXECUTE ON FUNCTION docex_system.%[1]s TO %[3]s;\n", function, OwnerRole, RegistryRole)
	}
	return i.exec(ctx, sql)
}

// letTriggersNotify makes the registry's triggers independent of who writes to it. They call pg_notify(), which
// hardening takes from PUBLIC; docex_owner, whom they run as, keeps it. It is done at every run, since the registry's
// files define the functions anew, and also unhardened: somebody may harden the database by hand.
func (i *initialisation) letTriggersNotify(ctx context.Context) error {
	var sql strings.Builder
	for _, function := range []string{"notify_tenant()", "notify_login()", "notify_everything()"} {
		function = "FUNCTION docex_system." + function
		fmt.Fprintf(&sql, "ALTER %s OWNER TO %s;\nALTER %[1]s SECURITY DEFINER;\nREVOKE EXECUTE ON %[1]s FROM PUBLIC;\n", function, OwnerRole)
	}
	return i.exec(ctx, sql.String()+"GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO "+OwnerRole)
}

func (i *initialisation) hardenCatalogs(ctx context.Context) error {
	if i.request.Harden == HardenLight {
		taken, err := i.harden(ctx)
		if err != nil {
			return err
		}
		i.result.RightsTaken = taken
	}
	hardened, err := i.hardened(ctx)
	i.result.Hardening = HardenNone
	if hardened {
		i.result.Hardening = HardenLight
	}
	return err
}

// registerSystemTenant writes the row that DocEX's BootstrapTenantManager writes. It has no route: nobody is ever
// routed to it.
func (i *initialisation) registerSystemTenant(ctx context.Context) error {
	exists, err := i.tenantExists(ctx, registry.SystemTenantID)
	if err != nil || exists {
		return err
	}
	i.result.Created = true
	now := i.timestamp()
	return registry.InsertTenant(ctx, i.tx, &registry.Tenant{
		ID:                registry.SystemTenantID,
		DisplayName:       systemDisplayName,
		IsSystem:          true,
		IsolationStrategy: schemaStrategy,
		SchemaName:        systemSchema,
		CreatedAt:         now,
		CreatedBy:         i.request.Actor,
		LastUpdatedAt:     now,
	})
}

func (i *initialisation) setRights(ctx context.Context) error {
	database := quote(i.database)
	return i.exec(ctx, `
REVOKE ALL ON DATABASE `+database+` FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- What docex_owner hands on to each tenant, and what it needs to register one.
GRANT CONNECT, TEMPORARY, CREATE ON DATABASE `+database+` TO `+OwnerRole+` WITH GRANT OPTION;
CREATE SCHEMA IF NOT EXISTS `+extensionSchema+` AUTHORIZATION `+OwnerRole+`;
GRANT USAGE ON SCHEMA public, `+extensionSchema+` TO `+OwnerRole+` WITH GRANT OPTION;
GRANT USAGE ON SCHEMA docex_system TO `+OwnerRole+`;
GRANT SELECT, INSERT, UPDATE, DELETE ON docex_system.tenant_registry, docex_system.tenant_route, docex_system.proxy_login,
  docex_system.proxy_login_tenant TO `+OwnerRole+`;
GRANT SELECT, INSERT ON docex_system.tenant_event TO `+OwnerRole+`;
GRANT SELECT, INSERT, UPDATE, DELETE ON docex_system.tenant_move TO `+OwnerRole+`;

-- The proxy reads who is who, and nothing else.
GRANT CONNECT ON DATABASE `+database+` TO `+RegistryRole+`;
GRANT USAGE ON SCHEMA docex_system TO `+RegistryRole+`;
GRANT SELECT ON docex_system.tenant_registry, docex_system.tenant_route, docex_system.proxy_login,
  docex_system.proxy_login_tenant TO `+RegistryRole+`;`)
}

func (i *initialisation) recordEvent(ctx context.Context) error {
	detail := rolesDetail{i.result.RolesCreated, i.result.SlotsCreated, len(i.result.RolesRekeyed), i.result.RightsTaken}
	if !i.result.Created && len(detail.RolesCreated) == 0 && detail.SlotsCreated == 0 && detail.RolesRekeyed == 0 && detail.RightsTaken == 0 {
		return nil
	}
	return registry.InsertEvent(ctx, i.tx, registry.SystemTenantID, "init", i.request.Actor, detail)
}
