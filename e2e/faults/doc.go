//go:build linux

// Command faults breaks what the proxy stands on while clients work, and says what they saw of it:
//
//	make faults
//	go run ./e2e/faults -only registry
//	go run ./e2e/faults -soak 20m
//	make fleet
//	make moves
//
// Every client writes to its tenant's ledger, one row after the other, and remembers which of them were acknowledged.
// Between the clients and the proxy, the proxy and Postgres, and the proxy and the registry are relays that delay,
// reset, swallow and cut. After each fault all clients have to be served again within two seconds, every acknowledged
// row has to be there once, no row that was refused, and each answer has to be of the client's own tenant. What is not
// so ends the program with exit code 1.
//
// With -soak, faults are drawn by chance for so long, and what the proxy holds at the end is compared with what it held
// at the beginning.
//
// With -fleet, several proxies run behind HAProxy, and one of them is killed every ten seconds; meanwhile queries are canceled
// through the balancer, and a tenant is suspended and resumed to see when the last proxy acts on it.
//
// With -moves, three tenants, one at each level, move to another server and back, and no client may see anything but a slow answer.
//
// It needs Linux. Faults that need privileges which the program lacks are reported as not run.
package main
