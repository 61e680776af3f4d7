// Command isolation attacks the built programs as a hostile tenant and writes down what came of it, beside what the
// project promises:
//
//	go run ./e2e/isolation [-levels role,slot,database,trusted] [-cases 1,2] [-pgbin DIR] [-out FILE]
//
// It builds both programs, starts a private Postgres and, for each isolation level, a proxy with so few server
// connections that they are reused. The hostile tenant then tries every case of the table (table.go) against a victim
// with canaries: rows, a large object, a function's source, a name. Some cases belong to one level. It owns the attacks and the judgement; it knows
// nothing of the product's packages but how to start a Postgres (internal/localpg).
//
// A case is judged by what can be seen from outside, never by what the attack believes: the canaries must not be among
// the bytes that the hostile tenant received, nothing that belongs to others may have changed (world.go), and the
// victim's next sessions, one on each server connection, must be as clean as its first (cleanliness.go).
//
// The one invariant: what was not run is not claimed. A case that failed for another reason than a refusal is an error,
// and an error is no promise kept.
package main
