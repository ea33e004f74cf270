package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEmulatedCPU runs the agent's own tests as programs of other boards: GOARM=6 on an emulated ARM1176 (Raspberry Pi Zero), which knows no later
// instruction, and arm64. 32-bit numbers, alignment and atomic words are what it looks for. The short form takes the packages that have most of these.
func TestEmulatedCPU(t *testing.T) {
	for _, c := range []struct {
		name     string
		env      []string
		emulator string
		packages []string
		short    []string
	}{
		{"GOARM=6", []string{"GOARCH=arm", "GOARM=6", "QEMU_CPU=arm1176"}, "qemu-arm-static", []string{"queue", "sensors", "agent"}, []string{"queue", "sensors"}},
		{"arm64", []string{"GOARCH=arm64"}, "qemu-aarch64-static", []string{"queue", "sensors", "agent"}, []string{"sensors"}},
	} {
		packages := c.packages
		if testing.Short() {
			packages = c.short
		}
		for _, p := range packages {
			t.Run(c.name+"/"+p, func(t *testing.T) {
				folder, err := filepath.Abs(filepath.Join("../..", p))
				if err != nil {
					t.Fatal(err)
				}
				program := filepath.Join(t.TempDir(), p+".test")
				env := append(os.Environ(), append(c.env, "CGO_ENABLED=0", "GOOS=linux")...)
				build := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", program, ".")
				build.Dir, build.Env = folder, env
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("build: %v\n%s", err, out)
				}
				began := time.Now()
				run := exec.Command(c.emulator, program, "-test.short", "-test.timeout=15m", "-test.parallel=2", "-test.v")
				run.Dir, run.Env = folder, env
				out, err := run.CombinedOutput()
				text := string(out)
				if err != nil || !strings.HasSuffix(strings.TrimSpace(text), "PASS") {
					t.Fatalf("%v\n%s", err, text)
				}
				t.Logf("%d tests passed in %v", strings.Count(text, "\n--- PASS: "), time.Since(began).Round(time.Second))
			})
		}
	}
}
