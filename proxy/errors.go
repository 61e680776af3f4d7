package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/docex-proxy/docex-proxy/internal/scram"
	"github.com/docex-proxy/docex-proxy/metrics"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/relay"
	"github.com/docex-proxy/docex-proxy/router"
)

// The ways in which this room ends or refuses a session by its own decision.
var (
	errShutdown           = errors.New("the proxy is shutting down")
	errKilled             = errors.New("an administrator has ended the tenant's sessions")
	errTooManyClients     = errors.New("too many client connections")
	errTooManyStartups    = errors.New("too many client connections are logging in")
	errTenantClients      = errors.New("too many sessions of this tenant")
	errTLSRequired        = errors.New("TLS is required")
	errStartupTimeout     = errors.New("startup took too long")
	errAuthTimeout        = errors.New("authentication took too long")
	errFrameTimeout       = errors.New("a message was not completed in time")
	errClientIdle         = errors.New("the client was idle for too long")
	errIdleTransaction    = errors.New("the transaction was idle for too long")
	errQueryTimeout       = errors.New("the query took too long")
	errTransactionTimeout = errors.New("the transaction took too long")
	errIsolationChanged   = errors.New("the isolation level of the tenant has changed")
	errCanceled           = errors.New("canceled while waiting for a server connection")
	errQueueWait          = errors.New("waited too long for a server connection")
	errServerClosed       = errors.New("the server closed the connection")
)

// protocolError is a client that does not speak the protocol.
type protocolError struct{ reason string }

func (e *protocolError) Error() string { return "protocol violation: " + e.reason }

// clientGoneError is a client connection that ended or failed by itself. Nobody is left to be told.
type clientGoneError struct{ err error }

func (e *clientGoneError) Error() string { return "client connection: " + e.err.Error() }
func (e *clientGoneError) Unwrap() error { return e.err }

// throttledError is a client that has failed to log in too often.
type throttledError struct{ wait time.Duration }

func (e *throttledError) Error() string { return "too many failed logins" }

// endedError is a session that is ended because its tenant or login may not be served any longer.
type endedError struct{ refusal *router.Refusal }

func (e *endedError) Error() string { return "ended: " + e.refusal.Error() }
func (e *endedError) Unwrap() error { return e.refusal }

// verdict is what an error means outside: a SQLSTATE and words for the client, a reason for metrics and logs.
type verdict struct {
	code, message, detail, hint string
	reason                      string
}

const howToNameATenant = `Name it in one of: startup parameter docex.tenant_id, options=-cdocex.tenant_id=<tenant>, ` +
	`user=<login>.<tenant>, options=-csearch_path=<schema of the tenant>.`

