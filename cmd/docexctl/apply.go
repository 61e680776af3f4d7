package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// applyFlags are the flags of the verb tenant apply, and of tenant create --from.
type applyFlags struct {
	file, actor, schemaSQL string
	place                  string
	exclude                []string
	parallel               int
	dryRun                 bool
	createOnly             bool
}

func (c *cli) tenantApplyCommand() *cobra.Command {
	var f applyFlags
	command := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create and change tenants until they are as a file says",
		Long: `apply compares a file of tenants with the registry, prints what is to be done, and does it. Tenants that the file does not
name are left alone, and so is what it does not say of a tenant. Nothing is purged: status deleted keeps the data. What
fails is skipped, with exit code 5; run it again to go on.

  tenants:
    - id: acme
      display_name: Acme Corp
      isolation: slot          # role (default), slot, database or trusted; cannot be changed
      server: main             # likewise
      database: tenant_acme    # at isolation database, likewise
      status: active           # or suspended, or deleted
      limits: {max_clients: 50, max_server_connections: 5, pool_mode: transaction}`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			if f.file == "" {
				return usagef("name the file: -f FILE, or -f - for standard input")
			}
			return c.tenantApply(command.Context(), f)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "the `FILE` of tenants, in YAML or one ID a line; - is standard input")
	flags.IntVar(&f.parallel, "parallel", defaultParallel, "`N` tenants at a time")
	flags.StringVar(&f.schemaSQL, "schema-sql", "", "make new tenants' tables with the files in `DIR` instead of DocEX's")
	addPlace(flags, &f.place, &f.exclude)
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what is to be done and change nothing")
	return command
}

// plannedTenant is what is to be done to one tenant, and what has become of it.
type plannedTenant struct {
	TenantID string   `json:"tenant_id"`
	Action   string   `json:"action"` // create, change, nothing or conflict
	Changes  []string `json:"changes"`
	Done     bool     `json:"done"`

	create provision.TenantRequest
	steps  []provision.ChangeRequest
}

func (p plannedTenant) writeLine(w io.Writer) {
	if p.Action != "nothing" {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.TenantID, p.Action, strings.Join(p.Changes, ", "))
	}
}

func (c *cli) tenantApply(ctx context.Context, f applyFlags) error {
	if f.parallel < 1 {
		return usagef("--parallel is 1 at least")
	}
	if err := (provision.TenantRequest{Place: provision.Policy(f.place), Exclude: f.exclude}).CheckPlace(); err != nil {
		return err
	}
	wanted, err := c.readTenants(f.file)
	if err != nil {
		return err
	}
	plan, err := c.plan(ctx, wanted, f)
	if err != nil {
		return err
	}
	if f.dryRun {
		return joinErrors(c.printPlan(plan), c.nothingChanged())
	}
	key, err := c.loadKey()
	if err != nil {
		return err
	}
	provisioner, err := c.provisionerFor(key, false, f.parallel)
	if err != nil {
		return err
	}
	defer provisioner.Close(ctx)
	outcome := c.carryOut(ctx, provisioner, plan, f.parallel)
	return joinErrors(c.printPlan(plan), outcome.err("as the file says"))
}

// plan compares the file with the registry. It changes nothing.
func (c *cli) plan(ctx context.Context, wanted []wantedTenant, f applyFlags) ([]*plannedTenant, error) {
	template, err := c.schemaTemplate()
	if err != nil {
		return nil, err
	}
	tables, err := provision.LoadTemplate(f.schemaSQL)
	if err != nil {
		return nil, err
	}
	tenants, err := c.tenants(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]*registry.Tenant)
	for _, t := range tenants {
		known[string(t.ID)] = t
	}
	plan := make([]*plannedTenant, len(wanted))
	for i, w := range wanted {
		plan[i] = w.compare(known[w.ID], f.actor)
		plan[i].create.SchemaTemplate, plan[i].create.Template = template, tables
		if plan[i].Action == "create" && f.place != "" && w.Server == "" {
			c.place(plan[i], f)
		}
		if f.createOnly && plan[i].Action == "change" { // it is there, which is all that was asked
			plan[i].Action, plan[i].Changes, plan[i].steps = "nothing", []string{}, nil
		}
	}
	return plan, nil
}

// place has the server of a new tenant chosen, and said when it is.
func (c *cli) place(p *plannedTenant, f applyFlags) {
	p.create.Place, p.create.Exclude = provision.Policy(f.place), f.exclude
	p.Changes = append(p.Changes, "server by "+f.place)
	said := len(p.Changes) - 1
	p.create.Placed = func(placed provision.Placement) {
		c.warnOfSilent(placed)
		p.Changes[said] = fmt.Sprintf("server %s (%s)", placed.Server, placed.Reason)
	}
}

