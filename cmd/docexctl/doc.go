// Command docexctl initialises the registry, provisions tenants and creates the logins of clients.
//
// It owns the command line: flags, where Postgres and the master key are found, what is printed and the exit codes.
// What is done to Postgres is package provision's, what is read from the registry is package registry's.
//
// The one invariant: a secret is printed once, when it is created, to standard output, and never anywhere else.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 in conflict with what exists, 5 partly done.
package main
