//go:build unix

package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/docex-proxy/docex-proxy/pool"
	"github.com/docex-proxy/docex-proxy/registry"
)

// held is what a function's making leaves on the heap.
func held(make func() any) float64 {
	heap := func() float64 {
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		return float64(memory.HeapAlloc)
	}
	before := heap()
	made := make()
	after := heap()
	runtime.KeepAlive(made)
	return after - before
}

// anybody is a registry in which every name is a tenant.
type anybody struct{ office *office }

func (a anybody) Tenant(_ context.Context, id registry.TenantID) (*registry.Tenant, error) {
	return a.office.row(string(id))
}
func (a anybody) TenantBySchema(context.Context, string) (*registry.Tenant, error) {
	return nil, registry.ErrNotFound
}
func (a anybody) Login(context.Context, string) (*registry.Login, error) {
	return nil, registry.ErrNotFound
}

// known is a cache that knows so many tenants.
func known(b *testing.B, tenants int) *registry.Cache {
	w := &world{servers: []*server{{name: serverName(0)}}, home: make([]int16, tenants)}
	w.office = newOffice(w)
	w.office.version, w.office.changed = make([]int32, tenants), make([]moment, tenants)
	cache := registry.NewCache(anybody{w.office}, registry.CacheOptions{Size: tenants})
	for t := range tenants {
		if _, err := cache.Tenant(context.Background(), registry.TenantID(tenantName(int32(t)))); err != nil {
			b.Fatal(err)
		}
	}
	return cache
}

func BenchmarkMemoryOfATenantInTheCache(b *testing.B) {
	const tenants = 100_000
	var bytes float64
	for b.Loop() {
		bytes = held(func() any { return known(b, tenants) })
	}
	b.ReportMetric(bytes/tenants, "B/tenant")
}

// silence is a server connection on which nothing comes.
type silence struct{ net.Conn }

func (silence) Read([]byte) (int, error)    { return 0, net.ErrClosed }
func (silence) Write([]byte) (int, error)   { return 0, net.ErrClosed }
func (silence) Close() error                { return nil }
func (silence) SetDeadline(time.Time) error { return nil }
func (silence) RemoteAddr() net.Addr        { return nil }

// busy is a pool with an idle connection for each of so many tenants, on so many servers.
func busy(b *testing.B, servers, tenants int) *pool.Set {
	o := pool.Options{Servers: make(map[string]pool.Server), Lifetime: math.MaxInt64 / 4,
		Connect: func(_ context.Context, config *pgconn.Config) (*pgconn.HijackedConn, error) {
			return &pgconn.HijackedConn{Conn: silence{}, Config: config}, nil
		}}
	for i := range servers {
		o.Servers[serverName(i)] = pool.Server{Hosts: []pool.Host{{Name: "localhost", Port: 5432}}, SSLMode: "disable", MaxConnections: tenants}
	}
	set, err := pool.New(o)
	if err != nil {
		b.Fatal(err)
	}
	for t := range tenants {
		name := tenantName(int32(t))
		conn, err := set.Acquire(context.Background(), pool.Target{Server: serverName(t % servers), Role: roleOf(name), Tenant: name}, 0)
		if err != nil {
			b.Fatal(err)
		}
		conn.Release()
	}
	return set
}

func BenchmarkMemoryOfAServerConnection(b *testing.B) {
	const connections = 20_000
	var bytes float64
	for b.Loop() {
		bytes = held(func() any {
			set := busy(b, 1, connections)
			b.Cleanup(set.Close)
			return set
		})
	}
	b.ReportMetric(bytes/connections, "B/connection")
}

// BenchmarkNotification is what the cache and the pool do when a tenant has changed of which they know nothing.
func BenchmarkNotification(b *testing.B) {
	for _, size := range []struct{ servers, tenants int }{{1, 20}, {20, 400}, {500, 2000}} {
		b.Run(fmt.Sprintf("%d servers, %d connections", size.servers, size.tenants), func(b *testing.B) {
			cache, set := known(b, 10_000), busy(b, size.servers, size.tenants)
			defer set.Close()
			for b.Loop() {
				cache.Forget("stranger")
				set.Drain("stranger")
			}
		})
	}
}
