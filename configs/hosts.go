package configs

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Host is where a server listens.
type Host struct {
	Name string
	Port uint16
}

// Hosts are those of a server, in their order: as libpq reads host and port (section 34.1.2), one port is for all of them.
func (s Server) Hosts() ([]Host, error) {
	names, ports := strings.Split(s.Host, ","), strings.Split(string(s.Port), ",")
	if len(ports) != 1 && len(ports) != len(names) {
		return nil, fmt.Errorf("%d ports are not those of %d hosts", len(ports), len(names))
	}
	hosts := make([]Host, len(names))
	for i, name := range names {
		text := strings.TrimSpace(ports[min(i, len(ports)-1)])
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("%s is no port", text)
		}
		hosts[i] = Host{Name: strings.TrimSpace(name), Port: uint16(port)}
	}
	return hosts, nil
}

// Replicas are the servers that replicate others, by the names of those.
func (c *Config) Replicas() map[string]string {
	replicas := make(map[string]string)
	for name, server := range c.Servers {
		if server.Replica != "" {
			replicas[name] = server.Replica
		}
	}
	return replicas
}

// validateReplicas checks what the entries of servers say of each other.
func (c *Config) validateReplicas(p *problems) {
	replicas := c.Replicas()
	for _, name := range slices.Sorted(maps.Keys(replicas)) {
		replica := replicas[name]
		server, found := c.Servers[replica]
		key := serversPrefix + name + ".replica"
		p.check(found, key, "%q is not among the servers", replica)
		p.check(replica != name && server.Replica == "", key, "%q is not a server that only replicates", replica)
		switch server.TargetSessionAttrs {
		case "primary", "read-write":
			p.check(false, serversPrefix+replica+".target_session_attrs", "%s is not for what %s.%s names as its replica", server.TargetSessionAttrs, serversKey, name)
		}
	}
}
