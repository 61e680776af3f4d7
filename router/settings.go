package router

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docex-proxy/docex-proxy/registry"
)

// notSettings are the startup parameters that Postgres does not treat as run-time parameters, and our own.
var notSettings = map[string]bool{
	"user": true, "database": true, "options": true, "replication": true,
	parameterTenant: true, parameterTenantAlias: true,
}

// refusedSettings would change who the session is, or load code before the first statement.
var refusedSettings = map[string]bool{
	"role": true, "session_authorization": true, "is_superuser": true,
	"session_preload_libraries": true, "local_preload_libraries": true, "shared_preload_libraries": true,
}

// startupSettings lists the run-time parameters of a startup message, names in lower case, each once: like Postgres
// it lets a parameter of its own win over one inside "options".
func startupSettings(parameters map[string]string, options []setting) ([]setting, error) {
	values := make(map[string]string)
	for _, s := range options {
		values[strings.ToLower(s.name)] = s.value
	}
	for name, value := range parameters {
		if !notSettings[name] && !strings.HasPrefix(name, "_pq_.") {
			values[strings.ToLower(name)] = value
		}
	}
	var found []setting
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if notSettings[name] && name != "options" {
			continue
		}
		if refusedSettings[name] || !settingName(name) {
			return nil, &Refusal{Err: ErrSettingRefused, Detail: fmt.Sprintf("%q", name)}
		}
		found = append(found, setting{name: name, value: values[name]})
	}
	return found, nil
}

// takePoolMode takes the pool mode out of the settings, "" where there is none: it is the proxy's, not Postgres's.
func takePoolMode(settings []setting) (kept []setting, mode registry.PoolMode, err error) {
	kept, value, ok := take(settings, parameterPoolMode)
	if !ok {
		return settings, "", nil
	}
	switch mode = registry.PoolMode(value); mode {
	case registry.PoolTransaction, registry.PoolSession:
		return kept, mode, nil
	}
	return nil, "", &Refusal{Err: ErrPoolMode, Detail: fmt.Sprintf("%q", value)}
}

// Where a session may ask to be led.
const (
	routePrimary = "primary" // to the tenant's server, as without a word
	routeReplica = "replica" // to the one that replicates it, for reading
)

// takeRoute takes out of the settings whether the session is for a replica.
func takeRoute(settings []setting) (kept []setting, replica bool, err error) {
	kept, value, ok := take(settings, parameterRoute)
	if ok && value != routePrimary && value != routeReplica {
		return nil, false, &Refusal{Err: ErrRoute, Detail: fmt.Sprintf("%q", value)}
	}
	return kept, value == routeReplica, nil
}

// take takes one out of the settings that is the proxy's own; ok says that it was there.
func take(settings []setting, name string) (kept []setting, value string, ok bool) {
	at := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if at < 0 {
		return settings, "", false
	}
	value = settings[at].value
	return slices.Delete(settings, at, at+1), value, true
}

// settingName reports whether a text can be the name of a run-time parameter.
func settingName(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || part[0] >= '0' && part[0] <= '9' {
			return false
		}
		for _, c := range []byte(part) {
			if !(c == '_' || c == '$' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c >= 0x80) {
				return false
			}
		}
	}
	return true
}

// settingsOf gives the session's settings as a map. A search_path that starts with the tenant's own schema is
// written with quotes: DocEX sends it bare, and Postgres would fold its case.
func settingsOf(settings []setting, schema string) map[string]string {
	values := make(map[string]string, len(settings))
	for _, s := range settings {
		if s.name == "search_path" {
			if first, rest := firstSchema(s.value); first == schema {
				s.value = quoteIdentifier(schema) + rest
			}
		}
		values[s.name] = s.value
	}
	return values
}
