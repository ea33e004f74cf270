package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// configState is what config/state says.
type configState struct {
	Applied struct {
		Hash, Source string
		Revision     int
	}
	Last *struct {
		Hash, Result string
		Revision     int
		Errors       []string
	} `json:"last_attempt"`
}

func state(t *testing.T, m message) (s configState) {
	t.Helper()
	if err := json.Unmarshal([]byte(m.Payload), &s); err != nil {
		t.Fatalf("%v: %s", err, m.Payload)
	}
	return s
}

// A document on config/set is applied without a restart and without a new connection, is kept over restarts, and is gone with an empty one.
func TestRemoteConfiguration(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, "sensors: [{name: first, driver: simulated, every: 1s}]\n"))
	d.run()
	sub.wait("sensor/first", 0, nil)
	sub.wait("config/state", 0, func(m message) bool { return m.Retain == 0 && state(t, m).Applied.Source == "local" })
	pid := d.cmd.Process.Pid

	const doc = `{"sensors":[{"name":"second","driver":"simulated","every":"1s"}]}`
	set := sub.root + "config/set"
	publish(t, b, set, doc, "-r")
	m, n := sub.wait("config/state", 0, contains(`"result":"applied"`))
	s := state(t, m)
	if m.QoS != 1 || s.Applied.Source != "remote" || s.Applied.Revision != 1 || s.Applied.Hash != s.Last.Hash || len(s.Last.Errors) != 0 {
		t.Errorf("config/state: %+v %+v", m, s)
	}
	sub.wait("sensor/second", 0, nil)
	m, _ = sub.wait("config/current", 0, contains("name: second"))
	if strings.Contains(m.Payload, "name: first") || !strings.Contains(m.Payload, "keepalive: 30s") {
		t.Errorf("config/current:\n%s", m.Payload)
	}
	if got := d.get("/v1/status")["broker"].(map[string]any)["connects"].(float64); got != 1 || d.cmd.Process.Pid != pid {
		t.Errorf("%v connections after a change that is none of the connection's", got)
	}
	// The sensor that is gone leaves no retained state behind.
	sub.wait("sensor/first/status", 0, is(""))
	if text := d.cli(0, "config", "diff"); !strings.Contains(text, "-   - name: first") || !strings.Contains(text, "+   - name: second") {
		t.Errorf("config diff:\n%s", text)
	}
	if text := d.cli(0, "status"); !strings.Contains(text, "revision 1 (remote)") {
		t.Errorf("status:\n%s", text)
	}
	if text := d.cli(0, "config", "show"); !strings.Contains(text, "name: first") { // --config was given: the file
		t.Errorf("config show:\n%s", text)
	}

	// A bad one is rejected whole, with every fault and its place, and what is in force stays.
	publish(t, b, set, "sensors:\n  - {name: third, driver: simulate}\nmqtt: {password_file: /etc/shadow}\ncommands: []\ndevice: {id: other}\n")
	m, n = sub.wait("config/state", n, contains(`"result":"rejected"`))
	s = state(t, m)
	if s.Applied.Revision != 1 || len(s.Last.Errors) != 4 {
		t.Errorf("config/state: %s", m.Payload)
	}
	for i, want := range []string{
		`config/set:2:27: sensors[0].driver: unknown driver "simulate" (did you mean simulated?)`,
		"config/set:3:8: mqtt.password_file: can only be set in the local file",
		"config/set:4:1: commands: can only be set in the local file", "config/set:5:1: device: can only be set in the local file",
	} {
		if i < len(s.Last.Errors) && !strings.HasPrefix(s.Last.Errors[i], want) {
			t.Errorf("error %d: %s\nwant %s", i, s.Last.Errors[i], want)
		}
	}
	publish(t, b, set, strings.Repeat("#", 65<<10))
	_, n = sub.wait("config/state", n, contains(`"result":"rejected"`, "the limit is 65536"))

	// Kept over a kill and over a clean restart; the retained document is not tried again.
	for _, end := range []func(){d.kill, func() { d.stop() }} {
		end()
		from := sub.seen()
		d.run()
		sub.wait("sensor/second", from, nil)
		m, n = sub.wait("config/state", from, nil)
		if s := state(t, m); s.Applied.Source != "remote" || s.Applied.Revision != 1 {
			t.Errorf("after a restart: %s", m.Payload)
		}
	}
	d.log.line(t, "remote configuration not tried", "in force already")

	// A change of the connection's own settings makes a new one, under the same will and id.
	publish(t, b, set, `{"mqtt":{"keepalive":"20s"},"sensors":[]}`, "-r")
	_, n = sub.wait("config/state", n, contains(`"result":"applied"`))
	sub.wait("config/current", 0, contains("keepalive: 20s"))

	// An empty retained message returns to the local file.
	publish(t, b, set, "", "-r")
	_, n = sub.wait("config/state", n, contains(`"source":"local"`, `"result":"applied"`))
	sub.wait("sensor/first", n, nil)
	if text := d.cli(0, "config", "diff"); text != "" {
		t.Errorf("config diff:\n%s", text)
	}
}

// config: {remote: false} means that nobody listens.
func TestRemoteConfigurationSwitchedOff(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, "sensors: [{name: first, driver: simulated, every: 1s}]\nconfig: {remote: false}\n"))
	publish(t, b, sub.root+"config/set", `{"sensors":[]}`, "-r")
	d.run()
	_, n := sub.wait("status", 0, contains("online"))
	publish(t, b, sub.root+"cmd/ping", `{"id":"p-1"}`)
	_, n = sub.wait("cmd/ping/result", n, contains(`"status":"ok"`))
	sub.wait("sensor/first", n, nil)
	if text := d.log.String(); strings.Contains(text, "remote configuration") {
		t.Errorf("the log speaks of it:\n%s", text)
	}
}

// SIGHUP takes the file over without a restart when it has no faults; else all stays.
func TestReload(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, "sensors: [{name: first, driver: simulated, every: 1s}]\n"))
	d.run()
	_, n := sub.wait("sensor/first", 0, nil)
	d.write(local(b, "sensors: [{name: second, driver: simulated, every: 1s}]\n"))
	d.hup()
	d.log.line(t, "msg=reloaded")
	_, n = sub.wait("sensor/second", n, nil)
	d.write(local(b, "sensors: [{name: third, driver: simulted}]\n"))
	d.hup()
	d.log.line(t, "reload refused, the running configuration stays", fmt.Sprintf("%s:5:33: sensors[0].driver: unknown driver", d.file), "did you mean simulated?")
	_, n = sub.wait("sensor/second", n, nil)
	d.write(strings.Replace(local(b, ""), "pump-7", "pump-8", 1))
	d.hup()
	d.log.line(t, "reload refused", "the device id or the topic prefix changed (fieldagent/pump-7 to fieldagent/pump-8): restart the agent")
	if err := os.Remove(d.file); err != nil {
		t.Fatal(err)
	}
	d.hup()
	d.log.line(t, "reload refused", "no such file")
	sub.wait("sensor/second", n, nil)
	if got := d.get("/v1/status")["broker"].(map[string]any)["connects"].(float64); got != 1 {
		t.Errorf("%v connections", got)
	}
}
