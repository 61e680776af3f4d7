// Package archtest holds the rules of the project's shape as tests: which package may import which, in which package
// each library lives, and what must not occur in any file. It owns the rules and has no code of its own.
//
// The one invariant: what a rule does not allow is forbidden, each with its reason. A new package or library has to
// be entered here, with a reason that a reviewer can judge.
package archtest
