package provision

// AfterStep has a function run after each step of each transaction; its error ends the transaction.
func (p *Provisioner) AfterStep(run func(name string) error) { p.afterStep = run }

// StepNames lists the steps of CreateTenant.
func StepNames() []string {
	var names []string
	for _, s := range (&creation{}).steps() {
		names = append(names, s.name)
	}
	return names
}
