package configs

import (
	"reflect"
	"strings"
)

const (
	envPrefix     = "DOCEX_PROXY_"
	fileSuffix    = "_FILE"
	serversKey    = "servers"
	serversPrefix = serversKey + "."
)

// key is one value of the configuration: its path in the file, and its Go type.
type key struct {
	path string
	kind reflect.Type
}

func (k key) secret() bool { return k.kind == reflect.TypeFor[Secret]() }

// variable is the name of the environment variable that sets the key.
func (k key) variable() string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(k.path))
}

// fixedKeys are all keys but those of the servers, in the order of Config.
func fixedKeys() []key { return keysOf("", reflect.TypeFor[Config]()) }

// serverKeys are the keys of one server's entry, in the order of Server.
func serverKeys(name string) []key { return keysOf(serversPrefix+name+".", reflect.TypeFor[Server]()) }

func keysOf(prefix string, structure reflect.Type) []key {
	var keys []key
	for _, field := range reflect.VisibleFields(structure) {
		path := prefix + field.Tag.Get("mapstructure")
		switch field.Type.Kind() {
		case reflect.Struct:
			keys = append(keys, keysOf(path+".", field.Type)...)
		case reflect.Map: // the servers, whose names are not known here
		default:
			keys = append(keys, key{path: path, kind: field.Type})
		}
	}
	return keys
}
