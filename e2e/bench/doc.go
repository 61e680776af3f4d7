//go:build linux

// Command bench measures the proxy beside PgBouncer and beside Postgres itself, in one run:
//
//	make bench
//	make bench BENCH='-single simple:8,prepared:64 -tenants 1000 -rounds 5 -seconds 4'
//
// Every cell of its tables comes from rounds. In each round every target is measured once, in the opposite order of the
// round before; what is printed is the median, and for ratios the median of the rounds' own ratios. So what the machine
// does slowly for a minute it does slowly for all. CPU is the pooler's process only, user and system time, by
// transaction.
//
// All targets ask for SCRAM passwords, and both poolers talk to Postgres over its unix socket with as many connections.
// Metrics are on, as they are by default. Each answer of the runs with many tenants is checked: one that is of another
// tenant ends the program with exit code 3.
//
// It needs Linux, pgbench and pgbouncer.
package main