// refusals maps the router's reasons. "%t" stands for the tenant and "%s" for where it was named.
var refusals = map[error]verdict{
	router.ErrNoTenant:        {code: "28000", message: `no tenant named in the startup parameters`, hint: howToNameATenant, reason: metrics.ReasonNoTenant},
	router.ErrTenantConflict:  {code: "28000", message: `the startup parameters name different tenants`, hint: "Name the tenant once, or the same everywhere.", reason: metrics.ReasonTenantConflict},
	router.ErrInvalidTenant:   {code: "28000", message: `invalid tenant id %t from %s`, hint: howToNameATenant, reason: metrics.ReasonNoTenant},
	router.ErrNoUser:          {code: "28000", message: `no PostgreSQL user name specified in startup packet`, reason: metrics.ReasonUnknownLogin},
	router.ErrUserContext:     {code: "28000", message: `no user context in the startup parameters`, hint: "Set docex.user_id, as a startup parameter or in options.", reason: metrics.ReasonSetting},
	router.ErrSystemTenant:    {code: "42501", message: `system tenant %t from %s cannot be used for business operations`, hint: "Use a provisioned business tenant instead.", reason: metrics.ReasonSystemTenant},
	router.ErrUnknownTenant:   {code: "3D000", message: `tenant %t is not provisioned`, hint: "It was named by %s. Provision it with: docexctl tenant create %i", reason: metrics.ReasonUnknownTenant},
	router.ErrUnknownLogin:    {code: "28P01", reason: metrics.ReasonUnknownLogin},
	router.ErrNotPermitted:    {code: "28P01", reason: metrics.ReasonNotPermitted},
	router.ErrLoginExpired:    {code: "28P01", reason: metrics.ReasonExpired},
	router.ErrNotAdopted:      {code: "55000", message: `tenant %t has no route`, hint: "DocEX made it without docexctl; run: docexctl tenant adopt %i", reason: metrics.ReasonNotAdopted},
	router.ErrSuspended:       {code: "55000", message: `tenant %t is suspended`, hint: "It was named by %s. Ask the operator, who can run: docexctl tenant resume %i", reason: metrics.ReasonSuspended},
	router.ErrDeleted:         {code: "55000", message: `tenant %t is deleted`, hint: "It was named by %s. Within the grace period the operator can run: docexctl tenant restore %i", reason: metrics.ReasonDeleted},
	router.ErrProvisioning:    {code: "55000", message: `tenant %t is still being provisioned`, hint: "It was named by %s. Try again in a moment.", reason: metrics.ReasonProvisioning},
	router.ErrMoving:          {code: "57P03", message: `tenant %t is moving to another server`, hint: "It was named by %s. Try again in a moment.", reason: metrics.ReasonMoving},
	router.ErrUnsupported:     {code: "0A000", message: `not supported through the proxy: %d`, reason: metrics.ReasonUnsupported},
	router.ErrUnknownIsolate:  {code: "0A000", message: `isolation level "%d" of tenant %t is not served by this proxy`, reason: metrics.ReasonUnsupported},
	router.ErrNotAllowed:      {code: "0A000", message: `isolation level "%d" of tenant %t is not allowed by this proxy`, hint: "auth.allow_trusted allows it; it stops mistakes, not hostile SQL.", reason: metrics.ReasonUnsupported},
	router.ErrWrongDatabase:   {code: "3D000", message: `database %d does not hold tenant %t`, hint: "Leave the database out, or name the tenant's own (docexctl tenant show %i).", reason: metrics.ReasonUnknownTenant},
	router.ErrBadOptions:      {code: "08P01", message: `startup parameter "options": %d`, hint: "Only -c name=value and --name=value are understood.", reason: metrics.ReasonSetting},
	router.ErrSettingRefused:  {code: "42501", message: `startup parameter %d cannot be set through the proxy`, reason: metrics.ReasonSetting},
	router.ErrPoolMode:        {code: "22023", message: `there is no pool mode %d, which startup parameter "docex.pool_mode" asks for`, hint: "It is transaction or session.", reason: metrics.ReasonSetting},
	router.ErrRoute:           {code: "22023", message: `there is no route %d, which startup parameter "docex.route" asks for`, hint: "It is primary or replica.", reason: metrics.ReasonSetting},
	router.ErrNoReplica:       {code: "0A000", message: `server %d of tenant %t has no replica`, hint: "Leave startup parameter docex.route out. The operator can name a replica: servers.NAME.replica.", reason: metrics.ReasonUnsupported},
	router.ErrRegistryOffline: {code: "08006", message: `the tenant registry cannot be reached`, hint: "Try again in a moment.", reason: metrics.ReasonRegistry},
}

// own maps this room's decisions.
var own = map[error]verdict{
	errShutdown:            {code: "57P01", message: "terminating connection due to administrator command", reason: metrics.ReasonShutdown},
	errKilled:              {code: "57P01", message: "terminating connection due to administrator command", reason: metrics.ReasonKilled},
	errTooManyClients:      {code: "53300", message: "too many client connections", hint: "limits.clients bounds them.", reason: metrics.ReasonLimit},
	errTooManyStartups:     {code: "53300", message: "too many client connections are logging in", hint: "Try again in a moment; limits.startups bounds them.", reason: metrics.ReasonLimit},
	errTenantClients:       {code: "53300", message: "too many sessions of this tenant", hint: "limits.tenant_clients bounds them, or max_clients of the tenant itself.", reason: metrics.ReasonLimit},
	errTLSRequired:         {code: "28000", message: "this proxy takes TLS connections only", hint: "Connect with sslmode=require or stricter.", reason: metrics.ReasonTLSRequired},
	errStartupTimeout:      {code: "08P01", message: "no startup packet in time", reason: metrics.ReasonTimeout},
	errAuthTimeout:         {code: "08P01", message: "authentication was not completed in time", reason: metrics.ReasonTimeout},
	errFrameTimeout:        {code: "08P01", message: "a message was begun and not completed in time", reason: metrics.ReasonTimeout},
	errClientIdle:          {code: "57P05", message: "terminating connection due to idle-session timeout", reason: metrics.ReasonTimeout},
	errIdleTransaction:     {code: "25P03", message: "terminating connection due to idle-in-transaction timeout", reason: metrics.ReasonTimeout},
	errQueryTimeout:        {code: "57014", message: "terminating connection: the query took longer than the proxy allows", hint: "timeouts.query bounds it. Whether it was executed is not known.", reason: metrics.ReasonTimeout},
	errTransactionTimeout:  {code: "25P04", message: "terminating connection due to transaction timeout", hint: "timeouts.transaction bounds it.", reason: metrics.ReasonTimeout},
	errIsolationChanged:    {code: "57P01", message: "terminating connection: the isolation level of the tenant has changed", hint: "Connect again.", reason: metrics.ReasonShutdown},
	errCanceled:            {code: "57014", message: "canceling statement due to user request", reason: metrics.ReasonLimit},
	errServerClosed:        {code: "08006", message: "the server closed the connection unexpectedly", hint: "Connect again.", reason: metrics.ReasonServer},
	scram.ErrWrongPassword: {code: "28P01", reason: metrics.ReasonBadPassword},
	scram.ErrProtocol:      {code: "08P01", message: "malformed SCRAM message", reason: metrics.ReasonProtocol},
}

