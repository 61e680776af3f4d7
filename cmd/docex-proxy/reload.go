package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/docex-proxy/docex-proxy/configs"
	"github.com/docex-proxy/docex-proxy/proxy"
)

// reloadable are the keys that take effect without a new start.
var reloadable = []string{
	"auth.trust", "auth.admins", "auth.expose_tenant_errors", "limits.clients", "limits.startups", "limits.tenant_clients",
}

func policyOf(config *configs.Config) proxy.Policy {
	return proxy.Policy{
		TrustLogins:        config.Auth.Trust,
		Admins:             config.Auth.Admins,
		ExposeTenantErrors: config.Auth.ExposeTenantErrors,
		MaxClients:         config.Limits.Clients,
		MaxStartups:        config.Limits.Startups,
		TenantClients:      config.Limits.TenantClients,
	}
}

// reloadOnHangup reloads at each SIGHUP, until ctx ends.
func (g *graph) reloadOnHangup(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			g.reload() //nolint:errcheck // it is in the log
		}
	}
}

// reload reads the configuration again, takes what can be taken while the proxy runs, and forgets what is cached of the
// registry. A configuration that is wrong changes nothing.
func (g *graph) reload() error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	if g.load != nil {
		config, err := g.load()
		if err != nil {
			g.logger.Error("the configuration is not reloaded, the old one stays", "error", err)
			return err
		}
		taken, waiting := changed(g.config.Load(), config)
		g.proxy.SetPolicy(policyOf(config))
		running := *g.config.Load()
		running.Auth.Trust, running.Auth.Admins, running.Auth.ExposeTenantErrors = config.Auth.Trust, config.Auth.Admins, config.Auth.ExposeTenantErrors
		running.Limits.Clients, running.Limits.Startups, running.Limits.TenantClients = config.Limits.Clients, config.Limits.Startups, config.Limits.TenantClients
		g.config.Store(&running)
		g.logger.Info("configuration reloaded", "changed", taken)
		if len(waiting) > 0 {
			g.logger.Warn("changed in the configuration, and taken at the next start", "keys", waiting)
		}
	}
	g.registryConnected()
	return nil
}

// changed lists the keys that differ: those that can be taken, and those that wait for a new start.
func changed(before, after *configs.Config) (taken, waiting []string) {
	values := make(map[string]string)
	for _, s := range before.Settings() {
		values[s.Key] = s.Value
	}
	for _, s := range after.Settings() {
		value, known := values[s.Key]
		delete(values, s.Key)
		switch {
		case known && value == s.Value:
		case slices.Contains(reloadable, s.Key):
			taken = append(taken, s.Key)
		default:
			waiting = append(waiting, s.Key)
		}
	}
	for key := range values { // a server that is not there any more
		waiting = append(waiting, key)
	}
	slices.Sort(waiting)
	return taken, waiting
}

// hangups is told of each SIGHUP, which ends the process no longer. stop undoes that.
func hangups() (signals <-chan os.Signal, stop func()) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP)
	return told, func() { signal.Stop(told) }
}
