package configs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// Load reads a configuration file, and over it the environment: DOCEX_PROXY_ and the key in upper case with _ for the
// dots, or for secrets the same with _FILE, which names a file that holds the value. Path "" means no file. The error
// joins all problems that were found, each with its key.
func Load(path string) (*Config, error) {
	v := viper.New()
	if path != "" {
		if err := readFile(v, path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	keys := fixedKeys()
	standard := reflect.ValueOf(DefaultServer())
	for _, name := range serverNames(v) {
		for i, key := range serverKeys(name) {
			v.SetDefault(key.path, standard.Field(i).Interface())
			keys = append(keys, key)
		}
	}
	if err := readEnvironment(v, keys); err != nil {
		return nil, err
	}
	config := Default()
	if err := v.Unmarshal(config, viper.DecodeHook(decodeHook())); err != nil {
		return nil, decodeError(err)
	}
	return config, config.Validate()
}

func readFile(v *viper.Viper, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return errors.Unwrap(err) // without the path, which is said already
	}
	if err := checkKeys(text); err != nil {
		return err
	}
	v.SetConfigType("yaml")
	return v.ReadConfig(bytes.NewReader(text))
}

// readEnvironment puts what is set there for the keys over what the file says.
func readEnvironment(v *viper.Viper, keys []key) error {
	var problems []error
	for _, key := range keys {
		value, ok, err := key.lookup()
		problems = append(problems, err)
		if ok {
			v.Set(key.path, value)
		}
	}
	return errors.Join(problems...)
}

// lookup reads the key's variable, or for a secret the file that its other variable names.
func (k key) lookup() (value string, ok bool, err error) {
	value, ok = os.LookupEnv(k.variable())
	if !k.secret() {
		return value, ok, nil
	}
	path, fromFile := os.LookupEnv(k.variable() + fileSuffix)
	switch {
	case !fromFile:
		return value, ok, nil
	case ok:
		return "", false, fmt.Errorf("%s: both %s and %s are set", k.path, k.variable(), k.variable()+fileSuffix)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", false, fmt.Errorf("%s: %s: %w", k.path, k.variable()+fileSuffix, err)
	}
	return strings.TrimRight(string(text), "\r\n"), true, nil
}

// serverNames are the servers of the file, and those that a variable DOCEX_PROXY_SERVERS_<NAME>_HOST adds.
func serverNames(v *viper.Viper) []string {
	names := slices.Sorted(maps.Keys(v.GetStringMap(serversKey)))
	variables := map[string]bool{}
	for _, name := range names {
		variables[hostKey(name).variable()] = true
	}
	for _, entry := range os.Environ() {
		variable, _, _ := strings.Cut(entry, "=")
		name, ok := strings.CutPrefix(variable, envPrefix+"SERVERS_")
		if !ok || variables[variable] {
			continue
		}
		if name, ok = strings.CutSuffix(name, "_HOST"); ok {
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}

func hostKey(server string) key { return serverKeys(server)[0] }

// decodeHook turns "a,b" of an environment variable into a list, and texts into durations. A number is no duration:
// a bare 10 would be ten nanoseconds.
func decodeHook() mapstructure.DecodeHookFunc {
	return mapstructure.ComposeDecodeHookFunc(
		func(from, to reflect.Type, data any) (any, error) {
			if to == reflect.TypeFor[time.Duration]() && from != to && from.Kind() != reflect.String && data != 0 {
				return nil, fmt.Errorf("%v needs a unit, such as %vs", data, data)
			}
			return data, nil
		},
		mapstructure.StringToTimeDurationHookFunc(),
		mapstructure.StringToSliceHookFunc(","),
	)
}

// decodeError takes the frame off mapstructure's error and leaves its lines, each with its key.
func decodeError(err error) error {
	var problems []error
	for line := range strings.Lines(err.Error()) {
		if parts := strings.SplitN(strings.TrimSpace(line), "'", 3); len(parts) == 3 && parts[0] == "" {
			key := strings.NewReplacer("[", ".", "]", "").Replace(parts[1])
			problems = append(problems, errors.New(key+":"+parts[2]))
		}
	}
	if problems == nil {
		return err
	}
	return errors.Join(problems...)
}
