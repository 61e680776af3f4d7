// Package pgtest gives tests a real Postgres: one private cluster per test binary, a second one for those that ask, standbys
// for those that ask, one fresh database per test.
//
// It owns the cluster's life within a test binary and nothing else; what is wrong with the machine (no server
// programs, say) fails the test that asked. Only tests may import it.
//
// The one invariant: a database belongs to one test. Roles belong to the cluster, so tests that run in parallel give
// theirs different names.
package pgtest
