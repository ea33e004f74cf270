package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type pause struct {
	Min time.Duration `config:"min" default:"1s" min:"10ms" max:"1h"`
	Max time.Duration `config:"max" default:"60s" min:"10ms"`
}

type wide struct {
	Words  []string          `config:"words" each_like:"mqtt://b"`
	State  string            `config:"state" default:"OFF" enum:"ON,OFF"`
	Unit   string            `config:"unit" pattern:"^[a-z]+$"`
	Line   string            `config:"line,required" doc:"Line by name."`
	Pause  pause             `config:"pause"`
	Count  int               `config:"count" min:"1" max:"9"`
	Small  uint8             `config:"small"`
	Real   float64           `config:"real" max:"2"`
	On     bool              `config:"on"`
	Labels map[string]string `config:"labels"`
}

func (w *wide) Check(report func(path, message, hint string)) {
	for i, s := range w.Words {
		if !strings.Contains(s, "://") {
			report("words["+string(rune('0'+i))+"]", "no URL", "add mqtt://")
		}
	}
	if w.Pause.Min > w.Pause.Max {
		report("pause.min,pause.max", "more than pause.max", "make it smaller")
	}
	for k := range w.Labels {
		if k == "bad" {
			report("labels", "a bad label", "remove it")
		}
	}
}

