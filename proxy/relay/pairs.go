package relay

import (
	"maps"
	"slices"
	"strings"
	"unique"
)

// Pairs is an immutable set of names with values, interned: two sets with the same content compare equal with ==,
// at the cost of one pointer comparison. The zero value is the empty set.
type Pairs struct{ handle unique.Handle[string] }

// NewPairs interns a map.
func NewPairs(values map[string]string) Pairs {
	if len(values) == 0 {
		return Pairs{}
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text.WriteString(name)
		text.WriteByte(0)
		text.WriteString(values[name])
		text.WriteByte(0)
	}
	return Pairs{handle: unique.Make(text.String())}
}

// Map returns the content as a map that the caller owns.
func (p Pairs) Map() map[string]string {
	values := make(map[string]string)
	if p == (Pairs{}) {
		return values
	}
	parts := strings.Split(p.handle.Value(), "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		values[parts[i]] = parts[i+1]
	}
	return values
}

// With returns the set with one name changed.
func (p Pairs) With(name, value string) Pairs {
	values := p.Map()
	values[name] = value
	return NewPairs(values)
}
