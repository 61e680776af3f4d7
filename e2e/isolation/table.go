package main

import "slices"

// attack is one case: what the hostile tenant tries, and what the project owes at each level.
type attack struct {
	number   int
	sentence string
	promise  promise
	run      func(*trial)
	only     level // the one that it makes sense at; "": all
}

// at reports whether there is something to try at a level.
func (a attack) at(l level) bool { return a.only == "" || a.only == l }

// table is all cases in order. 1 to 65 are the project's list of what has to be tried; further ones are this program's.
func table() []attack {
	all := slices.Concat(roleCases(), startupCases(), serverCases(), objectCases(), leftoverCases(), hiddenCases(), frameCases(),
		cancelCases(), lifeCases(), sharedCases(), switchCases(), migrationCases(), slotCases())
	slices.SortFunc(all, func(a, b attack) int { return a.number - b.number })
	return all
}
