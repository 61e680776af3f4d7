package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/docex-proxy/docex-proxy/internal/buildinfo"
	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/proxy/admin"
	"github.com/docex-proxy/docex-proxy/registry"
	"github.com/docex-proxy/docex-proxy/router"
)

// console is what the administrators' console shows of a graph, and does to it.
type console struct {
	*graph
	routes   *router.Router
	known    map[string]pool.Server // by their names
	replicas map[string]string      // of these
	shutdown atomic.Pointer[func()] // set while the graph runs
}

func (c *console) build() *admin.Console {
	return admin.New(admin.Options{
		Version: buildinfo.Version(),
		Tenants: c.tenants, Pools: c.pooled, Sessions: c.sessions, Servers: c.servers, Settings: c.settings, Peers: c.peers,
		Kill: c.kill, Reconnect: c.reconnect, WaitClose: c.waitClose, Pause: c.pause, Resume: c.resume, Paused: c.pools.Paused, Reload: c.reload, Shutdown: c.end, Explain: c.explain,
	})
}

func (c *console) tenants() []admin.Tenant {
	var all []admin.Tenant
	for _, t := range c.metrics.Tenants() {
		all = append(all, admin.Tenant{Name: t.Name, Sessions: t.Sessions, Transactions: t.Transactions, Received: t.Received, Sent: t.Sent, Waited: t.Waited})
	}
	return all
}

func (c *console) pooled() []admin.Pool {
	stats := c.pools.Stats()
	all := make([]admin.Pool, len(stats))
	replicas := slices.Collect(maps.Values(c.replicas))
	for i, s := range stats {
		all[i] = admin.Pool{
			Tenant: s.Target.Tenant, Role: s.Target.Role, Server: s.Target.Server, Database: s.Target.Database, Isolation: levelOf(s.Target),
			Replica: slices.Contains(replicas, s.Target.Server), Idle: s.Idle, Active: s.Active, Connecting: s.Connecting, Waiting: s.Waiting,
		}
	}
	return all
}

// levelOf is how a target's connections are kept apart. A tenant with a database of its own has a role, as others do.
func levelOf(t pool.Target) string {
	switch {
	case t.Slot:
		return string(registry.IsolationSlot)
	case t.Shared:
		return string(registry.IsolationTrusted)
	default:
		return string(registry.IsolationRole)
	}
}

func (c *console) sessions() []admin.Session {
	infos := c.proxy.Sessions()
	all := make([]admin.Session, len(infos))
	for i, s := range infos {
		all[i] = admin.Session{
			ID: s.ID, Tenant: string(s.Tenant), User: s.Login, Application: s.Application, Address: s.Remote, Began: s.Began,
			TLS: s.TLS, OwnConnection: s.OwnConnection, Replica: s.Replica, Pins: s.Pins,
		}
	}
	return all
}

func (c *console) servers() []admin.Server {
	var all []admin.Server
	for name, s := range c.known {
		host := c.pools.Host(name)
		all = append(all, admin.Server{Name: name, Host: host.Name, Port: host.Port, Max: s.MaxConnections})
	}
	return all
}

func (c *console) peers() []admin.Peer {
	var all []admin.Peer
	for _, p := range c.fleet.Peers() {
		host, text, _ := net.SplitHostPort(p.Address)
		port, _ := strconv.ParseUint(text, 10, 16) // as it was checked where it was configured; else 0
		all = append(all, admin.Peer{Number: p.Number, Host: host, Port: uint16(port)})
	}
	return all
}

func (c *console) settings() []admin.Setting {
	var all []admin.Setting
	for _, s := range c.config.Load().Settings() {
		all = append(all, admin.Setting(s))
	}
	return all
}

func (c *console) kill(tenant string) int {
	n := c.proxy.EndSessions(registry.TenantID(tenant))
	c.reconnect(tenant)
	c.logger.Info("sessions ended by an administrator", "tenant", tenant, "sessions", n)
	return n
}

func (c *console) reconnect(tenant string) { c.pools.Drain(tenant) }

func (c *console) waitClose(ctx context.Context, tenant string) error {
	return c.pools.AwaitDrain(ctx, tenant)
}

func (c *console) pause(ctx context.Context, tenant string) error {
	if !c.pools.Pause(tenant) {
		return errors.New("it is already")
	}
	c.reconnect(tenant)
	if err := c.pools.Quiesce(ctx, tenant); err != nil {
		c.pools.Resume(tenant)
		return fmt.Errorf("server connections are in use: %w", err)
	}
	c.logger.Info("paused by an administrator", "tenant", tenant)
	return nil
}

func (c *console) resume(tenant string) bool {
	resumed := c.pools.Resume(tenant)
	if resumed {
		c.logger.Info("resumed by an administrator", "tenant", tenant)
	}
	return resumed
}

// reload is what SIGHUP does.
func (c *console) reload(context.Context) error { return c.graph.reload() }

func (c *console) end() {
	if f := c.shutdown.Load(); f != nil {
		(*f)()
	}
}

// explain routes as for a client, and says nothing that a password would be needed for but to an administrator.
func (c *console) explain(ctx context.Context, parameters map[string]string) ([][2]string, error) {
	route, err := c.routes.Route(ctx, router.Startup{Parameters: parameters})
	if errors.Is(err, router.ErrRegistryOffline) {
		return nil, err
	}
	if err == nil && route.Denied != nil {
		err = route.Denied
	}
	if err != nil {
		return [][2]string{{"served", "no"}, {"reason", err.Error()}}, nil
	}
	lines := [][2]string{
		{"served", "yes"},
		{"tenant", string(route.Tenant.ID)},
		{"named in", route.Source},
		{"login", route.User},
		{"server", route.Target.Server},
		{"database", route.Target.Database},
		{"role", route.Tenant.Route.Role},
		{"isolation", string(route.Tenant.Route.Isolation)},
		{"max server connections", fmt.Sprint(route.MaxConnections)},
	}
	if route.Held {
		lines = append(lines, [2]string{"held", "the tenant is moving: new transactions wait"})
	}
	for _, name := range slices.Sorted(maps.Keys(route.Settings)) {
		lines = append(lines, [2]string{"setting " + name, route.Settings[name]})
	}
	return lines, nil
}
