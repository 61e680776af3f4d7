package configs

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Setting is one key with its value and its default, as text; secrets are not shown.
type Setting struct{ Key, Value, Default string }

// Settings lists all keys, in the order of Config, the servers' last.
func (c *Config) Settings() []Setting {
	settings := settingsOf("", reflect.ValueOf(c).Elem(), reflect.ValueOf(Default()).Elem())
	standard := reflect.ValueOf(DefaultServer())
	for _, name := range slices.Sorted(maps.Keys(c.Servers)) {
		settings = append(settings, settingsOf(serversPrefix+name+".", reflect.ValueOf(c.Servers[name]), standard)...)
	}
	return settings
}

func settingsOf(prefix string, value, standard reflect.Value) []Setting {
	var settings []Setting
	for _, field := range reflect.VisibleFields(value.Type()) {
		path := prefix + field.Tag.Get("mapstructure")
		now, usual := value.FieldByIndex(field.Index), standard.FieldByIndex(field.Index)
		switch field.Type.Kind() {
		case reflect.Struct:
			settings = append(settings, settingsOf(path+".", now, usual)...)
		case reflect.Map: // the servers
		default:
			settings = append(settings, Setting{path, shown(now), shown(usual)})
		}
	}
	return settings
}

func shown(value reflect.Value) string {
	if texts, ok := value.Interface().([]string); ok {
		return strings.Join(texts, ",")
	}
	return fmt.Sprint(value.Interface())
}
