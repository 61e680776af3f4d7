package metrics

// Reasons for which a session is refused before it begins: the label values of refusals_total, and the words of the
// log line that goes with it.
const (
	ReasonNoTenant       = "no_tenant"
	ReasonTenantConflict = "tenant_conflict"
	ReasonUnknownTenant  = "unknown_tenant"
	ReasonUnknownLogin   = "unknown_login"
	ReasonNotPermitted   = "login_not_permitted"
	ReasonBadPassword    = "bad_password"
	ReasonExpired        = "login_expired"
	ReasonSystemTenant   = "system_tenant"
	ReasonSuspended      = "suspended"
	ReasonDeleted        = "deleted"
	ReasonProvisioning   = "provisioning"
	ReasonMoving         = "moving"
	ReasonNotAdopted     = "not_adopted"
	ReasonUnsupported    = "unsupported"
	ReasonProtocol       = "protocol"
	ReasonTimeout        = "timeout"
	ReasonLimit          = "limit"
	ReasonShutdown       = "shutdown"
	ReasonKilled         = "killed"
	ReasonServer         = "server_unreachable"
	ReasonRegistry       = "registry_unreachable"
	ReasonSetting        = "setting"
	ReasonTLSRequired    = "tls_required"
	ReasonThrottled      = "throttled"
	ReasonInternal       = "internal"
)

// refusalReasons lists them all: a reason that never occurred is visible as a zero.
func refusalReasons() []string {
	return []string{
		ReasonNoTenant, ReasonTenantConflict, ReasonUnknownTenant, ReasonUnknownLogin, ReasonNotPermitted,
		ReasonBadPassword, ReasonExpired, ReasonSystemTenant, ReasonSuspended, ReasonDeleted, ReasonProvisioning,
		ReasonMoving, ReasonNotAdopted, ReasonUnsupported, ReasonProtocol, ReasonTimeout, ReasonLimit, ReasonShutdown,
		ReasonServer, ReasonRegistry, ReasonSetting, ReasonTLSRequired, ReasonThrottled, ReasonInternal,
	}
}
