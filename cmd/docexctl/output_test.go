package main

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	value := map[string]any{"number": 1, "text": "1", "truth": "true", "nothing": nil, "empty": "", "lines": "a\nb", "list": []any{}, "odd": "a: b # c", "time": "2026-01-01T00:00:00Z"}
	var text strings.Builder
	if err := encodeYAML(&text, value); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := yaml.Unmarshal([]byte(text.String()), &back); err != nil || !reflect.DeepEqual(back, value) {
		t.Errorf("%v: %s gives %#v", err, text.String(), back)
	}
}
