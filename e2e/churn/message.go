package main

import "encoding/binary"

// message puts one together, to be sent by flush.
func (c *client) message(kind byte, body ...[]byte) {
	length := 4
	for _, part := range body {
		length += len(part)
	}
	c.out = binary.BigEndian.AppendUint32(append(c.out, kind), uint32(length))
	for _, part := range body {
		c.out = append(c.out, part...)
	}
}

func text(s string) []byte { return append([]byte(s), 0) }

func (c *client) query(sql string) { c.message('Q', text(sql)) }

func (c *client) parse(name, sql string) { c.message('P', text(name), text(sql), []byte{0, 0}) }

// Formats of a result.
const (
	asText   = 0
	asBinary = 1
)

func (c *client) bind(portal, statement string, format byte, parameters ...string) {
	values := binary.BigEndian.AppendUint16(nil, uint16(len(parameters)))
	for _, p := range parameters {
		values = append(binary.BigEndian.AppendUint32(values, uint32(len(p))), p...)
	}
	c.message('B', text(portal), text(statement), []byte{0, 0}, values, []byte{0, 1, 0, format})
}

func (c *client) describe(kind byte, name string) { c.message('D', []byte{kind}, text(name)) }

func (c *client) close(kind byte, name string) { c.message('C', []byte{kind}, text(name)) }

// execute runs a portal for so many rows at most, 0 for all.
func (c *client) execute(portal string, most uint32) {
	c.message('E', text(portal), binary.BigEndian.AppendUint32(nil, most))
}

func (c *client) sync() { c.message('S') }

// unnamed is a statement from its Parse to its Execute, without a Sync.
func (c *client) unnamed(sql string, parameters ...string) {
	c.parse("", sql)
	c.bind("", "", asText, parameters...)
	c.execute("", 0)
}
