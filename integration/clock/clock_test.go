// Package clock runs the whole agent in a time that the test sets: Go's time.Now, the kernel's word on it and the boot id come from a file.
// The program is the agent's, built with three edits (go build -overlay); everything that asks for the time is shifted, schedules included.
package clock

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/device"
	"fieldagent/integration/verify"
)

// edits are made to the agent, and to Go's package time below goroot.
func edits(goroot string) []device.Edit {
	return []device.Edit{
		{File: filepath.Join(goroot, "src", "time", "time.go"), Old: "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", New: "var Shift int64\n\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += Shift\n"},
		{File: "agent/clock.go", Old: "func kernelClock(boot uint32) func() queue.Stamp {\n\treturn func() queue.Stamp {\n", New: `func testClock() (shift, uptime int64, synced bool, boot string) {
	b, _ := os.ReadFile(os.Getenv("FIELDAGENT_CLOCK"))
	_ = json.Unmarshal(b, &struct {
		Shift, Uptime *int64
		Synced        *bool
		Boot          *string
	}{&shift, &uptime, &synced, &boot})
	return
}

func kernelClock(boot uint32) func() queue.Stamp {
	return func() queue.Stamp {
		shift, up, synced, _ := testClock()
		time.Shift = shift
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		s := queue.Stamp{Wall: time.Now().UTC(), Boot: boot, Uptime: time.Duration(ts.Nano()-up)}
		if synced {
			s.Clock = queue.ClockSynced
		}
		return s
	}
}

func kernelClockUnused(boot uint32) func() queue.Stamp {
	return func() queue.Stamp {
`},
		{File: "agent/clock.go", Old: "\ttext, err := os.ReadFile(\"/proc/sys/kernel/random/boot_id\")\n", New: "\t_, _, _, id := testClock()\n\ttext, err := []byte(id), error(nil)\n"},
		{File: "agent/clock.go", Old: "\t\"encoding/hex\"\n", New: "\t\"encoding/hex\"\n\t\"encoding/json\"\n"},
	}
}

const config = `device: {id: box}
mqtt: {servers: ["mqtt://%s"], reconnect: {min: 50ms, max: 500ms}}
sensors:
  - {name: tank, driver: simulated, every: 200ms}
`

// board is the clock of the board under test.
type board struct {
	t      *testing.T
	file   string
	boot   int
	uptime int64
}

// reboot gives the board a new boot id and an uptime of nothing.
func (b *board) reboot() {
	b.boot++
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		b.t.Fatal(err)
	}
	var up float64
	fmt.Sscan(string(text), &up)
	b.uptime = int64(up * 1e9)
}

