package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/provision"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

func (c *cli) routeCommand() *cobra.Command {
	command := group(&cobra.Command{Use: "route", Short: "Explain where the proxy leads clients"})
	var config string
	explain := &cobra.Command{
		Use:   "explain DSN",
		Short: "Say what the proxy would do with a client's connection string",
		Long: `explain reads a connection string as a driver does, and decides as the proxy does, by the same code: which tenant it names
and where, whether the login may use it, and which role in which database its sessions become. Nothing is connected to but
the registry; the password is not looked at. Exit code 0 says that it would be served, 1 that it would be refused.`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(command *cobra.Command, args []string) error {
			return c.routeExplain(command.Context(), config, args[0])
		},
	}
	explain.Flags().StringVar(&config, "config", "", "the proxy's configuration `FILE`, where it is not the default about identity, limits and replicas")
	command.AddCommand(explain)
	return command
}

// explanation is what route explain prints.
type explanation struct {
	Served      bool              `json:"served"`
	Refusal     *string           `json:"refusal"` // null where it is served
	Told        string            `json:"told"`    // when a refusal is told: at once, or after authentication
	TenantID    *string           `json:"tenant_id"`
	NamedIn     *string           `json:"named_in"`
	Login       *string           `json:"login"`
	Server      *string           `json:"server"`
	Database    *string           `json:"database"`
	Role        *string           `json:"role"`
	Isolation   *string           `json:"isolation"`
	SearchPath  *string           `json:"search_path"`
	PoolMode    *string           `json:"pool_mode"`
	Held        bool              `json:"held"`                   // new transactions wait: the tenant is moving
	Connections int               `json:"max_server_connections"` // 0: the server's bound
	Settings    map[string]string `json:"settings"`
}

func (e explanation) writeLines(w io.Writer) {
	if e.Served {
		fmt.Fprintln(w, "Served")
	} else {
		fmt.Fprintf(w, "Refused %s: %s\n", e.Told, *e.Refusal)
	}
	for _, line := range []struct {
		name  string
		value *string
	}{
		{"Tenant", e.TenantID},
		{"Named In", e.NamedIn},
		{"Login", e.Login},
		{"Isolation", e.Isolation},
		{"Server", e.Server},
		{"Database", e.Database},
		{"Role", e.Role},
		{"Search Path", e.SearchPath},
		{"Pool Mode", e.PoolMode},
	} {
		if line.value != nil {
			fmt.Fprintf(w, "  %s:\t%s\n", line.name, *line.value)
		}
	}
	if e.Held {
		fmt.Fprintln(w, "  Held:\tthe tenant is moving, new transactions wait")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Settings)) {
		fmt.Fprintf(w, "  Setting:\t%s = %s\n", name, e.Settings[name])
	}
}

func (c *cli) routeExplain(ctx context.Context, configFile, text string) error {
	client, err := pgconn.ParseConfig(text)
	if err != nil {
		return usagef("the client's DSN: %w", err)
	}
	options, err := routerOptions(configFile)
	if err != nil {
		return err
	}
	return c.withStore(ctx, func(store *registry.Store) error {
		options.Registry = store
		route, err := router.New(options).Route(ctx, startupOf(client))
		view := explanation{Told: "at once"}
		refusal, refused := errors.AsType[*router.Refusal](err)
		switch {
		case refused && errors.Is(err, router.ErrRegistryOffline):
			return err
		case refused:
			view.TenantID, view.NamedIn = optional(string(refusal.Tenant)), optional(refusal.Source)
		case err != nil:
			return err
		default:
			view.describe(route)
			if refusal = route.Denied; refusal != nil {
				refused, view.Told = true, "after authentication"
			}
		}
		if !refused {
			view.Served, view.Told = true, ""
			return c.print(view, view.writeLines)
		}
		view.Refusal = optional(refusal.Error())
		return joinErrors(c.print(view, view.writeLines), fmt.Errorf("the proxy would refuse it: %w", refusal))
	})
}

// routerOptions are the proxy's, as far as a route depends on them.
func routerOptions(file string) (router.Options, error) {
	options := router.Options{UserSuffix: true, AllowTrusted: true, PoolRole: provision.PoolRole}
	if file == "" {
		return options, nil
	}
	config, err := configs.Load(file)
	if err != nil {
		return options, &usageError{err}
	}
	options.UserSuffix, options.SNIDomain, options.Database = config.Identity.UserSuffix, config.Identity.SNIDomain, config.Identity.Database
	options.RequireUserContext, options.AllowTrusted = config.Auth.RequireUserContext, config.Auth.AllowTrusted
	options.TenantConnections, options.Replicas = config.Limits.TenantServerConnections, config.Replicas()
	return options, nil
}

// startupOf is what a driver sends first.
func startupOf(client *pgconn.Config) router.Startup {
	parameters := maps.Clone(client.RuntimeParams)
	if parameters == nil {
		parameters = make(map[string]string)
	}
	parameters["user"], parameters["database"] = client.User, cmp.Or(client.Database, client.User)
	start := router.Startup{Parameters: parameters}
	if client.TLSConfig != nil {
		start.ServerName = client.TLSConfig.ServerName
	}
	return start
}

func (e *explanation) describe(route router.Route) {
	e.TenantID, e.NamedIn, e.Login = optional(string(route.Named)), optional(route.Source), optional(route.User)
	if route.Denied != nil || route.Tenant == nil {
		return
	}
	e.TenantID = optional(string(route.Tenant.ID))
	r := route.Tenant.Route
	e.Server, e.Database, e.Role, e.Isolation = optional(route.Target.Server), optional(r.Database), optional(r.Role), optional(string(r.Isolation))
	e.SearchPath = optional(cmp.Or(route.Target.SearchPath, route.Settings["search_path"]))
	mode := string(registry.PoolTransaction)
	if route.OwnConnection {
		mode = string(registry.PoolSession)
	}
	e.PoolMode, e.Held, e.Connections, e.Settings = &mode, route.Held, route.MaxConnections, route.Settings
}
