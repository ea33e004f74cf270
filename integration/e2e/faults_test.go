package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const mostChecking = 64 << 20 // bytes resident while any file is checked

// Files that hurt other parsers: a clear error, exit code 3, little memory, and the same from check and run.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	random := make([]byte, 10<<20)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(random)
	var bomb strings.Builder
	bomb.WriteString("a: &a [x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c <= 'z'; c++ {
		fmt.Fprintf(&bomb, "%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 8), c-1)
	}
	flood := strings.Repeat("[", 100<<10)
	good := "mqtt: {servers: [\"mqtt://127.0.0.1\"]}\n"
	for name, c := range map[string]struct{ body, want string }{
		"empty":           {"", `f.yaml: the file is empty (write at least mqtt: {servers: ["mqtts://broker.example.net:8883"]}, or mqtt: {} to do without a broker)`},
		"only a comment":  {"# nothing\n", "f.yaml: the file is empty"},
		"second document": {good + "---\n" + good, "f.yaml:2:1: a second document begins here (---) (one file, one document; put more files into conf.d)"},
		"anchor bomb":     {bomb.String(), "f.yaml:1:4: anchors and aliases (& and *) are not allowed (write the value out)"},
		"10 MB of noise":  {string(random), "f.yaml: 10485760 bytes long, the limit is 262144 (is this the right file?)"},
		"200 KB of noise": {string(random[:200<<10]), "is not text in UTF-8 (save the file as UTF-8)"},
		"10 MB of keys":   {string(bytes.Repeat([]byte("key: value\n"), 1<<20)), "the limit is 262144"},
		"deep":            {flood, "f.yaml:"},
		"many values":     {"device: {labels: {" + strings.Repeat("a, ", 80<<10) + "}}\n", "f.yaml: more than 20000 values (is this the right file?)"},
		"just too many":   {"device: {labels: {" + strings.Repeat("a, ", 39<<10) + "}}\n", `key "a" is given twice (it stands in line 1 already)`},
		"tabs":            {"mqtt:\n\tservers: []\n", "YAML is indented with spaces, not with tabs"},
		"a binary":        {"\x7fELF\x02\x01\x01\x00", "f.yaml:1:8: byte 0x0 is not text in UTF-8"},
		"JSON with a bug": {`{"mqtt": {"servers": ["mqtt://b"], }`, "f.yaml:1:1: the { that begins here is not closed (write a } where it ends)"},
	} {
		file := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(file, []byte(c.body), 0o644); err != nil {
			t.Fatal(err)
		}
		out, errOut, code, resident := command("config", "check", "--config", file)
		if code != 3 || out != "" || !strings.Contains(errOut, c.want) || strings.Count(errOut, "\n") > 60 || strings.Contains(errOut, "goroutine") {
			t.Errorf("%s: code %d, want %q in\n%s%.3000s", name, code, c.want, out, errOut)
		}
		if resident == 0 || resident > mostChecking {
			t.Errorf("%s: %.0f MB resident", name, mb(resident))
		}
		t.Logf("%-16s %4.0f MB  %.120s", name, mb(resident), strings.TrimSpace(strings.TrimPrefix(errOut, filepath.Dir(file)+"/")))
		if _, ranErr, code, _ := command("run", "--config", file, "--state", t.TempDir(), "--socket", filepath.Join(t.TempDir(), "s")); code != 3 || !strings.Contains(ranErr, c.want) {
			t.Errorf("%s: run ends with code %d: %.3000s", name, code, ranErr)
		}
	}
}

// Five mistakes are five lines, each with its place and what to do.
func TestFiveMistakes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte(`device: {id: Pump 7}
mqtt:
  servers: ["http://broker"]
  keepalife: 30s
sensors:
  - {name: cabinet, driver: bme820, bus: i2c-1}
inputs:
  - {name: door, line: GPIO17, debounce: 20}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, errOut, code, _ := command("config", "check", file)
	want := fmt.Sprintf(`%[1]s:1:14: device.id: "Pump 7" is not allowed (it must match ^[a-z0-9][a-z0-9_-]{0,62}$)
%[1]s:3:13: mqtt.servers[0]: "http://broker": unknown scheme "http"; known are mqtt, mqtts, ws, wss and unix (write it like "mqtts://broker.example.net:8883")
%[1]s:4:3: mqtt.keepalife: unknown key (did you mean keepalive?)
%[1]s:6:29: sensors[0].driver: unknown driver "bme820" (did you mean bme280?)
%[1]s:8:42: inputs[0].debounce: "20" is no duration (write it like 500ms, 30s, 2m or 24h)
`, file)
	if code != 3 || errOut != want {
		t.Errorf("code %d, got\n%s\nwant\n%s", code, errOut, want)
	}
}
