package proxy

// Policy is what of the Options can be changed while the Server runs. It holds for clients that come afterwards.
type Policy struct {
	TrustLogins        []string // are let in without a password when they come from a loopback address
	Admins             []string // may use the console
	ExposeTenantErrors bool     // clients are told that a tenant does not exist, instead of that their password is wrong
	MaxClients         int      // connections, sessions and those that are logging in
	MaxStartups        int      // connections that have not logged in yet
	TenantClients      int      // sessions of a tenant that has no limit of its own; 0: no bound
}

// SetPolicy replaces the policy. Sessions that are open stay.
func (s *Server) SetPolicy(p Policy) { s.policy.Store(&p) }
