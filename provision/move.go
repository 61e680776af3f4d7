package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/docex-proxy/docex-proxy/registry"
)

const (
	defaultHold = 10 * time.Second
	defaultKeep = 24 * time.Hour
)

// MoveRequest asks for a tenant on another server. Only ID and To are required.
type MoveRequest struct {
	ID     registry.TenantID
	To     string        // the proxy's name of the server: in Options.Servers, or "main" for DSN's
	Actor  string        // "": "cli_user"
	Hold   time.Duration // for how long each wait while the tenant is held may last; 0: 10 s
	Keep   time.Duration // for how long what is left on the old server shall be kept; 0: 24 h
	Verify Comparison    // "": snapshot

	Progress func(MoveProgress) // nil: nobody is told
}

// MoveProgress says what is being done.
type MoveProgress struct {
	What        string
	Done, Total int64 // bytes; 0: not measured
}

// MoveResult says what has become of a tenant.
type MoveResult struct {
	From, To  string
	Step      registry.MoveStep
	Tables    int
	Rows      int64         // that were counted, on both servers
	Summed    int           // tables whose rows were compared by checksum as well
	Bytes     int64         // of tables and indexes on the old server, when they were copied
	Held      time.Duration // for which new transactions of the tenant had to wait
	KeptUntil time.Time     // the old server's copy
}

// MoveTenant moves a tenant to another server while it is served. Its rows are copied by logical replication, which then
// follows; new transactions are held while the last changes arrive, sequences are set, both sides are compared and the
// route changes. Each step is in the registry before it is acted on: a run that is ended goes on with the same request.
// There are never two copies that the tenant can write to. What is on the old server stays there, closed, until FinishMove.
//
// It needs superusers on both servers, wal_level = logical on the old one, which the new one has to reach, and pg_dump and
// pg_restore in PATH.
//
// Errors: *InvalidRequestError, ErrNotFound, *ConflictError for what cannot be moved as it is, ErrNotInitialised.
func (p *Provisioner) MoveTenant(ctx context.Context, r MoveRequest) (MoveResult, error) {
	withDefault(&r.Verify, CompareSnapshot)
	if !r.Verify.valid() {
		return MoveResult{}, invalid("rows are compared %s, %s, %s or %s, not %q", CompareSnapshot, CompareFull, CompareCounts, CompareNone, r.Verify)
	}
	if r.To == "" {
		return MoveResult{}, invalid("name the server to move to")
	}
	m, err := p.beginMove(ctx, r)
	if err != nil {
		return MoveResult{}, err
	}
	defer m.close(ctx)
	if err := m.start(ctx); err != nil {
		return m.result(), err
	}
	for {
		step := m.record.Step
		for _, s := range m.steps(step) {
			if err := p.runStep(ctx, s); err != nil {
				return m.result(), m.explain(ctx, step, err)
			}
		}
		if step == registry.MoveKept {
			break
		}
	}
	p.logger.Info("tenant moved", slog.String("tenant", string(r.ID)), slog.String("from", m.record.From), slog.String("to", m.record.To),
		slog.Duration("held", m.result().Held))
	return m.result(), nil
}

// steps lists what is done at a step of the registry. The last one of each enters the next.
func (m *move) steps(at registry.MoveStep) []step {
	switch at {
	case registry.MovePreparing:
		return []step{
			{"look at both servers", m.examine},
			{"prepare the new server", m.prepare},
			{"make the roles that copy", m.createMovers},
			{"copy the structure", m.copyStructure},
			{"begin to copy", func(ctx context.Context) error { return m.enter(ctx, registry.MoveCopying, nil) }},
		}
	case registry.MoveCopying:
		return []step{
			{"publish the tables", m.publish},
			{"create the slot", m.createSlot},
			{"subscribe", m.subscribe},
			{"wait for the copy", m.awaitCopy},
			{"get ready", m.getReady},
			{"wait for what has been written since", m.awaitCopy}, // it would be waited for while writers are locked out
			{"compare at one moment", m.compareAtOnce},
			{"wait for the changes meanwhile", m.awaitCopy},
			{"hold the tenant", m.hold},
		}
	case registry.MoveHolding:
		return []step{
			{"close the old server", m.closeSource},
			{"wait for running transactions", m.drain},
			{"wait for the last change", m.awaitLastChange},
			{"copy the sequences", m.copySequences},
			{"compare", m.compare},
			{"end the subscription", m.endSubscription},
			{"begin to open", func(ctx context.Context) error { return m.enter(ctx, registry.MoveOpening, nil) }},
		}
	case registry.MoveOpening:
		return []step{
			{"see that the old server is closed", m.closeSource},
			{"open the new server", m.openTarget},
			{"change the route", m.flip},
		}
	case registry.MoveKept:
		return []step{{"tidy up", m.tidy}}
	}
	return nil
}

