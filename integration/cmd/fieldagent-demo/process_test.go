package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const mainEnv = "FIELDAGENT_DEMO_MAIN"

func process(t *testing.T, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	cmd = exec.Command(self, args...)
	cmd.Env = append(os.Environ(), mainEnv+"=1", "TMPDIR="+dir)
	return cmd, dir
}

// A reader that goes away, as head does, ends the demo, and nothing is left behind.
func TestReaderGoesAway(t *testing.T) {
	cmd, dir := process(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for range 2 {
		if _, err := in.ReadString('\n'); err != nil {
			t.Error(err)
		}
	}
	out.Close()
	_ = cmd.Wait()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnknownArgument(t *testing.T) {
	cmd, _ := process(t, "nosuch")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), `unknown argument "nosuch"`) {
		t.Errorf("code %d: %s", code, out)
	}
}
