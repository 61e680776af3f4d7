package router

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docex-proxy/docex-proxy/registry"
)

// claim is one source's word for who the tenant is.
type claim struct {
	tenant   registry.TenantID // as written; checked by the caller
	source   string
	bySchema bool // tenant was found by its schema, or is the name of a schema that nobody has
}

// identity is what a startup message says of itself.
type identity struct {
	claim
	login    string
	settings []setting
	mode     registry.PoolMode // "" where the client leaves it to the tenant
	replica  bool              // it asks for one
	known    *registry.Tenant  // already looked up, when the schema named the tenant
}

// Names of startup parameters that are ours.
const (
	parameterTenant      = "docex.tenant_id"
	parameterTenantAlias = "docex.tenant"
	parameterUser        = "docex.user_id"
	parameterPoolMode    = "docex.pool_mode"
	parameterRoute       = "docex.route"
)

// identify reads who the client is and which tenant it means: the only place that knows where a tenant is written.
func (r *Router) identify(ctx context.Context, start Startup) (identity, error) {
	who := identity{login: start.Parameters["user"]}
	if who.login == "" {
		return who, &Refusal{Err: ErrNoUser}
	}
	var claims []claim
	add := func(text, source string) {
		claims = append(claims, claim{tenant: registry.TenantID(text), source: source})
	}
	for _, name := range []string{parameterTenant, parameterTenantAlias} {
		if value, ok := start.Parameters[name]; ok {
			add(value, fmt.Sprintf("startup parameter %q", name))
		}
	}
	options, err := parseOptions(start.Parameters["options"])
	if err != nil {
		return who, &Refusal{Err: ErrBadOptions, Detail: err.Error()}
	}
	for _, s := range options {
		if name := strings.ToLower(s.name); name == parameterTenant || name == parameterTenantAlias {
			add(s.value, fmt.Sprintf("%q in startup parameter \"options\"", name))
		}
	}
	if dot := strings.LastIndexByte(who.login, '.'); r.o.UserSuffix && dot > 0 {
		add(who.login[dot+1:], "the suffix of the user name")
		who.login = who.login[:dot]
	}
	if host, ok := strings.CutSuffix(start.ServerName, "."+r.o.SNIDomain); ok && r.o.SNIDomain != "" {
		add(host, "the TLS server name")
	}
	if database := start.Parameters["database"]; r.o.Database && database != "" {
		add(database, "the database name")
	}
	if who.settings, err = startupSettings(start.Parameters, options); err != nil {
		return who, err
	}
	if who.settings, who.mode, err = takePoolMode(who.settings); err != nil {
		return who, err
	}
	if who.settings, who.replica, err = takeRoute(who.settings); err != nil {
		return who, err
	}
	bySchema, err := r.bySchema(ctx, who.settings)
	if err != nil {
		return who, err
	}
	if bySchema != nil && (bySchema.known != nil || len(claims) == 0) {
		claims = append(claims, bySchema.claim)
		who.known = bySchema.known
	}
	who.claim, err = agree(claims)
	return who, err
}

// bySchema reads a tenant out of the first element of search_path, which is how a stock DocEX names it. The schema
// has to be registered, case and all; any other path is a setting like others, and names nobody.
func (r *Router) bySchema(ctx context.Context, settings []setting) (*identity, error) {
	for _, s := range settings {
		if s.name != "search_path" {
			continue
		}
		schema, _ := firstSchema(s.value)
		if schema == "" {
			return nil, nil
		}
		source := fmt.Sprintf("schema %q in search_path", schema)
		tenant, err := r.o.Registry.TenantBySchema(ctx, schema)
		switch {
		case errors.Is(err, registry.ErrNotFound):
			return &identity{claim: claim{tenant: registry.TenantID(schema), source: source, bySchema: true}}, nil
		case err != nil:
			return nil, &Refusal{Err: ErrRegistryOffline, Cause: err}
		}
		return &identity{claim: claim{tenant: tenant.ID, source: source, bySchema: true}, known: tenant}, nil
	}
	return nil, nil
}

// agree makes one claim of all, or refuses.
func agree(claims []claim) (claim, error) {
	if len(claims) == 0 {
		return claim{}, &Refusal{Err: ErrNoTenant}
	}
	for _, c := range claims[1:] {
		if c.tenant != claims[0].tenant {
			return claim{}, &Refusal{Err: ErrTenantConflict, Tenant: claims[0].tenant, Source: claims[0].source,
				Detail: fmt.Sprintf("%q from %s", string(c.tenant), c.source)}
		}
	}
	return claims[0], nil
}
