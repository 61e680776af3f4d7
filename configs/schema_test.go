package configs_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/docex-proxy/docex-proxy/configs"
)

const schemaFile = "docex-proxy.schema.json"

func TestTheSchemaIsThatOfTheCode(t *testing.T) {
	got, err := configs.Schema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what the code says (run with -update if it should be)", schemaFile)
	}
	var loose map[string]any
	if err := json.Unmarshal(got, &loose); err != nil {
		t.Fatal(err)
	}
	for _, path := range [][]string{
		{"properties", "timeouts", "properties", "upgrade", "default"},
		{"properties", "servers", "additionalProperties", "properties", "sslmode", "enum"},
		{"properties", "io", "enum"},
	} {
		var at any = loose
		for _, step := range path {
			object, _ := at.(map[string]any)
			at = object[step]
		}
		if at == nil {
			t.Errorf("nothing at %v", path)
		}
	}
}
