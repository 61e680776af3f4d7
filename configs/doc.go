// Package configs reads the configuration of docex-proxy: a YAML file, overridden by environment variables, over the
// values of Default.
//
// It owns the names of the keys, their defaults, and what values are allowed; docex-proxy.yaml in this folder is the
// documented sample. It opens no file but the configuration and the files that *_FILE variables name, and knows
// nothing of what the values are for. Only the commands see a Config; they hand each package what it needs.
//
// The one invariant: a Config from Load is valid, and what was written in it and not understood was an error.
package configs
