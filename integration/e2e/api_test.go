package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLocalAPI(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	d := newDevice(t, local(b, "sensors:\n  - {name: board, driver: host, every: 1s}\n  - {name: broken, driver: kernel, chip: nobody-has-this, every: 1s}\noutbox: {max_size: 4MiB, max_record: 4KiB}\n"))
	d.run()
	d.connected()
	if info, err := os.Stat(filepath.Join(d.dir, "s")); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", info, err)
	}

	for name, c := range map[string]struct {
		method, path, body string
		status             int
		words              []string
	}{
		"every fault of a body": {"POST", "/v1/events", `{"type":"Bad Type","qos":7,"when":1,"time":"noon"}`, 400,
			[]string{`type: \"Bad Type\": use lower-case letters, digits, _ and -`, "qos: 7: use 1 or 2", "when: unknown; known are type, qos, data, time, properties", `time: \"noon\": write it like 2026-11-22T10:00:00Z`}},
		"no type":             {"POST", "/v1/events", `{}`, 400, []string{"type: missing"}},
		"no JSON":             {"POST", "/v1/events", `{"type"`, 400, []string{"the body is no JSON object"}},
		"no object":           {"POST", "/v1/events", `[1]`, 400, []string{"the body is no JSON object"}},
		"empty":               {"POST", "/v1/events", ``, 400, []string{"the body is no JSON object"}},
		"a bad wait":          {"POST", "/v1/events?wait=soon", `{"type":"x"}`, 400, []string{`wait: \"soon\": write it like 30s`}},
		"a long wait":         {"POST", "/v1/events?wait=24h", `{"type":"x"}`, 400, []string{"at most 10m"}},
		"bad properties":      {"POST", "/v1/events", `{"type":"x","properties":{"colour":1}}`, 400, []string{"properties.colour: unknown; known are contentType"}},
		"too large":           {"POST", "/v1/events", `{"type":"x","data":"` + strings.Repeat("x", 5000) + `"}`, 413, []string{"4096"}},
		"much too large":      {"POST", "/v1/events", `{"type":"x","data":"` + strings.Repeat("x", 1<<20) + `"}`, 413, []string{"outbox.max_record"}},
		"a bad id":            {"GET", "/v1/events/nonsense", "", 400, []string{"nonsense"}},
		"an unknown id":       {"GET", "/v1/events/00000000-0000000000000001", "", 404, []string{"00000000-0000000000000001"}},
		"an unknown path":     {"GET", "/v2", "", 404, []string{"there is no GET /v2 here"}},
		"a wrong method":      {"DELETE", "/v1/events", "", 405, []string{"there is no DELETE for /v1/events; use POST"}},
		"an unknown purge":    {"POST", "/v1/outbox/purge?what=all", "", 400, []string{"use dead or queued"}},
		"no such sensor":      {"GET", "/v1/readings/nobody", "", 404, []string{`no sensor, meter, input or output is called \"nobody\"`}},
		"a sensor that fails": {"GET", "/v1/readings/broken", "", 503, []string{"nobody-has-this"}},
		"an unknown state":    {"GET", "/v1/outbox?state=lost", "", 400, []string{"queued, sent or dead"}},
	} {
		status, body, err := d.request(c.method, c.path, c.body)
		if err != nil || status != c.status {
			t.Errorf("%s: %d, %v, want %d: %s", name, status, err, c.status, body)
		}
		var e struct{ Error string }
		if json.Unmarshal(body, &e) != nil || e.Error == "" {
			t.Errorf("%s: the answer is no JSON with an error: %s", name, body)
		}
		for _, w := range c.words {
			if !strings.Contains(string(body), w) {
				t.Errorf("%s: no %q in %s", name, w, body)
			}
		}
	}

	d.until("readings", func() bool { return d.get("/v1/readings")["board"] != nil })
	if r := d.get("/v1/readings/board"); r["load_1m"] == nil || r["time"] == nil {
		t.Errorf("a reading now: %v", r)
	}
	s := d.get("/v1/status")
	if s["device"] != "pump-7" || s["root"] != "fieldagent/pump-7" || s["version"] != "v0.0.0-e2e" || s["outbox"].(map[string]any)["limit_bytes"].(float64) != 4<<20 {
		t.Errorf("status: %v", s)
	}
	d.until("a failed sensor", func() bool {
		for _, x := range d.get("/v1/status")["sensors"].([]any) {
			if x := x.(map[string]any); x["name"] == "broken" && x["state"] == "failed" && strings.Contains(fmt.Sprint(x["error"]), "nobody-has-this") {
				return true
			}
		}
		return false
	})
	status, text, err := d.request("GET", "/metrics", "")
	if err != nil || status != 200 {
		t.Errorf("metrics: %d %v", status, err)
	}
	for _, want := range []string{"fieldagent_connected 1\n", "fieldagent_outbox_events 0\n", `fieldagent_sensor_ok{sensor="board"} 1`, `fieldagent_sensor_ok{sensor="broken"} 0`, "# TYPE fieldagent_readings_sent_total counter", "fieldagent_outbox_limit_bytes 4194304\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := d.cli(0, "status"); !strings.Contains(text, "connected to mqtt://"+b.Addr()) || !strings.Contains(text, "nobody-has-this") {
		t.Errorf("status:\n%s", text)
	}
	if text := d.cli(0, "status", "--json"); !json.Valid([]byte(text)) {
		t.Errorf("status --json:\n%s", text)
	}
	if text := d.cli(0, "read", "board"); !strings.Contains(text, "load_1m") {
		t.Errorf("read:\n%s", text)
	}
	d.cli(1, "read", "broken")
}
