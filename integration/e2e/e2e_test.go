// Package e2e runs the real program as its users do: the built binary as a process, a real mosquitto, and mosquitto's own clients as judges.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// binary is the program under test, built once as releases are: static, without cgo.
var binary string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == measuring {
		measure(os.Args[2:])
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fieldagent-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "fieldagent")
		build := exec.Command("make", "-s", "-C", "../..", "build", "VERSION=v0.0.0-e2e", "OUT="+binary)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build:", err)
			return 1
		}
		return m.Run()
	}())
}

// measuring as the first argument makes this a small program that runs another one and writes its peak size to file 3: a child's peak counts from
// its parent's size on (getrusage(2), at exec), and a test that has run for a while is large.
const measuring = "run-and-measure"

func measure(args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(127)
	}
	fmt.Fprintln(os.NewFile(3, "peak"), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss<<10)
	os.Exit(cmd.ProcessState.ExitCode())
}
