package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// script is what a session says, read from testdata/scripts. testdata/scripts/README.md is the language.
type script struct {
	name       string
	differs    string            // why its transcripts are known to differ; "": they have to be equal
	parameters map[string]string // of the startup message
	steps      []step
}

// step is one write to the server, and what is waited for afterwards.
type step struct {
	line   int
	says   []pgproto3.FrontendMessage
	ready  int    // ReadyForQuery messages to read
	until  string // or the type of the message to read up to
	action string // what somebody else does before the answers are read: "cancel", or a statement
}

// scripts reads all files.
func scripts(t *testing.T) map[string][]script {
	t.Helper()
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	all := make(map[string][]script)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		read, err := parseScripts(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".txt")] = read
	}
	return all
}

// parser is what has been read so far.
type parser struct {
	all  []script
	step step
}

func parseScripts(text string) ([]script, error) {
	p := &parser{}
	for i, line := range strings.Split(text+"\n", "\n") {
		if p.step.line == 0 {
			p.step.line = i + 1
		}
		if err := p.read(strings.TrimRight(line, " ")); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return p.all, nil
}

func (p *parser) read(line string) error {
	switch {
	case strings.HasPrefix(line, "#"):
	case line == "":
		p.end()
	case strings.HasPrefix(line, "== "):
		p.end()
		p.all = append(p.all, script{name: line[3:], parameters: make(map[string]string)})
	case len(p.all) == 0:
		return fmt.Errorf("%q belongs to no script", line)
	case strings.HasPrefix(line, "! "):
		p.all[len(p.all)-1].differs = line[2:]
	case strings.HasPrefix(line, "@ "):
		name, value, _ := strings.Cut(line[2:], "=")
		p.all[len(p.all)-1].parameters[name] = value
	default:
		return p.message(line)
	}
	return nil
}

// end closes a step, if there is one.
func (p *parser) end() {
	if len(p.step.says) > 0 || p.step.action != "" {
		current := &p.all[len(p.all)-1]
		current.steps = append(current.steps, p.step)
	}
	p.step = step{}
}

// message reads a line of a step: a message, or how the step ends.
func (p *parser) message(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "Ready":
		n, err := strconv.Atoi(rest)
		p.step.ready = n
		return err
	case "Until":
		p.step.until, p.step.ready = rest, 0
		return nil
	case "Cancel":
		p.step.action = "cancel"
		return nil
	case "Other":
		p.step.action = rest
		return nil
	}
	m, err := messageOf(word, rest)
	if err != nil {
		return err
	}
	switch m.(type) {
	case *pgproto3.Query, *pgproto3.Sync, *pgproto3.FunctionCall:
		p.step.ready++
	}
	p.step.says = append(p.step.says, m)
	return nil
}

func messageOf(word, rest string) (pgproto3.FrontendMessage, error) {
	switch word {
	case "Query":
		return &pgproto3.Query{String: strings.ReplaceAll(rest, `\n`, "\n")}, nil
	case "Sync":
		return &pgproto3.Sync{}, nil
	case "Flush":
		return &pgproto3.Flush{}, nil
	case "CopyDone":
		return &pgproto3.CopyDone{}, nil
	case "CopyFail":
		return &pgproto3.CopyFail{Message: rest}, nil
	case "Parse":
		return parseMessage(rest)
	}
	words, err := wordsOf(rest)
	if err != nil {
		return nil, err
	}
	return wordedMessage(word, words)
}

// parseMessage reads name, or name(oid,oid), and the statement.
func parseMessage(rest string) (pgproto3.FrontendMessage, error) {
	name, sql, _ := strings.Cut(rest, " ")
	m := &pgproto3.Parse{Query: sql}
	name, types, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
	m.Name = named(name)
	for oid := range strings.SplitSeq(types, ",") {
		if oid == "" {
			continue
		}
		n, err := strconv.ParseUint(oid, 10, 32)
		if err != nil {
			return nil, err
		}
		m.ParameterOIDs = append(m.ParameterOIDs, uint32(n))
	}
	return m, nil
}

func wordedMessage(word string, words []string) (pgproto3.FrontendMessage, error) {
	need := map[string]int{"Bind": 2, "Describe": 2, "Execute": 1, "Close": 2, "CopyData": 1, "Call": 1}
	if n, known := need[word]; !known || len(words) < n {
		return nil, fmt.Errorf("%q is no message, or has too few words", word)
	}
	switch word {
	case "Bind":
		m := &pgproto3.Bind{DestinationPortal: named(words[0]), PreparedStatement: named(words[1])}
		values := words[2:]
		if slices.Contains(values, ":binary") {
			m.ResultFormatCodes, values = []int16{1}, slices.DeleteFunc(values, func(v string) bool { return v == ":binary" })
		}
		m.Parameters = arguments(values)
		return m, nil
	case "Describe":
		return &pgproto3.Describe{ObjectType: words[0][0], Name: named(words[1])}, nil
	case "Close":
		return &pgproto3.Close{ObjectType: words[0][0], Name: named(words[1])}, nil
	case "CopyData":
		return &pgproto3.CopyData{Data: []byte(words[0])}, nil
	case "Execute":
		m := &pgproto3.Execute{Portal: named(words[0])}
		if len(words) > 1 {
			rows, err := strconv.ParseUint(words[1], 10, 32)
			m.MaxRows = uint32(rows)
			return m, err
		}
		return m, nil
	}
	oid, err := strconv.ParseUint(words[0], 10, 32)
	return &pgproto3.FunctionCall{Function: uint32(oid), ArgFormatCodes: []uint16{0}, Arguments: arguments(words[1:])}, err
}

// named is a name of a statement or portal; - is the unnamed one.
func named(word string) string {
	if word == "-" {
		return ""
	}
	return word
}

func arguments(values []string) [][]byte {
	var all [][]byte
	for _, v := range values {
		if v == "NULL" {
			all = append(all, nil)
		} else {
			all = append(all, []byte(v))
		}
	}
	return all
}

// wordsOf splits at blanks; what is in double quotes is one word, as in Go.
func wordsOf(text string) ([]string, error) {
	var words []string
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		if text[0] != '"' {
			word, rest, _ := strings.Cut(text, " ")
			words, text = append(words, word), rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		words, text = append(words, word), text[len(quoted):]
	}
	return words, nil
}
