// Package localpg finds the Postgres server programs of this machine and runs one private cluster with them: for
// "docex-proxy dev", and for every test that needs a real Postgres.
//
// It owns a data directory's life: initdb, or pg_basebackup for a standby, the two configuration files it adds, the
// postmaster process, its end.
// It speaks no SQL and opens no connection; readiness is read from postmaster.pid, as pg_ctl does.
//
// The one invariant: a cluster that Start returned is stopped by Stop, or by the kernel when this process dies
// without calling it (on Linux), and never outlives both.
//
// The cluster's access rules: its superuser is trusted from the machine itself, every other role authenticates with
// SCRAM-SHA-256, so that roles of tenants have to prove who they are here as anywhere else.
// See https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
package localpg
