package relay

import (
	"encoding/binary"
	"hash/maphash"
)

// description is what a Describe says of a prepared statement, as far as its user depends on it. The zero value is none.
type description struct {
	types string // the parameters' types, as in a Parse: a count and object ids
	rows  uint64 // a hash of the columns' names and types, or of there being none
}

func (d description) known() bool { return d != description{} }

// shapes is what a hash of rows is made with, the same for all sessions of a process.
type shapes struct{ seed maphash.Seed }

// noRows stands for NoData.
const noRows = 1

// rows hashes a RowDescription's body (section 55.7): for each column its name, and the type with its size and modifier,
// which is what Postgres compares. Table and column numbers change when a table is made again, and the format is not the
// statement's. It reports false for what is none.
func (h shapes) rows(body []byte) (uint64, bool) {
	const fixed = 18 // bytes of a column behind its name
	if len(body) < 2 {
		return 0, false
	}
	var sum maphash.Hash
	sum.SetSeed(h.seed)
	count := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for range count {
		name, rest, ok := cutString(body)
		if !ok || len(rest) < fixed {
			return 0, false
		}
		sum.Write(name)
		sum.WriteByte(0)
		sum.Write(rest[6:16])
		body = rest[fixed:]
	}
	return sum.Sum64() | 2, len(body) == 0 // never 0, nor noRows
}

// parameters notes what a ParameterDescription says: the first half of the answer to a Describe of a statement.
func (s *Session) parameters(body []byte) { s.types = string(body) }

// described notes the second half: a RowDescription or NoData.
func (s *Session) described(head expectation, kind byte, body []byte) error {
	if head.named == nil {
		return nil
	}
	rows, ok := uint64(noRows), true
	if kind == 'T' {
		rows, ok = s.cfg.Births.shapes.rows(body)
	}
	if !ok {
		return &BrokenServerError{Reason: "a malformed RowDescription"}
	}
	head.named.shape = description{types: s.types, rows: rows}
	if st := s.statements[head.name]; head.kind == expectDescribe && st.defined() && st.text == head.named.text && st.told == nil {
		told := head.named.shape
		st.told = &told
		s.statements[head.name] = st
	}
	return nil
}

// agree reports whether a statement on the server is what the client was told of its own. Where that is not known yet, it
// is asked, and the client's message has to wait; where it is not, the server is made to fail as it would with a statement
// that it had kept: its rows may not change.
func (s *Session) agree(st statement, n *namedStatement, out *Output) (bool, Verdict) {
	switch {
	case st.told == nil || n.shape == *st.told:
		return true, More
	case n.shape.known():
		s.fail(planChanged(), out)
		return false, More
	case !n.asked:
		n.asked = true
		s.expect(expectation{kind: expectOurDescribe, named: n})
		out.ToServer.keep(append(appendNamed(out.ToServer.own(), 'D', n.name), 'H', 0, 0, 0, 4))
	}
	return false, Hold
}
