package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

type broker struct {
	Servers []string      `config:"servers,required" doc:"Brokers."`
	Keep    time.Duration `config:"keepalive" default:"30s" min:"0s" max:"1h"`
	CA      string        `config:"ca_file" local:"true"`
	Version string        `config:"version" default:"3.1.1" enum:"3.1.1,5"`
}

func (b *broker) Check(report func(path, message, hint string)) {
	for i, s := range b.Servers {
		if !strings.Contains(s, "://") {
			report("servers["+string(rune('0'+i))+"]", "no URL", "add mqtt://")
		}
	}
}

type sensor struct {
	Name    string `config:"name,required" pattern:"^[a-z0-9-]+$"`
	Driver  string `config:"driver,required"`
	Options any    `union:"driver"`
}

type bme struct {
	Bus     string `config:"bus" default:"i2c-1"`
	Address uint16 `config:"address" default:"0x76" min:"0x08" max:"0x77"`
}

type file struct {
	MQTT    broker            `config:"mqtt"`
	Sensors []sensor          `config:"sensors"`
	Size    int64             `config:"max_size" unit:"bytes" default:"256MiB" min:"1MiB"`
	Labels  map[string]string `config:"labels"`
	On      bool              `config:"on"`
	Scale   *float64          `config:"scale"`
}

var opt = Options{Union: func(key, v string) (any, []string) {
	if v == "bme280" {
		return &bme{}, nil
	}
	return nil, []string{"bme280"}
}}

func load(t *testing.T, docs ...string) (file, error) {
	t.Helper()
	var src []Source
	for i, d := range docs {
		src = append(src, Source{Name: string(rune('a'+i)) + ".yaml", Data: []byte(d)})
	}
	var f file
	err := Load(&f, opt, src...)
	return f, err
}

func TestGood(t *testing.T) {
	f, err := load(t, "mqtt: {servers: [\"mqtt://x\"], keepalive: 2m, version: 5}\nsensors:\n  - {name: a, driver: bme280, address: 0x77}\nlabels: {site: north}\n", "mqtt: {keepalive: 0}\nmax_size: 64 MiB\nscale: 1.5\n")
	if err != nil {
		t.Fatal(err)
	}
	o, ok := f.Sensors[0].Options.(*bme)
	if !ok || o.Address != 0x77 || o.Bus != "i2c-1" || f.MQTT.Keep != 0 || f.MQTT.Servers[0] != "mqtt://x" || f.Size != 64<<20 || f.Labels["site"] != "north" || *f.Scale != 1.5 || f.MQTT.Version != "5" {
		t.Fatalf("%+v %+v", f, o)
	}
	out, err := YAML(f)
	if err != nil {
		t.Fatal(err)
	}
	again, err := load(t, string(out))
	if err != nil || again.Sensors[0].Options.(*bme).Address != 0x77 || again.Size != 64<<20 {
		t.Fatalf("what is written cannot be read: %v\n%s", err, out)
	}
}

