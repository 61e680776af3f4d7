package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/docex-proxy/docex-proxy/internal/secret"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/provision/sqlite"
	"github.com/docex-proxy/docex-proxy/registry"
)

// change runs one change of a tenant, and shows what it is then.
func (c *cli) change(ctx context.Context, r provision.ChangeRequest, done string) error {
	if done, err := c.files(func(i sqlite.Installation) error { return c.filesChange(ctx, i, r, done) }); done {
		return err
	}
	provisioner, err := c.provisioner(secret.Key{}, false) // the registry alone is written to
	if err != nil {
		return err
	}
	tenant, err := provisioner.ChangeTenant(ctx, r)
	if err != nil {
		return err
	}
	view := viewTenant(tenant)
	return c.print(view, func(w io.Writer) { view.writeLines(w, fmt.Sprintf("Tenant '%s' %s", view.TenantID, done)) })
}

func (c *cli) tenantSuspendCommand() *cobra.Command {
	return c.statusCommand("suspend", "Refuse a tenant's sessions, and end those that are open",
		"suspend has proxies refuse the tenant with 55000 and end its sessions at once. Nothing of its data is touched.", provision.Suspend, "is suspended")
}

func (c *cli) tenantResumeCommand() *cobra.Command {
	return c.statusCommand("resume", "Serve a suspended tenant again", "resume takes back what suspend did.", provision.Resume, "is active")
}

func (c *cli) statusCommand(verb, short, long string, transition provision.Transition, done string) *cobra.Command {
	var actor string
	command := &cobra.Command{
		Use: verb + " ID", Short: short, Long: long, Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			// The id is not parsed: the registry decides, as for tenant show.
			return c.change(command.Context(), provision.ChangeRequest{ID: registry.TenantID(args[0]), Actor: actor, Transition: transition}, done)
		},
	}
	command.Flags().StringVar(&actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	return command
}

// updateFlags are the flags of the verb tenant update.
type updateFlags struct {
	actor, displayName string
	limits             registry.Limits
}

// limitFlags are the flags of limits, with what each of them sets.
func (f *updateFlags) limitFlags(flags *pflag.FlagSet) map[string]func(*registry.Limits) {
	l := &f.limits
	flags.IntVar(&l.MaxServerConnections, "max-server-connections", 0, "`N` server connections at most, from each proxy")
	flags.IntVar(&l.MaxClients, "max-clients", 0, "`N` sessions at most, on each proxy")
	flags.StringVar((*string)(&l.PoolMode), "pool-mode", "", "`MODE` of sessions that do not say: transaction or session")
	flags.Float64Var(&l.Rate, "rate", 0, "`N` transactions a second at most, on each proxy; those above it wait")
	for name, field := range map[string]*registry.Duration{
		"queue-wait": &l.QueueWait, "query-timeout": &l.Query, "transaction-timeout": &l.Transaction,
		"idle-transaction-timeout": &l.IdleTransaction, "client-idle-timeout": &l.ClientIdle,
	} {
		flags.DurationVar((*time.Duration)(field), name, 0, "in the place of the proxy's timeouts."+strings.ReplaceAll(strings.TrimSuffix(name, "-timeout"), "-", "_"))
	}
	return map[string]func(*registry.Limits){
		"max-server-connections":   func(to *registry.Limits) { to.MaxServerConnections = l.MaxServerConnections },
		"max-clients":              func(to *registry.Limits) { to.MaxClients = l.MaxClients },
		"pool-mode":                func(to *registry.Limits) { to.PoolMode = l.PoolMode },
		"rate":                     func(to *registry.Limits) { to.Rate = l.Rate },
		"queue-wait":               func(to *registry.Limits) { to.QueueWait = l.QueueWait },
		"query-timeout":            func(to *registry.Limits) { to.Query = l.Query },
		"transaction-timeout":      func(to *registry.Limits) { to.Transaction = l.Transaction },
		"idle-transaction-timeout": func(to *registry.Limits) { to.IdleTransaction = l.IdleTransaction },
		"client-idle-timeout":      func(to *registry.Limits) { to.ClientIdle = l.ClientIdle },
	}
}

func (c *cli) tenantUpdateCommand() *cobra.Command {
	var f updateFlags
	var sets map[string]func(*registry.Limits)
	command := &cobra.Command{
		Use:   "update ID",
		Short: "Change a tenant's display name or limits",
		Long: `update changes what is named and leaves the rest. Limits of 0 go back to the proxy's own. New sessions have the new pool
mode, and are counted; the other limits hold for open sessions too, from their next transaction on.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			request, err := f.request(command.Flags().Changed, sets)
			if err != nil {
				return err
			}
			request.ID = registry.TenantID(args[0])
			return c.change(command.Context(), request, "updated")
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.actor, "by", "cli_user", "`NAME` of who does it, for the registry")
	flags.StringVar(&f.displayName, "display-name", "", "`NAME` for people")
	sets = f.limitFlags(flags)
	return command
}

// request reads the flags that were given.
func (f *updateFlags) request(given func(string) bool, sets map[string]func(*registry.Limits)) (provision.ChangeRequest, error) {
	r := provision.ChangeRequest{Actor: f.actor}
	if given("display-name") {
		if f.displayName == "" {
			return r, usagef("--display-name cannot be empty")
		}
		r.DisplayName = &f.displayName
	}
	if err := f.limits.Check(); err != nil {
		return r, &usageError{err}
	}
	var wanted []func(*registry.Limits)
	for name, set := range sets {
		if given(name) {
			wanted = append(wanted, set)
		}
	}
	if len(wanted) > 0 {
		r.Limits = func(limits *registry.Limits) {
			for _, set := range wanted {
				set(limits)
			}
		}
	}
	if r.DisplayName == nil && r.Limits == nil {
		return r, usagef("name what to change: --display-name or a limit")
	}
	return r, nil
}
