package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/agent/config"
	"fieldagent/sensors/drivers"
)

func golden(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "config", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

func loadFile(t *testing.T, file string) (Config, error) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	return cfg, config.Load(&cfg, ConfigOptions(drivers.All), config.Source{Name: filepath.Base(file), Data: data})
}

// Each bad file has beside it the exact words that its owner reads. UPDATE=1 writes them anew: read the difference before you commit it.
func TestBadFiles(t *testing.T) {
	for _, file := range golden(t, "bad/*.yaml") {
		_, err := loadFile(t, file)
		if err == nil {
			t.Errorf("%s has no faults", file)
			continue
		}
		words := strings.TrimSuffix(file, ".yaml") + ".txt"
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(words, []byte(err.Error()+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, readErr := os.ReadFile(words)
		if got := err.Error() + "\n"; readErr != nil || got != string(want) {
			t.Errorf("%s says\n%s\nwant (%v)\n%s", file, got, readErr, want)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: a secret is told:\n%v", file, err)
		}
	}
}

// Each good file loads, and so does what is printed of it, to the same.
func TestGoodFiles(t *testing.T) {
	for _, file := range golden(t, "good/*.yaml") {
		cfg, err := loadFile(t, file)
		if err != nil {
			t.Errorf("%s:\n%v", file, err)
			continue
		}
		first, err := config.YAML(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		var again Config
		if err := config.Load(&again, ConfigOptions(drivers.All), config.Source{Name: "printed", Data: first}); err != nil {
			t.Errorf("%s: what is printed of it does not load:\n%v\n%s", file, err, first)
			continue
		}
		if second, err := config.YAML(&again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s: printed twice, it differs: %v\n%s\n%s", file, err, first, second)
		}
	}
}