// One mistake is one line, with a hint that helps.
func TestOneMistakeOneLine(t *testing.T) {
	for doc, want := range map[string]string{
		"words: [5]":                        `words[0]: 5 is a number, a text is wanted (write it like "mqtt://b")`,
		"words: [b]":                        "words[0]: no URL (add mqtt://)",
		"words: [[a]]":                      "words[0]: a list where a text is wanted (write one value, without - or [ ])",
		"words: [~]":                        "words[0]: nothing where a text is wanted (give it a value, or remove it)",
		"words: b":                          "words: a value where a list is wanted (write - before each, or [a, b])",
		"pause: {max: 0}":                   "pause.max: 0s is less than the least, 10ms (write 10ms or more)",
		"pause: {min: 2h, max: 3h}":         "pause.min: 2h0m0s is more than the most, 1h0m0s (write 10ms to 1h)",
		"pause: {min: 2m, max: x}":          `pause.max: "x" is no duration (write it like 500ms, 30s, 2m or 24h)`,
		"pause: {min: 2m}":                  "pause.min: more than pause.max (make it smaller)",
		"pause: 5":                          "pause: a value where a section with keys is wanted (write its keys below it, such as min, max)",
		"labels: 5":                         "labels: a value where a section with keys is wanted (write name: value below it, or {name: value})",
		"labels:\n  good:\n    c: d":        "labels.good: a section with keys where a text is wanted (write one value, without keys)",
		"state: true":                       `state: true is true or false, a text is wanted (write "ON" or "OFF")`,
		"state: {a: b}":                     "state: a section with keys where a text is wanted (write one value, without keys)",
		"unit: 5":                           "unit: 5 is a number, a text is wanted (it must match ^[a-z]+$)",
		"unit: true":                        `unit: true is true or false, a text is wanted (put quotes around it: "true")`,
		"count: x":                          `count: "x" is no whole number (write a whole number without quotes, 1 to 9)`,
		"count: 0":                          "count: 0 is less than the least, 1 (write 1 to 9)",
		"small: 256":                        "small: 256 is out of range (write a number that fits)",
		"real: x":                           `real: "x" is no number (write a number without quotes, such as 1.5)`,
		"real: .inf":                        `real: ".inf" is no number that can be used (write a number such as 1.5)`,
		"real: 3":                           "real: 3 is more than the most, 2 (write 2 or less)",
		"on: !!bool maybe":                  "the tag !!bool is not allowed here (write the value without it; a text may stand in quotes)",
		"unit: !!python/object:os.system x": "the tag !!python/object:os.system is not allowed here (",
		"unit: !foo x":                      "the tag !foo is not allowed here (",
		"!!python/name:x unit: x":           "the tag !!python/name:x is not allowed here (",
		"labels: !!set {a: ~}":              "the tag !!set is not allowed here (",
		"unit: !!null x":                    "the tag !!null is not allowed here (",
		"&a unit: x":                        "anchors and aliases (& and *) are not allowed (write the value out)",
		"[a]: b":                            "a key must be a plain word (write name: value; lists, sections and << are no keys)",
	} {
		var w wide
		err := Load(&w, opt, Source{"a.yaml", []byte("line: x\n" + doc + "\n")})
		lines := strings.Split(strings.TrimSuffix(errorText(err), "\n"), "\n")
		if !strings.Contains(lines[0], want) || len(lines) > 1 {
			t.Errorf("%s: got\n%s\nwant\n%s", doc, strings.Join(lines, "\n"), want)
		}
	}
	for doc, want := range map[string]string{
		"line: \"\"":               "a.yaml:1:7: line: is empty (Line by name)",
		"line: \" \"":              "a.yaml:1:7: line: is empty (Line by name)",
		"unit: !!str x":            `a.yaml:1:1: the key "line" is missing (Line by name)`,
		"unit: !!str 5":            "line 5", // the tag is taken, the value is not
		"line: x\nreal: !!float 2": "",
	} {
		var w wide
		err := Load(&w, opt, Source{"a.yaml", []byte(doc)})
		if want == "line 5" {
			want = `a.yaml:1:7: unit: "5" is not allowed (it must match ^[a-z]+$)`
			if !strings.Contains(errorText(err), want) {
				t.Errorf("%s: got %v, want %s", doc, err, want)
			}
			continue
		}
		if errorText(err) != want {
			t.Errorf("%s: got %v, want %s", doc, err, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Every fault that the owner of a bad file reads says what to do.
func TestEveryFaultHasAHint(t *testing.T) {
	files, err := filepath.Glob("../testdata/config/bad/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			if !strings.HasSuffix(line, ")") {
				t.Errorf("%s: no hint: %s", file, line)
			}
		}
	}
}

type knows struct {
	Sensors []sensor `config:"sensors"`
}

// What only the program knows is told in one go with all the rest, with its place.
func TestOptionsCheck(t *testing.T) {
	o := opt
	o.Check = func(v any, report func(path, message, hint string)) {
		if s, ok := v.(*sensor); ok && s.Name == "a" {
			report("name", "a is taken", "choose another")
			report("options.bus", "no such bus", "see scan")
		}
	}
	var k knows
	err := Load(&k, o, Source{"a.yaml", []byte("sensors:\n  - name: a\n    driver: bme280\n    options:\n      bus: x\n  - {name: A}\n")})
	want := `a.yaml:2:11: sensors[0].name: a is taken (choose another)
a.yaml:4:5: sensors[0].options: unknown key (known are name, driver, bus, address)
a.yaml:5:12: sensors[0].options.bus: no such bus (see scan)
a.yaml:6:5: sensors[1]: the key "driver" is missing ()
a.yaml:6:12: sensors[1].name: "A" is not allowed (it must match ^[a-z0-9-]+$)`
	if got := errorText(err); got != strings.ReplaceAll(want, " ()", "") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A file of conf.d may have nothing in it, the main file may not.
func TestEmptyFiles(t *testing.T) {
	good := "mqtt: {servers: [\"mqtt://x\"]}\n"
	for _, empty := range []string{"", "# nothing\n", "---\n", "~\n", "\xef\xbb\xbf", "\n\n"} {
		if _, err := load(t, good, empty, good, empty); err != nil {
			t.Errorf("%q in conf.d: %v", empty, err)
		}
		_, err := load(t, empty, good)
		if want := `a.yaml: the file is empty (write at least mqtt: {servers: ["mqtts://broker.example.net:8883"]}, or mqtt: {} to do without a broker)`; errorText(err) != want {
			t.Errorf("%q: %v, want %s", empty, err, want)
		}
		var f file
		err = Overlay(&f, opt, []Source{{"a.yaml", []byte(good)}}, Source{"config/set", []byte(empty)}, []string{"mqtt"})
		if want := "config/set: the file is empty (to return to the local file, publish a retained message without a payload)"; errorText(err) != want {
			t.Errorf("remote %q: %v", empty, err)
		}
	}
}

func TestRemoteHint(t *testing.T) {
	var f file
	err := Overlay(&f, opt, []Source{{"a.yaml", []byte("mqtt: {servers: [\"mqtt://x\"]}\n")}}, Source{"config/set", []byte("mqtt: {ca_file: /x}\n")}, []string{"mqtt"})
	if want := "config/set:1:8: mqtt.ca_file: can only be set in the local file (remove it here, and set it in the file on the device)"; errorText(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestConfD(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*?")
	write := func(name, s string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	main := filepath.Join(dir, "f.yaml")
	write("f.yaml", "mqtt: {}\n")
	names := func() []string {
		src, err := Files(main)
		if err != nil {
			t.Error(err)
		}
		var out []string
		for _, s := range src {
			out = append(out, filepath.Base(s.Name))
		}
		return out
	}
	if got := names(); len(got) != 1 {
		t.Errorf("without conf.d: %v", got)
	}
	for _, n := range []string{"20.yaml", "10.yaml", ".hidden.yaml", ".yaml", "30.yaml~", "40.yml", ".#20.yaml"} {
		write("conf.d/"+n, "")
	}
	if got := strings.Join(names(), " "); got != "f.yaml 10.yaml 20.yaml" {
		t.Errorf("read %s", got)
	}

	if err := os.Symlink("nowhere", filepath.Join(dir, "conf.d", "50.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "conf.d", "60.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Files(main)
	for _, want := range []string{"50.yaml: is a link to nothing (remove it", "60.yaml: is a folder (name a file)"} {
		if !strings.Contains(errorText(err), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}

	conf := filepath.Join(dir, "conf.d")
	if err := os.Chmod(conf, 0); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 { // root reads everything
		if _, err := Files(main); !strings.Contains(errorText(err), "conf.d: permission denied (the agent's user must be able to read the folder; run: chmod o+rx "+conf) {
			t.Error(err)
		}
	}
	if err := os.Chmod(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(conf); err != nil {
		t.Fatal(err)
	}
	write("conf.d", "")
	if _, err := Files(main); !strings.Contains(errorText(err), "conf.d: is no folder (make it a folder") {
		t.Error(err)
	}
	if got := cause(&os.PathError{Op: "open", Path: "x", Err: syscall.EACCES}); got != "permission denied" {
		t.Error(got)
	}
}
