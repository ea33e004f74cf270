package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fieldagent/integration/broker"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: the command line as people type it. Besides testscript's commands there are
//
//	code N program args...   ends with exit code N; stdout and stderr look at its output
//	broker                   starts mosquitto; $BROKER is its address
//	until program args...    again and again until it succeeds
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": exitCode, "broker": brokerCommand, "until": until},
	})
}

func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: code N program args...")
	}
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s ends with code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func brokerCommand(ts *testscript.TestScript, _ bool, _ []string) {
	b, err := broker.Start("mosquitto", ts.MkAbs("broker"), broker.Options{})
	ts.Check(err)
	ts.Defer(func() { _ = b.Close() })
	ts.Setenv("BROKER", b.Addr())
	ts.Check(os.WriteFile(ts.MkAbs("fieldagent.yaml"), []byte("device: {id: pump-7}\nmqtt: {servers: [\"mqtt://"+b.Addr()+"\"]}\nsensors:\n  - {name: board, driver: host, every: 1s}\n  - {name: tank, driver: simulated, every: 1s}\n"), 0o644))
}

func until(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); ts.Exec(args[0], args[1:]...) != nil; {
		select {
		case <-tick.C:
		case <-timeout:
			ts.Fatalf("in vain: %s", strings.Join(args, " "))
		}
	}
}
