package main

// level is an isolation level, as `docexctl tenant create --isolation` spells it.
type level string

const (
	levelRole     level = "role"
	levelSlot     level = "slot"
	levelDatabase level = "database"
	levelTrusted  level = "trusted"
)

// allLevels is the order of the report's columns.
func allLevels() []level { return []level{levelRole, levelSlot, levelDatabase, levelTrusted} }

// outcome is how an attack ended. More is better.
type outcome int

const (
	unknown   outcome = iota // the case could not be carried out
	leaks                    // something of the victim was seen, changed or disturbed
	contained                // something was let through, and nothing came of it
	refused                  // every way was answered with an error
)

func (o outcome) String() string {
	switch o {
	case leaks:
		return "leaks"
	case contained:
		return "contained"
	case refused:
		return "refused"
	default:
		return "error"
	}
}

// promise is the least that a level owes, by level. Where nothing is said of slot it owes what role owes.
type promise struct{ role, slot, database, trusted outcome }

func always(o outcome) promise { return promise{role: o, database: o, trusted: o} }

func (p promise) at(l level) outcome {
	switch l {
	case levelRole:
		return p.role
	case levelSlot:
		if p.slot == unknown {
			return p.role
		}
		return p.slot
	case levelDatabase:
		return p.database
	case levelTrusted:
		return p.trusted
	default:
		return unknown
	}
}

// result is one case at one level.
type result struct {
	outcome outcome
	detail  string
	err     error // why the outcome is unknown
}

// kept reports whether a result is at least what was promised.
func (r result) kept(promised outcome) bool { return r.outcome != unknown && r.outcome >= promised }
