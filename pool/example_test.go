package pool_test

import (
	"context"
	"log"
	"time"

	"github.com/docex-proxy/docex-proxy/pool"
)

// A session leases a connection for one transaction. This example is compiled only: it needs a server.
func ExampleSet() {
	set, err := pool.New(pool.Options{
		Servers: map[string]pool.Server{"main": {Hosts: []pool.Host{{Name: "127.0.0.1", Port: 5432}}, SSLMode: "verify-full", MaxConnections: 50}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer set.Close()

	acme := pool.Target{Server: "main", Database: "docex", Role: "tenant_acme", SearchPath: `"tenant_acme", public`, Tenant: "acme"}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := set.Acquire(ctx, acme, 5)
	if err != nil {
		log.Print(err)
		return
	}
	if _, err := conn.NetConn().Write([]byte("…")); err != nil {
		conn.Destroy()
		return
	}
	conn.Release()
}
