package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

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
	actor, displayName, poolMode  string
	serverConnections, maxClients int
}

func (c *cli) tenantUpdateCommand() *cobra.Command {
	var f updateFlags
	command := &cobra.Command{
		Use:   "update ID",
		Short: "Change a tenant's display name or limits",
		Long: `update changes what is named and leaves the rest. Limits of 0 go back to the proxy's own. New sessions have the new pool
mode; the other limits hold for open sessions too.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			request, err := f.request(command.Flags().Changed)
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
	flags.IntVar(&f.serverConnections, "max-server-connections", 0, "`N` server connections at most, from each proxy")
	flags.IntVar(&f.maxClients, "max-clients", 0, "`N` sessions at most, on each proxy")
	flags.StringVar(&f.poolMode, "pool-mode", "", "`MODE` of sessions that do not say: transaction or session")
	return command
}

// request reads the flags that were given.
func (f updateFlags) request(given func(string) bool) (provision.ChangeRequest, error) {
	r := provision.ChangeRequest{Actor: f.actor}
	if given("display-name") {
		if f.displayName == "" {
			return r, usagef("--display-name cannot be empty")
		}
		r.DisplayName = &f.displayName
	}
	mode := registry.PoolMode(f.poolMode)
	switch {
	case f.serverConnections < 0 || f.maxClients < 0:
		return r, usagef("a limit is 0, for the proxy's own, or more")
	case given("pool-mode") && mode != registry.PoolTransaction && mode != registry.PoolSession:
		return r, usagef("the pool modes are %s and %s, not %q", registry.PoolTransaction, registry.PoolSession, f.poolMode)
	}
	if given("max-server-connections") || given("max-clients") || given("pool-mode") {
		r.Limits = func(limits *registry.Limits) {
			if given("max-server-connections") {
				limits.MaxServerConnections = f.serverConnections
			}
			if given("max-clients") {
				limits.MaxClients = f.maxClients
			}
			if given("pool-mode") {
				limits.PoolMode = mode
			}
		}
	}
	if r.DisplayName == nil && r.Limits == nil {
		return r, usagef("name what to change: --display-name, --max-server-connections, --max-clients or --pool-mode")
	}
	return r, nil
}
