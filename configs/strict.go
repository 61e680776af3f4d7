package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// serverName is what may name a server: the name is written in the registry too, and into environment variables.
var serverName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// checkKeys finds every key of a YAML text that does not exist, with its line. It reads the text a second time,
// beside viper, because viper folds case and forgets lines.
func checkKeys(text []byte) error {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF): // empty, or nothing but comments
		return nil
	case err != nil:
		return err
	}
	if decoder.Decode(new(yaml.Node)) == nil {
		return errors.New("there is more than one YAML document")
	}
	return newKnownPaths().check(document.Content[0], "")
}

// knownPaths tells the paths of values from those of the mappings above them.
type knownPaths struct{ values, mappings []string }

func newKnownPaths() knownPaths {
	known := knownPaths{mappings: []string{"", serversKey, serversPrefix + "*"}}
	for _, key := range append(fixedKeys(), serverKeys("*")...) {
		known.values = append(known.values, key.path)
		if end := strings.LastIndexByte(key.path, '.'); end > 0 {
			known.mappings = append(known.mappings, key.path[:end])
		}
	}
	return known
}

// check goes through one mapping, which is at path.
func (k knownPaths) check(node *yaml.Node, path string) error {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: %s is a mapping of keys to values", node.Line, orWhole(path))
	}
	var problems []error
	for i := 0; i+1 < len(node.Content); i += 2 {
		problems = append(problems, k.checkEntry(node.Content[i], node.Content[i+1], path))
	}
	return errors.Join(problems...)
}

func (k knownPaths) checkEntry(name, value *yaml.Node, parent string) error {
	path := name.Value
	if parent != "" {
		path = parent + "." + path
	}
	if strings.Contains(name.Value, ".") {
		return fmt.Errorf("line %d: unknown key %s: a dot stands for a level of indentation here", name.Line, path)
	}
	pattern := path
	if server, ok := strings.CutPrefix(path, serversPrefix); ok {
		server, rest, inside := strings.Cut(server, ".")
		if !serverName.MatchString(server) {
			return fmt.Errorf("line %d: %s: the name of a server is lower-case letters, digits, _ and -", name.Line, path)
		}
		pattern = serversPrefix + "*"
		if inside {
			pattern += "." + rest
		}
	}
	switch {
	case slices.Contains(k.mappings, pattern):
		return k.check(value, path)
	case !slices.Contains(k.values, pattern):
		return fmt.Errorf("line %d: unknown key %s", name.Line, path)
	case value.Kind == yaml.MappingNode:
		return fmt.Errorf("line %d: %s is a value, not a mapping", value.Line, path)
	}
	return nil
}

func orWhole(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}