// compare says what makes a tenant, nil for none, what is wanted.
func (w wantedTenant) compare(is *registry.Tenant, actor string) *plannedTenant {
	p := &plannedTenant{TenantID: w.ID, Action: "nothing", Changes: []string{}}
	id := registry.TenantID(w.ID)
	isolation, _ := (tenantFlags{isolation: w.Isolation}).level() // checked with the file
	change := provision.ChangeRequest{ID: id, Actor: actor}
	now := registry.StatusActive
	switch {
	case is == nil || is.Route != nil && is.Route.Status == registry.StatusProvisioning:
		if is == nil && w.Status == registry.StatusDeleted {
			return p
		}
		p.Action = "create"
		p.create = provision.TenantRequest{ID: id, DisplayName: w.DisplayName, CreatedBy: cmp.Or(w.CreatedBy, actor), Isolation: isolation, Server: w.Server, Database: w.Database}
		p.Changes = append(p.Changes, "isolation "+cmp.Or(string(isolation), "role"))
		is = &registry.Tenant{DisplayName: w.DisplayName, Route: &registry.Route{}}
	case is.IsSystem || is.Route == nil:
		return p.conflict("DocEX has made it, and it has no route: adopt it first")
	case isolation != "" && isolation != is.Route.Isolation:
		return p.conflict(fmt.Sprintf("is at isolation %s, not %s", is.Route.Isolation, isolation))
	case w.Server != "" && w.Server != is.Route.Server:
		return p.conflict(fmt.Sprintf("is on server %s, not %s", is.Route.Server, w.Server))
	case w.Database != "" && w.Database != is.Route.Database:
		return p.conflict(fmt.Sprintf("is in database %s, not %s", is.Route.Database, w.Database))
	default:
		now = is.Route.Status
	}
	if w.DisplayName != "" && w.DisplayName != is.DisplayName {
		change.DisplayName = &w.DisplayName
		p.Changes = append(p.Changes, fmt.Sprintf("display name %q", w.DisplayName))
	}
	if w.Limits != nil && registry.Limits(*w.Limits) != is.Route.Limits {
		change.Limits = func(limits *registry.Limits) { *limits = registry.Limits(*w.Limits) }
		p.Changes = append(p.Changes, "limits "+w.Limits.String())
	}
	if change.DisplayName != nil || change.Limits != nil {
		p.steps = append(p.steps, change)
	}
	for _, transition := range path(now, w.Status) {
		p.steps = append(p.steps, provision.ChangeRequest{ID: id, Actor: actor, Transition: transition})
		p.Changes = append(p.Changes, string(transition))
	}
	if p.Action == "nothing" && len(p.steps) > 0 {
		p.Action = "change"
	}
	return p
}

func (p *plannedTenant) conflict(reason string) *plannedTenant {
	p.Action, p.Changes = "conflict", []string{reason}
	return p
}

// path is how a status becomes the wanted one.
func path(now, wanted registry.Status) []provision.Transition {
	var steps []provision.Transition
	if wanted == "" || wanted == now {
		return nil
	}
	switch now {
	case registry.StatusDeleted:
		steps = append(steps, provision.Restore)
	case registry.StatusSuspended:
		if wanted == registry.StatusActive {
			steps = append(steps, provision.Resume)
		}
	}
	switch wanted {
	case registry.StatusSuspended:
		steps = append(steps, provision.Suspend)
	case registry.StatusDeleted:
		steps = append(steps, provision.Delete)
	}
	return steps
}

func (c *cli) carryOut(ctx context.Context, provisioner *provision.Provisioner, plan []*plannedTenant, parallel int) bulkOutcome {
	var names []string
	var mu sync.Mutex
	of := make(map[string]*plannedTenant)
	already := 0
	for _, p := range plan {
		if p.Action == "nothing" {
			p.Done = true
			already++
			continue
		}
		names, of[p.TenantID] = append(names, p.TenantID), p
	}
	outcome := c.bulk(ctx, bulk{what: "as the file says", parallel: parallel, fatal: hopeless}, names, func(ctx context.Context, name string) error {
		err := c.carryOutOne(ctx, provisioner, of[name])
		mu.Lock()
		defer mu.Unlock()
		of[name].Done = err == nil
		return err
	})
	outcome.done += already
	return outcome
}

// hopeless is an error that the other tenants would have too.
func hopeless(err error) bool {
	return is[*provision.KeyMismatchError](err) || errors.Is(err, provision.ErrNotInitialised)
}

func (c *cli) carryOutOne(ctx context.Context, provisioner *provision.Provisioner, p *plannedTenant) error {
	if p.Action == "conflict" {
		return &provision.ConflictError{Object: "tenant", Name: p.TenantID, Reason: strings.Join(p.Changes, ", ")}
	}
	if p.Action == "create" {
		p.create.IfNotExists = true // another run may be faster
		if _, err := provisioner.CreateTenant(ctx, p.create); err != nil {
			return c.explainKey(err)
		}
	}
	for _, step := range p.steps {
		if _, err := provisioner.ChangeTenant(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) printPlan(plan []*plannedTenant) error {
	return c.print(plan, func(w io.Writer) {
		if !slices.ContainsFunc(plan, func(p *plannedTenant) bool { return p.Action != "nothing" }) {
			fmt.Fprintf(w, "Nothing is to be done: %d tenants are as the file says\n", len(plan))
			return
		}
		fmt.Fprintln(w, "TENANT\tACTION\tCHANGES")
		for _, p := range plan {
			p.writeLine(w)
		}
	})
}
