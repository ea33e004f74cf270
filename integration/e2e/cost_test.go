package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	mostMemory = 16 << 20 // resident, with ten sensors
	goalCPU    = 0.005    // of a core when idle: the goal
	mostCPU    = 0.02     // what fails the test, on a busy machine
	window     = 12 * time.Second
)

// An idle agent with ten sensors costs next to nothing.
func TestCostOfIdling(t *testing.T) {
	b := startBroker(t)
	sub := subscribe(t, b)
	var sensors strings.Builder
	for i := range 9 {
		fmt.Fprintf(&sensors, "  - {name: tank-%d, driver: simulated, every: 10s}\n", i)
	}
	d := newDevice(t, local(b, "sensors:\n  - {name: board, driver: host, every: 10s}\n"+sensors.String()))
	d.run()
	sub.wait("sensor/board", 0, nil)
	for i := range 9 {
		sub.wait(fmt.Sprintf("sensor/tank-%d", i), 0, nil)
	}
	pid := d.cmd.Process.Pid
	seen, before := sub.seen(), cpuTime(t, pid)
	<-time.After(window)
	used := float64(cpuTime(t, pid)-before) / float64(window)
	peak, resident, anonymous := memoryOf(t, pid, "VmHWM"), memoryOf(t, pid, "VmRSS"), memoryOf(t, pid, "RssAnon")
	t.Logf("ten sensors each 10 s: %.1f MB resident (peak %.1f, anonymous %.1f), %.2f %% of a core over %v, %d messages", mb(resident), mb(peak), mb(anonymous), used*100, window, sub.seen()-seen)
	if resident > mostMemory {
		t.Errorf("%.1f MB resident, the most is %.1f", mb(resident), mb(mostMemory))
	}
	if used > mostCPU {
		t.Errorf("%.2f %% of a core, the goal is %.1f and the most here %.1f", used*100, goalCPU*100, mostCPU*100)
	}
	if sub.seen() == seen {
		t.Error("it was idle because it did nothing")
	}
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }

// cpuTime is what the process has used so far, in user and in kernel mode (proc(5), schedstat: nanoseconds).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var sum time.Duration
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
		if err != nil {
			return ticks(t, pid)
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// ticks is the same in hundredths of a second, for kernels without schedstat.
func ticks(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memoryOf reads a size of a process in bytes.
func memoryOf(t *testing.T, pid int, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(find(string(b), key+":"))
	if len(f) < 2 {
		t.Fatalf("no %s in\n%s", key, b)
	}
	kb, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
