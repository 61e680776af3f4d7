package configs

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// words are the keys that take one of a few words.
func words() map[string][]string {
	return map[string][]string{
		"io":                {"auto", "epoll", "iouring", "goroutine"},
		"log.level":         {"debug", "info", "warn", "error"},
		"log.format":        {"text", "json"},
		"servers.*.sslmode": sslModes[:],

		"servers.*.target_session_attrs": sessionAttrs[:],
	}
}

// Schema is the configuration file's as JSON Schema (draft 2020-12), with the defaults, for editors that complete and
// check. What belongs together only Validate knows.
func Schema() ([]byte, error) {
	schema := object("", reflect.ValueOf(Default()).Elem())
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "docex-proxy"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("configs: %w", err)
	}
	return append(text, '\n'), nil
}

func object(prefix string, standard reflect.Value) map[string]any {
	properties := make(map[string]any)
	for _, field := range reflect.VisibleFields(standard.Type()) {
		name := field.Tag.Get("mapstructure")
		properties[name] = property(prefix+name, standard.FieldByIndex(field.Index))
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

func property(path string, standard reflect.Value) map[string]any {
	switch value := standard.Interface().(type) {
	case time.Duration:
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, "default": value.String()}
	case Secret:
		return map[string]any{"type": "string"}
	case Ports:
		return map[string]any{"type": []string{"integer", "string"}, "pattern": `^[0-9]+(,[0-9]+)*$`, "default": 5432}
	case string:
		p := map[string]any{"type": "string", "default": value}
		if allowed := words()[path]; allowed != nil {
			p["enum"] = slices.Clone(allowed)
		}
		return p
	case bool:
		return map[string]any{"type": "boolean", "default": value}
	case int:
		return map[string]any{"type": "integer", "default": value}
	case float64: // a share
		return map[string]any{"type": "number", "minimum": 0, "maximum": 1, "default": value}
	case []string:
		return map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
	case map[string]Server:
		return map[string]any{"type": "object", "additionalProperties": object(path+".*.", reflect.ValueOf(DefaultServer()))}
	}
	return object(path+".", standard)
}
