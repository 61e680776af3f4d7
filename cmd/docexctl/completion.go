package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
)

// completionPatience bounds what a shell waits for while somebody types.
const completionPatience = 2 * time.Second

type completer = func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeArgument has the shell offer what names lists for a command's one argument.
func (c *cli) completeArgument(names func(context.Context, *registry.Store) ([]string, error)) completer {
	offer := c.complete(names)
	return func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(command, args, begun)
	}
}

// complete reads the registry. Where that cannot be done nothing is offered: a prompt is no place for errors.
func (c *cli) complete(names func(context.Context, *registry.Store) ([]string, error)) completer {
	return func(command *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(command.Context(), completionPatience)
		defer cancel()
		var offered []string
		err := c.withStore(ctx, func(store *registry.Store) error {
			all, err := names(ctx, store)
			for _, name := range all {
				if strings.HasPrefix(name, begun) {
					offered = append(offered, name)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// tenantIDs are the ids of all tenants but the system's, with their display names, which shells show beside.
func tenantIDs(ctx context.Context, store *registry.Store) ([]string, error) {
	tenants, err := store.Tenants(ctx)
	var names []string
	for _, t := range tenants {
		if !t.IsSystem {
			names = append(names, string(t.ID)+"\t"+t.DisplayName)
		}
	}
	return names, err
}

func loginNames(ctx context.Context, store *registry.Store) ([]string, error) {
	logins, err := store.Logins(ctx)
	var names []string
	for _, l := range logins {
		names = append(names, l.Name)
	}
	return names, err
}

// offerNames sets what shells complete for the commands below: ids of tenants and names of logins that there are, and the
// words that flags take.
func (c *cli) offerNames(command *cobra.Command) {
	for _, verb := range command.Commands() {
		c.offerNames(verb)
	}
	words := strings.Fields(command.Use)
	switch {
	case command.Name() == "create" || len(words) < 2:
	case strings.HasPrefix(words[1], "ID"):
		command.ValidArgsFunction = c.completeArgument(tenantIDs)
	case words[1] == "NAME":
		command.ValidArgsFunction = c.completeArgument(loginNames)
	}
	for flag, offer := range map[string]completer{
		"canary": c.complete(tenantIDs), "tenant": c.complete(tenantIDs),
		"isolation": fixed("role", "slot", "database", "trusted"), "pool-mode": fixed("transaction", "session"),
		"place":  fixed(string(provision.PlaceLeastTenants), string(provision.PlaceLeastBytes)),
		"output": fixed(formatTable, formatJSON, formatYAML),
	} {
		if command.LocalFlags().Lookup(flag) != nil {
			command.RegisterFlagCompletionFunc(flag, offer) //nolint:errcheck // the flag is there
		}
	}
}

func fixed(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
