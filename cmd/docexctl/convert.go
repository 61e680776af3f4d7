package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.yaml.in/yaml/v3"
)

// backupSuffix is what the file of DocEX 2 is kept with.
const backupSuffix = ".v2"

// convertConfig makes the file of a DocEX 2 one of DocEX 3, comments kept, and leaves the old one beside it. A file that is
// converted already stays as it is.
func (c *cli) convertConfig(strategy string) error {
	before, err := os.ReadFile(c.docexConfig)
	if err != nil {
		return err
	}
	after, err := convertedConfig(before, strategy)
	if err != nil {
		return fmt.Errorf("DocEX's configuration %s: %w", c.docexConfig, err)
	}
	if after == nil {
		return nil
	}
	info, err := os.Stat(c.docexConfig)
	if err != nil {
		return err
	}
	if err := writeNew(c.docexConfig+backupSuffix, before, info.Mode().Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	draft := c.docexConfig + ".new" // in one piece or not at all
	if err := os.WriteFile(draft, after, info.Mode().Perm()); err != nil {
		return err
	}
	if err := os.Rename(draft, c.docexConfig); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.err, "docexctl: %s is DocEX 3's now; the old one is %s\n", c.docexConfig, c.docexConfig+backupSuffix)
	return err
}

func writeNew(path string, text []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// convertedConfig is a configuration of DocEX 2 as DocEX 3 wants it, nil for one that is so.
func convertedConfig(text []byte, strategy string) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is no mapping")
	}
	root := document.Content[0]
	changed := false
	for _, setting := range []struct {
		path  []string
		value string
		only  bool // where the key is there
	}{
		{[]string{"config_version"}, "1", false},
		{[]string{"multi_tenancy", "enabled"}, "true", false},
		{[]string{"multi_tenancy", "isolation_strategy"}, strategy, false},
		{[]string{"multi_tenancy", "bootstrap_tenant", "id"}, "_docex_system_", false},
		{[]string{"multi_tenancy", "bootstrap_tenant", "schema"}, systemSchema, false},
		{[]string{"security", "multi_tenancy_model"}, "row_level", true},
		{[]string{"security", "tenant_database_routing"}, "false", true},
	} {
		set, err := put(root, setting.path, setting.value, setting.only)
		if err != nil {
			return nil, err
		}
		changed = changed || set
	}
	if !changed {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	err := errors.Join(encoder.Encode(&document), encoder.Close())
	return out.Bytes(), err
}

// put sets a value in nested mappings, and reports whether it was another.
func put(mapping *yaml.Node, path []string, value string, only bool) (bool, error) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value != path[0] {
			continue
		}
		found := mapping.Content[i+1]
		if len(path) > 1 {
			if found.Tag == "!!null" {
				*found = yaml.Node{Kind: yaml.MappingNode}
			}
			if found.Kind != yaml.MappingNode {
				return false, fmt.Errorf("%s is no mapping", path[0])
			}
			return put(found, path[1:], value, only)
		}
		if found.Value == value {
			return false, nil
		}
		found.Kind, found.Tag, found.Style, found.Value, found.Content = yaml.ScalarNode, "", 0, value, nil
		return true, nil
	}
	if only {
		return false, nil
	}
	child := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	if len(path) > 1 {
		child = &yaml.Node{Kind: yaml.MappingNode}
		if _, err := put(child, path[1:], value, false); err != nil {
			return false, err
		}
	}
	mapping.Content = append(mapping.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: path[0]}, child)
	return true, nil
}
