package pool

// Stat is a target's share of its server at one moment. Connections that are being closed are in no count.
type Stat struct {
	Target     Target
	Idle       int // server connections that nobody leases
	Active     int // leased ones
	Connecting int // being opened
	Waiting    int // Acquires in the queue
}

// Stats returns the targets that have or wait for connections, in no particular order. Each server's are of one
// moment.
func (s *Set) Stats() []Stat {
	var stats []Stat
	for _, server := range s.servers {
		stats = server.appendStats(stats)
	}
	return stats
}

func (s *server) appendStats(stats []Stat) []Stat {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, p := range s.targets {
		if !p.live {
			continue
		}
		stats = append(stats, Stat{
			Target:     t,
			Idle:       p.idle,
			Active:     p.size - p.idle - p.connecting,
			Connecting: p.connecting,
			Waiting:    p.waiters.size,
		})
	}
	return stats
}

// Host is the one of a server's hosts that the last connection was opened to, before that the first.
func (s *Set) Host(serverName string) Host {
	server, ok := s.servers[serverName]
	if !ok {
		return Host{}
	}
	config := server.dialer.hosts[server.dialer.last.Load()]
	return Host{config.Host, config.Port}
}
