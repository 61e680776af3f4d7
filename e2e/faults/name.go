//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
)

// serverName is the server's in the proxy's configuration, where the proxy can be given a file of names of its own.
const serverName = "postgres.faults.test"

// nameServer prepares a program that runs the proxy with the file of names. Where that takes more rights than there are,
// the server keeps the address of its relay.
func (s *site) nameServer(address string) (host string, err error) {
	if err := s.writeHosts(address); err != nil {
		return "", err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount sh -c 'mount --bind %s /etc/hosts && exec \"$0\" \"$@\"' %s \"$@\"\n", s.path("hosts"), s.path("docex-proxy"))
	if err := os.WriteFile(s.path("named-proxy"), []byte(script), 0o755); err != nil {
		return "", err
	}
	if exec.Command(s.path("named-proxy"), "version").Run() != nil {
		s.program = s.path("docex-proxy")
		return address, nil
	}
	s.program = s.path("named-proxy")
	return serverName, nil
}

// writeHosts writes over the file that is mounted, and not another in its place.
func (s *site) writeHosts(address string) error {
	return os.WriteFile(s.path("hosts"), fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s\n", address, serverName), 0o644)
}

// moveName has the server at another address, and nothing any more at the one before.
func moveName(_ context.Context, s *site) error {
	if s.program != s.path("named-proxy") {
		return errNotHere
	}
	host, port, err := net.SplitHostPort(s.server.address)
	if err != nil {
		return err
	}
	other := "127.0.0.2"
	if host == other {
		other = "127.0.0.1"
	}
	next, err := newRelayAt(net.JoinHostPort(other, port), *s.server.upstream.Load())
	if err != nil {
		return err
	}
	before := s.server
	s.server = next
	if err := s.writeHosts(other); err != nil {
		return err
	}
	before.close()
	return nil
}
