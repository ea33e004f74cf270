package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// The published JSON Schema, read by a library that shares no code with the agent, takes every good file and refuses the bad ones that it can know of.
func TestSchema(t *testing.T) {
	t.Parallel()
	out, errOut, code, _ := command("config", "schema")
	if code != 0 {
		t.Fatal(errOut)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("fieldagent.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("fieldagent.json")
	if err != nil {
		t.Fatal(err)
	}
	judged := func(pattern string) map[string]error {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		verdicts := map[string]error{}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if yaml.Unmarshal(data, &v) == nil {
				verdicts[filepath.Base(file)] = schema.Validate(v)
			}
		}
		return verdicts
	}
	for _, pattern := range []string{"configs/*.yaml", "agent/testdata/config/good/*.yaml"} {
		for file, err := range judged(pattern) {
			if err != nil {
				t.Errorf("%s: the schema refuses a good file: %v", file, err)
			}
		}
	}
	bad := judged("agent/testdata/config/bad/*.yaml")
	for _, file := range []string{"names.yaml", "types.yaml", "limits.yaml", "keys.yaml"} {
		if bad[file] == nil {
			t.Errorf("%s: the schema takes a bad file", file)
		}
	}
}
