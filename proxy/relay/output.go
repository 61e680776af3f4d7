package relay

// Out collects the bytes that one step wants written to one side. A single run of the input is kept by reference,
// so that forwarding untouched bytes copies nothing: what Bytes returns is valid only until the input buffer is
// reused or Reset is called.
type Out struct {
	run []byte // a part of the input, while nothing else was written
	buf []byte // everything, once something else was
}

// keptCapacity is how much buffer an Out keeps between steps, in bytes.
const keptCapacity = 16 << 10

// Bytes returns what is to be written, in order.
func (o *Out) Bytes() []byte {
	if len(o.buf) > 0 {
		return o.buf
	}
	return o.run
}

// Reset forgets what was written and keeps the memory.
func (o *Out) Reset() {
	o.run = nil
	if cap(o.buf) > keptCapacity {
		o.buf = nil
	}
	o.buf = o.buf[:0]
}

// pass forwards a part of the input.
func (o *Out) pass(b []byte) {
	switch {
	case len(b) == 0:
	case len(o.buf) > 0:
		o.buf = append(o.buf, b...)
	case len(o.run) == 0:
		o.run = b
	case adjoins(o.run, b):
		o.run = o.run[:len(o.run)+len(b)]
	default:
		o.buf = append(append(o.buf, o.run...), b...)
		o.run = nil
	}
}

// own makes room for bytes of our own behind what is there; the caller appends to the result and gives it to keep.
func (o *Out) own() []byte {
	if len(o.run) > 0 {
		o.buf = append(o.buf, o.run...)
		o.run = nil
	}
	return o.buf
}

func (o *Out) keep(b []byte) { o.buf = b }

// adjoins reports whether b starts in memory where a ends.
func adjoins(a, b []byte) bool {
	return cap(a) >= len(a)+len(b) && &a[:len(a)+1][len(a)] == &b[0]
}

// Output is what one step of a Session wants written.
type Output struct {
	ToServer, ToClient Out
}

// Reset forgets both sides.
func (o *Output) Reset() {
	o.ToServer.Reset()
	o.ToClient.Reset()
}