func TestFaultsAllAtOnce(t *testing.T) {
	_, err := load(t, `mqtt:
  server: ["mqtt://x"]
  keepalive: fast
sensors:
  - {name: Attic, driver: bme280, adress: 0x76}
  - {name: b, driver: bme820}
max_size: 1
on: yes
`)
	got := ""
	if err != nil {
		got = err.Error()
	}
	want := []string{
		`a.yaml:2:3: mqtt: the key "servers" is missing (Brokers)`,
		`a.yaml:2:3: mqtt.server: unknown key (did you mean servers?)`,
		`a.yaml:3:14: mqtt.keepalive: "fast" is no duration (write it like 500ms, 30s, 2m or 24h)`,
		`a.yaml:5:12: sensors[0].name: "Attic" is not allowed (it must match ^[a-z0-9-]+$)`,
		`a.yaml:5:35: sensors[0].adress: unknown key (did you mean address?)`,
		`a.yaml:6:23: sensors[1].driver: unknown driver "bme820" (did you mean bme280?)`,
		`a.yaml:7:11: max_size: 1 is less than the least, 1MiB (write 1MiB or more)`,
		`a.yaml:8:5: on: "yes" is neither true nor false (write true or false)`,
	}
	if got != strings.Join(want, "\n") {
		t.Fatalf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestHostile(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'j'; c++ {
		bomb += string(c) + ": &" + string(c) + " [*" + strings.Repeat(string(c-1)+",*", 8) + string(c-1) + "]\n"
	}
	for name, c := range map[string]struct{ doc, want string }{
		"empty":    {"", "the file is empty"},
		"comments": {"# nothing\n", "the file is empty"},
		"second":   {"mqtt: {servers: [\"mqtt://x\"]}\n---\non: true\n", "a second document begins here"},
		"bomb":     {bomb, "anchors and aliases"},
		"merge":    {"on: true\n<<: {on: true}\n", "a key must be a plain word"},
		"twice":    {"on: true\non: false\n", `key "on" is given twice`},
		"deep":     {strings.Repeat("[", 5000), "a.yaml"},
		"nested":   {"on: " + strings.Repeat("[", 60) + strings.Repeat("]", 60), "nested more than 24 deep (no key is that deep: count the brackets"},
		"tab":      {"mqtt:\n\tservers: []\n", "spaces, not with tabs"},
		"utf8":     {"on: tr\xffue\n", "a.yaml:1:7: byte 0xff is not text"},
		"nul":      {"on: \x00\n", "is not text"},
		"garbage":  {"\x7f%&@!{[", "a.yaml"},
		"large":    {strings.Repeat("x: 1\n", 60000), "the limit is"},
		"list":     {"- a\n", "a list where a section with keys is wanted"},
		"word":     {"hello\n", "a value where a section with keys is wanted"},
		"many":     {"labels: {" + manyKeys(15000) + "}\n", ""},
	} {
		start := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := load(t, c.doc)
		runtime.ReadMemStats(&after)
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
			t.Errorf("%s: %d MB allocated", name, n>>20)
		}
		_ = start
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k")
		for i > 0 {
			b.WriteByte(byte('a' + i%26))
			i /= 26
		}
		b.WriteString(": x, ")
	}
	return b.String()
}

func TestOverlay(t *testing.T) {
	local := []Source{{"local.yaml", []byte("mqtt: {servers: [\"mqtt://x\"], keepalive: 10s, ca_file: /ca}\nsensors: [{name: a, driver: bme280}]\n")}}
	over := func(doc string) (file, error) {
		var f file
		return f, Overlay(&f, opt, local, Source{"remote", []byte(doc)}, []string{"mqtt", "sensors"})
	}
	if _, err := over("on: true\nmqtt: {ca_file: /tmp/x}\n"); err == nil || !strings.Contains(err.Error(), "on: can only be set in the local file") || !strings.Contains(err.Error(), "mqtt.ca_file: can only be set in the local file") {
		t.Fatal(err)
	}
	var f file
	if err := Overlay(&f, opt, local, Source{"remote", []byte(`{"mqtt":{"keepalive":"20s"},"sensors":[]}`)}, []string{"mqtt", "sensors"}); err != nil {
		t.Fatal(err)
	}
	if f.MQTT.Keep != 20*time.Second || f.MQTT.CA != "/ca" || len(f.Sensors) != 0 {
		t.Fatalf("%+v", f)
	}
	if _, err := over(strings.Repeat("#", MaxRemote+1)); err == nil || !strings.Contains(err.Error(), "the limit is 65536") {
		t.Fatal(err)
	}
}

func TestFilesInOrder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, s string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("f.yaml", "mqtt: {servers: [\"mqtt://x\"]}\n")
	write("conf.d/20.yaml", "mqtt: {keepalive: 2s}\n")
	write("conf.d/10.yaml", "mqtt: {keepalive: 1s}\n")
	src, err := Files(filepath.Join(dir, "f.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := Load(&f, opt, src...); err != nil || f.MQTT.Keep != 2*time.Second {
		t.Fatal(f, err)
	}
	if _, err := Files(filepath.Join(dir, "none.yaml")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Fatal(err)
	}
}

func TestSecret(t *testing.T) {
	p := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(p, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Secret(p); err != nil || s != "hunter2" {
		t.Fatal(s, err)
	}
	if err := os.Chmod(p, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Secret(p); err == nil || !strings.Contains(err.Error(), "chmod 640") || strings.Contains(err.Error(), "hunter2") {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(p))
	if err := os.Chmod(p, 0o400); err != nil {
		t.Fatal(err)
	}
	if s, err := Secret("pw"); err != nil || s != "hunter2" {
		t.Fatal(s, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("mqtt: {servers: [\"mqtt://x\"]}\nsensors: [{name: a, driver: bme280, address: 0x76}]\n")
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, doc string) {
		if len(doc) > 4096 {
			return
		}
		var v file
		err := Load(&v, opt, Source{"f", []byte(doc)})
		if err == nil && len(v.MQTT.Servers) == 0 && strings.TrimSpace(doc) != "" && !strings.Contains(doc, "[]") && !strings.Contains(doc, "servers") {
			t.Fatalf("no servers and no fault: %q", doc)
		}
	})
}

func TestSchema(t *testing.T) {
	b, err := Schema(&file{}, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"const": "bme280"`, `"additionalProperties": false`, `"required": [`, `"default": "30s"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in\n%s", want, b)
		}
	}
}
