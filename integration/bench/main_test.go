package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// roles are what this binary can be when it is started again as a process of its own.
var roles = map[string]func(args []string) error{
	"fill":          fillRole,
	"paho-drain":    pahoDrainRole,
	"paho-readings": pahoReadingsRole,
	"bare":          bareRole,
}

var (
	scratch string // gone at the end
	binary  string // the agent, as it is shipped
)

func TestMain(m *testing.M) {
	if role := os.Getenv("BENCH_ROLE"); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "fieldagent-bench-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	binary = filepath.Join(scratch, "fieldagent")
	build := exec.Command("make", "-s", "-C", filepath.Join("..", ".."), "build", "OUT="+binary)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the agent: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	fmt.Print(table())
	return code
}

// role starts this binary again in a role.
func role(b testing.TB, name string, args ...string) *exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "BENCH_ROLE="+name)
	return cmd
}

// output runs a role and returns what it prints.
func output(b testing.TB, name string, args ...string) string {
	b.Helper()
	cmd := role(b, name, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v\n%s", name, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}