// judge is the one place that turns an error into what a client, a metric and a log get to know. user is the name
// that the client gave, which the message of a failed authentication repeats, as Postgres does.
func judge(err error, user string, expose bool) verdict {
	var refusal *router.Refusal
	var ended *endedError
	var machine *relay.Error
	var protocol *protocolError
	var throttled *throttledError
	var rate *rateError
	var wait *pool.QueueError
	var connect *pool.ConnectError
	switch {
	case errors.As(err, &ended):
		v := refusalVerdict(ended.refusal, user, true)
		v.detail, v.code = v.message, "57P01"
		v.message = "terminating connection due to administrator command"
		return v
	case errors.As(err, &refusal):
		return refusalVerdict(refusal, user, expose)
	case errors.As(err, &machine):
		return verdict{code: machine.Code, message: machine.Message, hint: machine.Hint, reason: metrics.ReasonProtocol}
	case errors.As(err, &protocol):
		return verdict{code: "08P01", message: protocol.reason, reason: metrics.ReasonProtocol}
	case errors.As(err, &throttled):
		return verdict{code: "53300", reason: metrics.ReasonThrottled, hint: fmt.Sprintf("Try again in %s.", throttled.wait.Round(time.Second)+time.Second),
			message: "too many failed logins from this address for this tenant"}
	case errors.As(err, &rate) && errors.Is(err, errQueueWait):
		return verdict{code: "53300", reason: metrics.ReasonLimit, hint: "rate of the tenant in the registry bounds it; timeouts.queue_wait bounds the wait.",
			message: fmt.Sprintf("the tenant has used up its %g transactions a second for longer than one may wait", rate.rate)}
	case errors.As(err, &wait) && errors.Is(err, errQueueWait):
		return verdict{code: "53300", reason: metrics.ReasonLimit, hint: "More server connections, or shorter transactions; timeouts.queue_wait bounds the wait.",
			message: fmt.Sprintf("no server connection became free in %s", wait.Waited.Round(time.Millisecond))}
	case errors.As(err, &connect):
		return verdict{code: "08006", reason: metrics.ReasonServer, hint: "Try again in a moment.",
			message: fmt.Sprintf("cannot connect to server %q", connect.Server)}
	case errors.Is(err, pool.ErrClosed):
		err = errShutdown
	}
	for known, v := range own {
		if errors.Is(err, known) {
			return v.named(nil, user)
		}
	}
	return verdict{code: "58000", message: "internal error of the proxy", reason: metrics.ReasonInternal}
}

func refusalVerdict(r *router.Refusal, user string, expose bool) verdict {
	v, ok := refusals[r.Err]
	if !ok {
		return verdict{code: "58000", message: "internal error of the proxy", reason: metrics.ReasonInternal}
	}
	if r.Err == router.ErrUnknownTenant && !expose {
		v.code, v.message, v.hint = "28P01", "", ""
	}
	if r.Err == router.ErrTenantConflict {
		v.detail = fmt.Sprintf("%q from %s; %s.", string(r.Tenant), r.Source, r.Detail)
	}
	if r.Err == router.ErrInvalidTenant {
		v.detail = r.Detail
	}
	return v.named(r, user)
}

// named fills the placeholders in.
func (v verdict) named(r *router.Refusal, user string) verdict {
	if v.code == "28P01" {
		v.message = fmt.Sprintf("password authentication failed for user %q", user)
		return v
	}
	if r != nil {
		fill := strings.NewReplacer("%t", fmt.Sprintf("%q", string(r.Tenant)), "%i", string(r.Tenant), "%s", r.Source, "%d", r.Detail)
		v.message, v.hint = fill.Replace(v.message), fill.Replace(v.hint)
	}
	return v
}

// response writes the verdict as an error that ends the session.
func (v verdict) response() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: v.code, Message: v.message, Detail: v.detail, Hint: v.hint,
	}
}

// encode writes messages one behind the other.
func encode(messages ...pgproto3.BackendMessage) (b []byte, err error) {
	for _, m := range messages {
		if b, err = m.Encode(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// relayed makes an error of a verdict that leaves the session alive.
func (v verdict) relayed() *relay.Error {
	return &relay.Error{Severity: "ERROR", Code: v.code, Message: v.message, Hint: v.hint}
}

// timedOut replaces the error of a read or write that ran into its deadline.
func timedOut(err, instead error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return instead
	}
	return err
}

// ended gives the reason why a context has ended, or the error that was seen first.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
