package router

import (
	"fmt"
	"strings"
)

// setting is one name with its value, as a client asked for it at its start.
type setting struct{ name, value string }

// parseOptions reads the startup parameter "options": what a postgres command line may set of run-time parameters,
// -c name=value, -cname=value and --name=value (section 20.1.4 and the libpq connection parameter "options").
// Words are separated by white space; a backslash takes the next character as it is.
func parseOptions(text string) ([]setting, error) {
	var found []setting
	words := splitOptions(text)
	for i := 0; i < len(words); i++ {
		assignment, ok := strings.CutPrefix(words[i], "--")
		if !ok {
			if assignment, ok = strings.CutPrefix(words[i], "-c"); !ok {
				return nil, fmt.Errorf("option %q is neither -c name=value nor --name=value", words[i])
			}
			if assignment == "" {
				if i++; i == len(words) {
					return nil, fmt.Errorf("option -c lacks its name=value")
				}
				assignment = words[i]
			}
		}
		name, value, ok := strings.Cut(assignment, "=")
		if name = strings.ReplaceAll(name, "-", "_"); !ok || name == "" {
			return nil, fmt.Errorf("option %q lacks its value", words[i])
		}
		found = append(found, setting{name: name, value: value})
	}
	return found, nil
}

func splitOptions(text string) []string {
	var words []string
	var word strings.Builder
	inWord, escaped := false, false
	for _, c := range []byte(text) {
		switch {
		case escaped:
			word.WriteByte(c)
			escaped = false
		case c == '\\':
			inWord, escaped = true, true
		case c == ' ' || '\t' <= c && c <= '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// firstSchema returns the first element of a search_path as it is written, without its quotes, and what follows it.
func firstSchema(path string) (schema, rest string) {
	path = strings.TrimSpace(path)
	if quoted, ok := strings.CutPrefix(path, `"`); ok {
		var name strings.Builder
		for i := 0; i < len(quoted); i++ {
			if quoted[i] != '"' {
				name.WriteByte(quoted[i])
			} else if i+1 < len(quoted) && quoted[i+1] == '"' {
				name.WriteByte('"')
				i++
			} else {
				return name.String(), quoted[i+1:]
			}
		}
		return name.String(), ""
	}
	end := strings.IndexByte(path, ',')
	if end < 0 {
		end = len(path)
	}
	return strings.TrimSpace(path[:end]), path[end:]
}

// quoteIdentifier writes a name so that Postgres does not fold its case (section 4.1.1): in quotes where it has to, as
// Postgres itself shows a search_path. That a name is a key word does not matter there.
func quoteIdentifier(name string) string {
	plain := name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) &&
		(name[0] < '0' || name[0] > '9')
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
