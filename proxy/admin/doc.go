// Package admin is the operator's console: what PgBouncer's administrators know, by tenant. It reads commands as simple
// queries from a connection that has proved to be an administrator's, and answers in PgBouncer's tables, so that tools made
// for those work.
//
// It owns no state but the averages that SHOW STATS has. What it shows and does is given to it as functions: it knows
// neither sockets nor sessions nor pools by themselves.
//
// https://www.pgbouncer.org/usage.html#admin-console
package admin
