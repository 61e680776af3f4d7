package main

import "slices"

// attack is one case: what the hostile tenant tries, and what the project owes at each level.
type attack struct {
	number   int
	sentence string
	promise  promise
	run      func(*trial)
	absent   string // why there is nothing to try yet; run is nil then
}

// table is all cases in order. 1 to 65 are the project's list of what has to be tried; further ones are this program's.
func table() []attack {
	all := slices.Concat(roleCases(), startupCases(), serverCases(), objectCases(), leftoverCases(), hiddenCases(), frameCases(),
		cancelCases(), lifeCases(), sharedCases(), absentCases())
	slices.SortFunc(all, func(a, b attack) int { return a.number - b.number })
	return all
}

func absentCases() []attack {
	const slot = "isolation level slot does not exist yet"
	return []attack{
		{number: 59, sentence: "A proxy killed in the middle of a switch leaves no membership behind", promise: always(contained), absent: slot},
		{number: 60, sentence: "RESET ROLE and SET ROLE on a slot, raced 60000 times, win nothing", promise: always(refused), absent: slot},
		{number: 61, sentence: "A trigger of the tenant's gains nothing when its tables are migrated", promise: always(contained),
			absent: "docexctl has no verb yet that migrates tenants"},
	}
}
