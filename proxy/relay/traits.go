package relay

import (
	"bytes"
	"strings"
)

// traits are hints, found in a statement's text, that it may leave something behind in its session. They decide
// only whether Postgres is asked afterwards: a false hint costs one question, and no decision rests on a text.
type traits uint16

const (
	traitSettings traits = 1 << iota // SET, RESET, set_config, an UPDATE of pg_settings
	traitTemporary
	traitHold
	traitAdvisory
	traitListen
	traitPrepare
	traitGone  // something that pinned the session may have ended
	traitReset // a setting may go back to what it was at the session's start
	traitShow  // the session looks at its own prepared statements
)

// lasting are the traits of what may be left behind.
const lasting = ^(traitReset | traitShow)

// allTraits may be left behind by what cannot be read.
const allTraits = traitSettings | traitTemporary | traitHold | traitAdvisory | traitListen | traitPrepare

// scan looks for the words. It reads each byte once and does not allocate.
func scan(text []byte) traits {
	var found traits
	for i := 0; i < len(text); i++ {
		switch text[i] | 0x20 {
		case 's':
			if startsFold(text[i:], "set_config") {
				found |= traitSettings
			}
		case 'p':
			if startsFold(text[i:], "pg_settings") { // it can be updated
				found |= traitSettings
			} else if startsFold(text[i:], "pg_prepared_statements") {
				found |= traitShow
			}
		case 't':
			if startsFold(text[i:], "temp") && startsWord(text, i) {
				found |= traitTemporary
			}
		case 'h':
			if startsFold(text[i:], "hold") && startsWord(text, i) {
				found |= traitHold
			}
		case 'a':
			if startsFold(text[i:], "advisory_") && !startsFold(text[i:], "advisory_xact") {
				found |= traitAdvisory
			}
		case 'r':
			if startsFold(text[i:], "reset") && startsWord(text, i) {
				found |= traitReset
			}
		case 'd':
			if startsFold(text[i:], "discard") && startsWord(text, i) || startsFold(text[i:], "default") && startsWord(text, i) && startsSet(text) {
				found |= traitReset
			}
		}
	}
	return found
}

func startsFold(text []byte, word string) bool {
	if len(text) < len(word) {
		return false
	}
	for i := range len(word) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// startsWord reports whether no letter, digit or underscore stands before i, "pg_temp" excepted.
func startsWord(text []byte, i int) bool {
	if i == 0 {
		return true
	}
	c := text[i-1]
	if c == '_' {
		return i >= 3 && startsFold(text[i-3:], "pg_")
	}
	return !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9')
}

// tagTraits reads a CommandComplete tag.
func tagTraits(tag []byte) traits {
	switch string(tag) {
	case "SET", "RESET":
		return traitSettings
	case "DO", "CALL": // whatever is inside
		return traitSettings | traitTemporary | traitHold | traitListen | traitPrepare
	case "LISTEN":
		return traitListen
	case "PREPARE":
		return traitPrepare
	case discardAll:
		return traitSettings | traitGone
	case "UNLISTEN", "DEALLOCATE", "DEALLOCATE ALL", "CLOSE CURSOR", "CLOSE CURSOR ALL", "DROP TABLE", "DISCARD TEMP":
		return traitGone
	}
	return 0
}

// customNames lists the two-part setting names that a text sets: Postgres does not list custom settings in
// pg_settings, so they have to be asked for by name (section 20.16).
func customNames(text []byte) []string {
	if bytes.IndexByte(text, '.') < 0 {
		return nil
	}
	var names []string
	for rest := text; ; {
		rest = bytes.TrimLeft(rest, " \t\r\n;")
		if startsFold(rest, "set") {
			words := strings.FieldsFunc(string(rest[:min(len(rest), 300)]), func(r rune) bool { return strings.ContainsRune(" \t\r\n=;", r) })
			if len(words) > 1 && (strings.EqualFold(words[1], "session") || strings.EqualFold(words[1], "local")) {
				words = words[1:]
			}
			if len(words) > 1 {
				names = appendCustom(names, strings.ReplaceAll(words[1], `"`, ""))
			}
		}
		next := bytes.IndexByte(rest, ';')
		if next < 0 {
			break
		}
		rest = rest[next:]
	}
	for i := 0; i < len(text); i++ {
		if text[i]|0x20 == 's' && startsFold(text[i:], "set_config") {
			_, after, ok := bytes.Cut(text[i:], []byte("'"))
			literal, _, ok2 := bytes.Cut(after, []byte("'"))
			if ok && ok2 {
				names = appendCustom(names, string(literal))
			}
			i += len("set_config")
		}
	}
	return names
}

// appendCustom adds a name that looks like a custom setting. Names become part of a question to Postgres, so
// anything but letters, digits, _ and $ in its parts is left out.
func appendCustom(names []string, name string) []string {
	if len(name) > 128 || !strings.Contains(name, ".") {
		return names
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || strings.ContainsFunc(part, func(r rune) bool {
			return !(r == '_' || r == '$' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
		}) {
			return names
		}
	}
	return append(names, strings.ToLower(name))
}