// set makes the wall clock stand at a time, from now on.
func (b *board) set(at time.Time, synced bool) {
	b.t.Helper()
	text, err := json.Marshal(map[string]any{"Shift": int64(time.Until(at) / time.Second), "Uptime": b.uptime, "Synced": synced, "Boot": fmt.Sprintf("%08x", b.boot)})
	if err == nil {
		err = os.WriteFile(b.file+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(b.file+".new", b.file)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

type stamped struct {
	ID    string
	Time  time.Time
	Clock string
	Boot  string
}

// seen is what the broker delivered.
type seen struct {
	mu       sync.Mutex
	events   map[string]stamped
	readings []stamped
	moved    chan struct{}
}

func (s *seen) take(topic string, payload []byte, _ byte) {
	var x stamped
	if json.Unmarshal(payload, &x) != nil || x.Time.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case strings.Contains(topic, "/event/"):
		s.events[x.ID] = x
	case strings.HasSuffix(topic, "/sensor/tank"):
		s.readings = append(s.readings, x)
	}
	close(s.moved)
	s.moved = make(chan struct{})
}

// wait returns when ok says so.
func (s *seen) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(90 * time.Second)
	for {
		s.mu.Lock()
		done, moved := ok(), s.moved
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

func (s *seen) event(t *testing.T, id string) (x stamped) {
	t.Helper()
	s.wait(t, "event "+id, func() bool { x = s.events[id]; return x.ID != "" })
	return x
}

// next returns the next reading that ok likes.
func (s *seen) next(t *testing.T, what string, ok func(stamped) bool) {
	t.Helper()
	s.mu.Lock()
	n := len(s.readings)
	s.mu.Unlock()
	s.wait(t, what, func() bool {
		for ; n < len(s.readings); n++ {
			if ok(s.readings[n]) {
				return true
			}
		}
		return false
	})
}

// TestBoardWithoutClock boots in 1970, sets the clock, steps it back a year, and boots again without a network.
func TestBoardWithoutClock(t *testing.T) {
	dir := t.TempDir()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	program, err := device.Build(dir, edits(strings.TrimSpace(string(goroot)))...)
	if err != nil {
		t.Fatal(err)
	}
	br, err := broker.Start("mosquitto", filepath.Join(dir, "broker"), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = br.Close() })
	s := &seen{events: map[string]stamped{}, moved: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	consumer := &verify.Consumer{Addr: br.Addr(), ClientID: "clock", Filter: "fieldagent/box/#", Message: s.take}
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-consumer.Ready()

	clock := &board{t: t, file: filepath.Join(dir, "clock")}
	t.Setenv("FIELDAGENT_CLOCK", clock.file)
	d, err := device.New(program, dir, fmt.Sprintf(config, br.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Kill)
	start := func() {
		t.Helper()
		if err := d.Start(""); err != nil {
			t.Fatal(err)
		}
		if err := d.Await(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	emit := func() string {
		t.Helper()
		id, status, err := d.Emit("test", 2, map[string]int{"n": 1})
		if err != nil || status != 201 {
			t.Fatalf("emit: %d, %v", status, err)
		}
		return id
	}
	near := func(x stamped, at time.Time) bool { return x.Time.Sub(at).Abs() < 10*time.Second }

	clock.reboot()
	clock.set(time.Unix(60, 0), false)
	start()
	s.next(t, "reading of 1970", func(x stamped) bool { return x.Time.Year() == 1970 && x.Clock == "unsynced" })
	if err := br.Stop(); err != nil {
		t.Fatal(err)
	}
	made, early := time.Now(), emit()
	clock.set(time.Now(), true) // now the network comes, and with it the time
	late := emit()
	if err := br.Start(); err != nil {
		t.Fatal(err)
	}
	if x := s.event(t, early); x.Clock != "corrected" || !near(x, made) {
		t.Errorf("made in 1970, sent after the clock was set at %v: %+v", made, x)
	}
	if x := s.event(t, late); x.Clock != "synced" || !near(x, made) {
		t.Errorf("made after the clock was set: %+v", x)
	}
	s.next(t, "reading of today", func(x stamped) bool { return near(x, time.Now()) })

	// A year back: readings go on at their pace, neither stopped nor flooding.
	clock.set(time.Now().AddDate(-1, 0, 0), true)
	s.next(t, "reading of last year", func(x stamped) bool { return near(x, time.Now().AddDate(-1, 0, 0)) })
	s.mu.Lock()
	n, began := len(s.readings), time.Now()
	s.mu.Unlock()
	s.wait(t, "ten more readings", func() bool { return len(s.readings) >= n+10 })
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("ten readings in %v: a jump floods", took)
	}
	clock.set(time.Now(), true)
	s.next(t, "reading of today again", func(x stamped) bool { return near(x, time.Now()) })
	emit() // keeps the time on disk at the latest
	d.Stop()
	known := time.Now()

	// Power off, and a boot without a network.
	clock.reboot()
	clock.set(time.Unix(60, 0), false)
	start()
	x := s.event(t, emit())
	if x.Clock != "unsynced" || x.Time.Before(known.Add(-10*time.Second)) || x.Time.After(time.Now().Add(time.Minute)) {
		t.Errorf("made in a boot without the time, last known at %v: %+v", known, x)
	}
	if x.Boot != "00000002" {
		t.Errorf("boot %q, want the second", x.Boot)
	}
}
