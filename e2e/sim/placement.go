//go:build unix

package main

import "slices"

// placement chooses the server of a new tenant, by how many each has.
type placement func(tenants []int) int

// leastTenants is the server with the fewest, the first of several: the rule of docexctl's --place least-tenants, which
// counts in the registry.
func leastTenants(tenants []int) int {
	return slices.Index(tenants, slices.Min(tenants))
}

// settle places tenants one after the other.
func settle(tenants, servers int, choose placement) []int16 {
	home, counts := make([]int16, tenants), make([]int, servers)
	for t := range home {
		s := choose(counts)
		home[t] = int16(s)
		counts[s]++
	}
	return home
}
