package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each exit code, and the words that go with it.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	d := newDevice(t, local(b, ""))
	d.run()

	// 4: another agent holds the state; also one with a socket of its own.
	for _, socket := range []string{filepath.Join(d.dir, "s"), filepath.Join(d.dir, "s2")} {
		out, errOut, code, _ := command("run", "--config", d.file, "--state", filepath.Join(d.dir, "state"), "--socket", socket)
		if code != 4 || !strings.Contains(errOut, fmt.Sprintf("process %d", d.cmd.Process.Pid)) {
			t.Errorf("a second agent: code %d, %s%s", code, out, errOut)
		}
	}
	if _, err := os.Stat(filepath.Join(d.dir, "s2")); err == nil {
		t.Error("the second agent left a socket")
	}
	d.cli(0, "status") // the first is not disturbed

	bad := filepath.Join(d.dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("mqtt: {servers: []}\nsensor: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	readonly := filepath.Join(d.dir, "file")
	if err := os.WriteFile(readonly, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	state2, state3, socket2 := filepath.Join(d.dir, "state2"), filepath.Join(d.dir, "state3"), filepath.Join(d.dir, "s2")
	for name, c := range map[string]struct {
		code int
		args []string
		want string
	}{
		"a state that is a file":    {1, []string{"run", "--config", d.file, "--state", readonly, "--socket", socket2}, readonly},
		"a socket of another agent": {1, []string{"run", "--config", d.file, "--state", state2, "--socket", filepath.Join(d.dir, "s")}, "another agent serves it"},
		"a socket with a long path": {1, []string{"run", "--config", d.file, "--state", state2, "--socket", "/tmp/" + strings.Repeat("x", 110)}, "name a shorter one with --socket"},
		"an unknown command":        {2, []string{"start"}, `unknown command "start"`},
		"an unknown flag":           {2, []string{"run", "--fast"}, "unknown flag: --fast"},
		"too many arguments":        {2, []string{"run", "now"}, `unknown command "now"`},
		"no file":                   {3, []string{"run", "--config", "/nowhere.yaml", "--state", state3}, "/nowhere.yaml: no such file (name another with --config"},
		"a bad file":                {3, []string{"run", "--config", bad, "--state", state3, "--socket", socket2}, bad + ":2:1: sensor: unknown key (did you mean sensors?)"},
	} {
		out, errOut, code, _ := command(c.args...)
		if code != c.code || !strings.Contains(errOut, c.want) || out != "" {
			t.Errorf("%s: code %d, want %d with %q: %s%s", name, code, c.code, c.want, out, errOut)
		}
	}
	if _, err := os.Stat(state3); err == nil {
		t.Error("a state folder was made for a configuration that is bad")
	}
}
