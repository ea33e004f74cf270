package config

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

type shown struct {
	Words  []string          `config:"words"`
	Map    map[string]string `config:"map"`
	Floats []float64         `config:"floats"`
	Seed   uint64            `config:"seed" default:"1"`
	Chip   uint16            `config:"chip" default:"0x76"`
	On     bool              `config:"on"`
	Size   int64             `config:"size" unit:"bytes"`
	Wait   time.Duration     `config:"wait"`
	Least  *float64          `config:"least"`
}

// words are such that some reader takes them for something else than texts.
var words = strings.Fields(`ON OFF On Off on off yes Yes YES no No NO y Y n N true false TRUE null NULL Null ~ = << 1:20 190:20:30 1:20.5 0o17 017 0x1f 0b101 1_000 +1 -1 1. .5 -.5 1e3 1e-3 1.5e+3 1.0
	.inf -.INF .nan 2001-01-01 2001-1-1 2001-12-14t21:59:43.10-05:00 3.1.1 5 10s 256MiB 127.0.0.1 pump-7 *a &a !a @a %a - -- --- ... ? : a:b a#b #a [a {a "a 'a |a >a ,a ` + "`a")

func sample() shown {
	texts := append([]string{"", " ", "a: b", "a #b", " a", "a ", "a\nb", "a\n", "ä", "\t", "2001-01-01 10:00:00", "\u00a0", "\u2028", "😀", "\x7f", "\x01", "- a", "? a"}, words...)
	s := shown{Words: texts, Map: map[string]string{}, Floats: []float64{1e-9, 1.5e-9, 0.1, 1, 0, -0.5, 100, 1e6, 1e21, 123456789, 1.7976931348623157e308, 5e-324, math.Pi}, Seed: 1, Chip: 0x76, On: true, Size: 64 << 10, Wait: 90 * time.Minute}
	for _, w := range texts {
		s.Map[w] = w
	}
	least := 1e-9
	s.Least = &least
	return s
}

// What is written is read as the same by this loader, and by a reader of YAML 1.1 (Python's).
func TestShownForAllReaders(t *testing.T) {
	s := sample()
	out, err := YAML(&s)
	if err != nil {
		t.Fatal(err)
	}
	var again shown
	if err := Load(&again, Options{}, Source{"a.yaml", out}); err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("%v\n%s\nis read as %+v", err, out, again)
	}
	for _, want := range []string{"seed: 1\n", "chip: 0x76\n", "  - 1.0e-09\n", "  - \"ON\"\n", "  - \"y\"\n", "  - \"1:20\"\n", "  - \"0o17\"\n", "  - 10s\n", "\"on\": true\n", "least: 1.0e-09\n", "wait: 1h30m\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	file := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(file, out, 0o644); err != nil {
		t.Fatal(err)
	}
	python, err := exec.Command("python3", "-c", "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))", file).CombinedOutput()
	if err != nil {
		if strings.Contains(string(python), "ModuleNotFoundError") || len(python) == 0 {
			t.Skip("no PyYAML here")
		}
		t.Fatalf("%s\n%s", python, out)
	}
	var got struct {
		Words  []string          `json:"words"`
		Map    map[string]string `json:"map"`
		Floats []float64         `json:"floats"`
		Seed   uint64            `json:"seed"`
		Chip   uint16            `json:"chip"`
		On     bool              `json:"on"`
		Size   string            `json:"size"`
		Wait   string            `json:"wait"`
		Least  float64           `json:"least"`
	}
	if err := json.Unmarshal(python, &got); err != nil {
		t.Fatalf("%v: %s", err, python)
	}
	if !reflect.DeepEqual(got.Words, s.Words) || !reflect.DeepEqual(got.Map, s.Map) || !reflect.DeepEqual(got.Floats, s.Floats) || got.Seed != 1 || got.Chip != 0x76 || !got.On || got.Size != "64KiB" || got.Wait != "1h30m" || got.Least != 1e-9 {
		t.Errorf("Python reads\n%s\nof\n%s", python, out)
	}
}

// The schema's durations and the loader's are the same.
func TestDurationPattern(t *testing.T) {
	b, err := Schema(&shown{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Properties map[string]struct{ Pattern string }
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	schema := regexp.MustCompile(s.Properties["wait"].Pattern)
	for text, want := range map[string]bool{"0": true, "30s": true, "500ms": true, "1h30m": true, "1.5h": true, "7d": true, "99999d": true, "0s": true, "10us": true, "10µs": true, "5ns": true,
		"": false, "5": false, "1d12h": false, "1.5d": false, "100000d": false, "+5s": false, "-5s": false, ".5s": false, "5.s": false, "5 s": false, "5S": false, "1w": false, "00": false, "+0": false, "-0": false, "1e3s": false, "fast": false} {
		_, err := ParseDuration(text)
		if (err == nil) != want || schema.MatchString(text) != want {
			t.Errorf("%q: the loader says %v, the schema %v; want %v", text, err, schema.MatchString(text), want)
		}
	}
}

// The schema has the patterns that the loader keeps in words.
func TestSchemaPatterns(t *testing.T) {
	type x struct {
		Name  string   `config:"name,required"`
		Words []string `config:"words" each_schema:"^a+$"`
	}
	b, err := Schema(&x{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"pattern": "\\S"`, `"pattern": "^a+$"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in\n%s", want, b)
		}
	}
	var v x
	if err := Load(&v, Options{}, Source{"a.yaml", []byte("{name: b, words: [b]}")}); err != nil {
		t.Errorf("the pattern for the schema is not for the loader: %v", err)
	}
}
