package provision

import "github.com/docex-proxy/docex-proxy/registry"

// AfterStep has a function run after each step of each transaction; its error ends the transaction.
func (p *Provisioner) AfterStep(run func(name string) error) { p.afterStep = run }

// StepNames lists the steps of CreateTenant at a level.
func StepNames(level registry.Isolation) []string {
	var names []string
	c := &creation{tenant: &registry.Tenant{Route: &registry.Route{Isolation: level}}}
	for _, s := range c.steps() {
		names = append(names, s.name)
	}
	return names
}

// ForeignStepNames lists the steps before the commit that registers a tenant of another server.
func ForeignStepNames(level registry.Isolation) []string {
	var names []string
	for _, s := range (&creation{tenant: &registry.Tenant{Route: &registry.Route{Isolation: level}}}).foreignSteps() {
		names = append(names, s.name)
	}
	return names
}

// PurgeStepNames lists the steps of PurgeTenant.
func PurgeStepNames() []string {
	var names []string
	for _, s := range (&purge{}).steps() {
		names = append(names, s.name)
	}
	return names
}

// AdoptStepNames lists the steps of AdoptTenant.
func AdoptStepNames() []string {
	var names []string
	for _, s := range (&adoption{creation: &creation{}}).steps() {
		names = append(names, s.name)
	}
	return names
}

// MoveStepNames lists the steps of MoveTenant after the move has been written down.
func MoveStepNames() []string {
	var names []string
	for _, at := range []registry.MoveStep{registry.MovePreparing, registry.MoveCopying, registry.MoveHolding, registry.MoveOpening, registry.MoveKept} {
		for _, s := range (&move{}).steps(at) {
			names = append(names, s.name)
		}
	}
	return names
}

// AbortStepNames lists the steps of AbortMove.
func AbortStepNames() []string {
	var names []string
	for _, s := range (&move{}).abortSteps() {
		names = append(names, s.name)
	}
	return names
}
