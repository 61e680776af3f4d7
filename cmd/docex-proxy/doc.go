// Command docex-proxy serves all tenants of a DocEX installation behind one Postgres address.
//
// It only wires: flags and configuration become the graph of serve.go, in the order of the data path. `dev` puts a
// private Postgres and two tenants in front of the same graph.
package main