// move is one run of MoveTenant, AbortMove or FinishMove.
type move struct {
	*Provisioner
	request MoveRequest
	home    *side // in the registry's database; holds the tenant's lock, and writes the registry
	tenant  *registry.Tenant
	record  *registry.Move // nil: there is none that has not ended
	detail  moveDetail

	source, target *end
	examined       bool
	pairs          []pair    // for comparing
	heldSince      time.Time // by this run
}

// moveDetail is tenant_move.detail.
type moveDetail struct {
	Status     registry.Status   `json:"status"` // the tenant's before, and after
	Structure  string            `json:"structure,omitempty"`
	Identities []identity        `json:"identities,omitempty"` // that are FULL for as long as rows are copied
	AbortedAt  registry.MoveStep `json:"aborted_at,omitempty"`
	KeptUntil  *time.Time        `json:"kept_until,omitempty"`
	Tables     int               `json:"tables,omitempty"`
	Rows       int64             `json:"rows,omitempty"`
	Summed     int               `json:"summed,omitempty"`
	Bytes      int64             `json:"bytes,omitempty"`
	HeldFor    float64           `json:"held_seconds,omitempty"`
}

func (m *move) result() MoveResult {
	d := m.detail
	r := MoveResult{Tables: d.Tables, Rows: d.Rows, Summed: d.Summed, Bytes: d.Bytes, Held: time.Duration(d.HeldFor * float64(time.Second))}
	if m.record != nil {
		r.From, r.To, r.Step = m.record.From, m.record.To, m.record.Step
	}
	if d.KeptUntil != nil {
		r.KeptUntil = *d.KeptUntil
	}
	return r
}

// beginMove takes the tenant's lock for as long as the run, and reads what the registry knows.
func (p *Provisioner) beginMove(ctx context.Context, r MoveRequest) (_ *move, err error) {
	if err := checkText("actor", r.Actor); err != nil {
		return nil, err
	}
	if p.dryRun != nil {
		return nil, invalid("a move cannot be shown without being made")
	}
	withDefault(&r.Actor, defaultCreatedBy)
	if r.Hold <= 0 {
		r.Hold = defaultHold
	}
	if r.Keep <= 0 {
		r.Keep = defaultKeep
	}
	m := &move{Provisioner: p, request: r}
	if m.home, err = p.openStarted(ctx, "", ""); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.close(ctx)
		}
	}()
	err = m.home.lock(ctx, tenantLockClass, string(r.ID))
	if hasCode(err, lockNotAvailable) {
		return nil, &ConflictError{Object: "tenant", Name: string(r.ID), Reason: "is being worked on by another run of docexctl"}
	}
	if err != nil {
		return nil, err
	}
	if m.tenant, err = p.movable(ctx, r.ID); err != nil {
		return nil, err
	}
	return m, m.load(ctx)
}

// movable reads a tenant that has a route.
func (p *Provisioner) movable(ctx context.Context, id registry.TenantID) (*registry.Tenant, error) {
	tenants, err := p.tenantsNamed(ctx, []registry.TenantID{id})
	if err != nil {
		return nil, err
	}
	if tenants[0].Route == nil {
		return nil, &ConflictError{Object: "tenant", Name: string(id), Reason: "has no role of its own"}
	}
	return tenants[0], nil
}

func (m *move) conflict(format string, args ...any) error {
	return &ConflictError{Object: "tenant", Name: string(m.request.ID), Reason: fmt.Sprintf(format, args...)}
}

func (m *move) say(what string, done, total int64) {
	if m.request.Progress != nil {
		m.request.Progress(MoveProgress{What: what, Done: done, Total: total})
	}
}

func (m *move) close(ctx context.Context) {
	for _, p := range m.pairs {
		p.close(ctx)
	}
	for _, e := range []*end{m.source, m.target} {
		if e != nil {
			e.close(ctx)
		}
	}
	if m.home != nil {
		m.home.close(ctx)
	}
}

// explain takes a hold back that has failed, and says what is to be done.
func (m *move) explain(ctx context.Context, at registry.MoveStep, err error) error {
	switch at {
	case registry.MoveHolding:
		if left := m.release(ctx); left != nil {
			return errors.Join(err, fmt.Errorf("tenant '%s' is still held: the same command goes on, --abort takes the move back: %w", m.request.ID, left))
		}
		return fmt.Errorf("the move goes on with the same command; tenant '%s' is served by server %q as before: %w", m.request.ID, m.record.From, err)
	case registry.MoveOpening:
		return fmt.Errorf("tenant '%s' is held, and the same command goes on: %w", m.request.ID, err)
	case registry.MoveKept:
		return fmt.Errorf("tenant '%s' is served by server %q, but the same command has to tidy up yet: %w", m.request.ID, m.record.To, err)
	}
	return err
}

func (d moveDetail) encode() (json.RawMessage, error) { return json.Marshal(d) }
