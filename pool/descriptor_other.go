//go:build !linux

package pool

// Descriptor is -1: here sockets stay in the runtime's poller.
func (c *Conn) Descriptor(func()) (int, error) { return -1, nil }

func (c *Conn) restore() {}
