package router

import (
	"errors"
	"fmt"

	"github.com/docex-proxy/docex-proxy/registry"
)

// The reasons for which a startup message is refused.
var (
	ErrNoTenant        = errors.New("no tenant named")
	ErrTenantConflict  = errors.New("sources name different tenants")
	ErrInvalidTenant   = errors.New("invalid tenant id")
	ErrSystemTenant    = errors.New("system tenant")
	ErrUnknownTenant   = errors.New("unknown tenant")
	ErrUnknownLogin    = errors.New("unknown login")
	ErrNotPermitted    = errors.New("login not permitted for the tenant")
	ErrLoginExpired    = errors.New("login expired")
	ErrNotAdopted      = errors.New("tenant has no route")
	ErrSuspended       = errors.New("tenant suspended")
	ErrDeleted         = errors.New("tenant deleted")
	ErrProvisioning    = errors.New("tenant not yet provisioned")
	ErrMoving          = errors.New("tenant moving")
	ErrUnsupported     = errors.New("not supported")
	ErrWrongDatabase   = errors.New("wrong database")
	ErrBadOptions      = errors.New("malformed options")
	ErrSettingRefused  = errors.New("setting refused")
	ErrPoolMode        = errors.New("no such pool mode")
	ErrRoute           = errors.New("no such route")
	ErrNoReplica       = errors.New("no replica")
	ErrUserContext     = errors.New("no user context")
	ErrUnknownIsolate  = errors.New("isolation level not served")
	ErrNotAllowed      = errors.New("isolation level not allowed")
	ErrNoUser          = errors.New("no user named")
	ErrRegistryOffline = errors.New("registry unavailable")
)

// Refusal is a startup message that gets no session. Its Is matches the Err of this package.
type Refusal struct {
	Err    error             // one of the reasons above
	Tenant registry.TenantID // the tenant as it was named, "" when none was
	Source string            // where it was named, in words: `startup parameter "docex.tenant_id"`
	Detail string            // what more there is to say, fit for the client
	Cause  error             // what lies beneath, for the log only
}

func (r *Refusal) Error() string {
	text := r.Err.Error()
	if r.Tenant != "" {
		text += fmt.Sprintf(": %q from %s", string(r.Tenant), r.Source)
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	if r.Cause != nil {
		text += ": " + r.Cause.Error()
	}
	return text
}

// Unwrap gives the reason and the cause.
func (r *Refusal) Unwrap() []error { return []error{r.Err, r.Cause} }
