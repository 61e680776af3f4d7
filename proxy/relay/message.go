package relay

import (
	"bytes"
	"encoding/binary"
)

// headerLength is the type byte and the length, which counts itself but not the type.
const headerLength = 5

// frame splits the header off b. total is the length of the whole message, type byte included; it is 0 while the
// header is not complete.
func frame(b []byte) (kind byte, total int) {
	if len(b) < headerLength {
		return 0, 0
	}
	return b[0], 1 + int(binary.BigEndian.Uint32(b[1:]))
}

// begin appends a header whose length end fills in.
func begin(b []byte, kind byte) (out []byte, at int) {
	return append(b, kind, 0, 0, 0, 0), len(b)
}

func end(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-1))
	return b
}

func appendString(b []byte, s string) []byte { return append(append(b, s...), 0) }

// cutString splits a NUL-terminated string off b.
func cutString(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

func appendQuery(b []byte, sql string) []byte {
	b, at := begin(b, 'Q')
	return end(appendString(b, sql), at)
}

// appendParse writes a Parse; types is the tail of the message as the client sent it (count and object ids).
func appendParse(b []byte, name, query, types string) []byte {
	b, at := begin(b, 'P')
	b = appendString(appendString(b, name), query)
	return end(append(b, types...), at)
}

// appendNamed writes a Describe or Close of a prepared statement.
func appendNamed(b []byte, kind byte, name string) []byte {
	b, at := begin(b, kind)
	return end(appendString(append(b, 'S'), name), at)
}

func appendParameterStatus(b []byte, name, value string) []byte {
	b, at := begin(b, 'S')
	return end(appendString(appendString(b, name), value), at)
}

func appendReady(b []byte, status byte) []byte {
	return append(b, 'Z', 0, 0, 0, 5, status)
}

func appendEmpty(b []byte, kind byte) []byte { return append(b, kind, 0, 0, 0, 4) }

// field returns a field of an ErrorResponse's body, "" when it is not there.
func field(body []byte, code byte) string {
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := cutString(body[1:])
		if !ok {
			return ""
		}
		if body[0] == code {
			return string(value)
		}
		body = rest
	}
	return ""
}
