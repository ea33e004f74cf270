package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Without an agent the command line says what its state file says: the configuration in force, what waits, and for how long.
func TestCommandLineWithoutAnAgent(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, "sensors: [{name: first, driver: simulated, every: 1s}]\noutbox: {max_size: 8MiB}\n"))

	// Before the first start there is no state.
	if text := d.cli(0, "config", "diff"); text != "the agent does not run, and there is no state in "+filepath.Join(d.dir, "state")+": this is the local file\n" {
		t.Errorf("config diff before the first start:\n%s", text)
	}
	if text := d.cli(1, "status"); !strings.Contains(text, "name the right folder with --state") {
		t.Errorf("status before the first start:\n%s", text)
	}

	d.run()
	d.connected()
	publish(t, b, sub.root+"config/set", `{"sensors":[{"name":"second","driver":"simulated","every":"1s"}]}`, "-r")
	sub.wait("config/state", 0, contains(`"result":"applied"`))
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	d.log.line(t, "connection lost")
	for range 3 {
		d.cli(0, "emit", "vend", "1")
	}

	// The state is the agent's: whoever asks at the wrong socket is told who has it.
	_, errOut, code, _ := command("outbox", "stats", "--state", filepath.Join(d.dir, "state"), "--socket", filepath.Join(d.dir, "none"))
	if code != 4 || !strings.Contains(errOut, fmt.Sprintf("process %d", d.cmd.Process.Pid)) {
		t.Errorf("at the wrong socket: code %d, %s", code, errOut)
	}
	d.kill()

	if text := d.cli(0, "config", "show"); !strings.Contains(text, "name: second") || strings.Contains(text, "name: first") || !strings.Contains(text, "this is what it would start with") {
		t.Errorf("config show:\n%s", text)
	}
	out, _, _, _ := command("config", "show", "--config", d.file)
	if !strings.Contains(out, "name: first") { // the file alone
		t.Errorf("config show --config:\n%s", out)
	}
	if text := d.cli(0, "config", "diff"); !strings.Contains(text, "-   - name: first") || !strings.Contains(text, "+   - name: second") {
		t.Errorf("config diff:\n%s", text)
	}
	text := d.cli(0, "status")
	for _, want := range []string{"does not run: nobody serves " + d.dir, "pump-7 (fieldagent/pump-7)", "3 events wait, oldest ", " of 8192 KiB", "revision 1 (remote)", "last remote document: applied", " on disk"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in status:\n%s", want, text)
		}
	}
	var s struct {
		Running bool
		Outbox  map[string]float64
		Config  struct{ Applied struct{ Source string } }
	}
	out, _, code, _ = command(d.args("status", "--json")...)
	if err := json.Unmarshal([]byte(strings.Replace(out, `"full": false`, `"full": 0`, 1)), &s); err != nil || code != 0 || s.Running || s.Outbox["depth"] != 3 || s.Config.Applied.Source != "remote" {
		t.Errorf("status --json: code %d, %v\n%s", code, err, out)
	}

	var stats map[string]any
	out, _, _, _ = command(d.args("outbox", "stats")...)
	if err := json.Unmarshal([]byte(out), &stats); err != nil {
		t.Fatal(err)
	}
	age, _ := stats["oldest_age_seconds"].(float64)
	if stats["depth"] != 3.0 || stats["limit_bytes"] != float64(8<<20) || stats["dead"] != 0.0 || age <= 0 || age > patience.Seconds() {
		t.Errorf("outbox stats: %s", out)
	}
	for _, unknown := range []string{"sent", "acknowledged", "refused", "commits", "written_today_bytes"} {
		if _, ok := stats[unknown]; ok {
			t.Errorf("outbox stats knows %q without an agent: %s", unknown, out)
		}
	}
	if text := d.cli(0, "outbox", "ls", "--only", "dead"); strings.Contains(text, "--limit") {
		t.Errorf("outbox ls --only dead, with none:\n%s", text)
	}

	// With a configuration that has faults, what does not need it is there.
	d.write("sensor: []\n")
	if text := d.cli(0, "status"); !strings.Contains(text, "3 events wait") || !strings.Contains(text, "sensor: unknown key") || strings.Contains(text, " of 256 MiB") {
		t.Errorf("status with a bad file:\n%s", text)
	}
	d.cli(3, "config", "show")
}

// An event that the broker will never take is a dead letter, and whoever waits for it is told so.
func TestEmitWaitTellsOfADeadLetter(t *testing.T) {
	t.Parallel()
	b := startBroker(t, "max_packet_size 2000")
	d := newDevice(t, fmt.Sprintf("device: {id: pump-7}\nmqtt: {servers: [\"mqtt://%s\"], version: \"5\"}\n", b.Addr()))
	d.run()
	d.connected()
	text := d.cli(1, "emit", "big", `"`+strings.Repeat("x", 3000)+`"`, "--wait")
	if !strings.Contains(text, " dead\n") || !strings.Contains(text, "it is a dead letter: ") || strings.Contains(text, "will be sent") {
		t.Errorf("emit --wait: %s", text)
	}
	if text := d.cli(0, "outbox", "ls", "--only", "dead"); strings.Count(text, "dead") != 1 || strings.Contains(text, "--limit") {
		t.Errorf("outbox ls:\n%s", text)
	}
}

// An output whose line cannot be held is a fault for whoever reads it, with an agent as without.
func TestReadOfALineThatFailed(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "device: {id: pump-7}\nmqtt: {servers: []}\noutputs: [{name: relay1, line: GPIO997}]\nmeters: [{name: energy, line: GPIO998}]\n")
	d.run()
	for _, name := range []string{"relay1", "energy"} {
		text := ""
		d.until("the fault of "+name, func() bool { text = fmt.Sprint(d.get("/v1/readings/" + name)["error"]); return text != "<nil>" })
		out, errOut, code, _ := command(d.args("read", name)...)
		if code != 1 || !json.Valid([]byte(out)) || !strings.Contains(errOut, text) {
			t.Errorf("read %s: code %d, %s%s", name, code, out, errOut)
		}
	}
}
