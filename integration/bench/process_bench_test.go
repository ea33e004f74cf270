package bench

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fieldagent/integration/wire"
)

// tenSensors are the host's own and nine that need no hardware.
func tenSensors(every string) string {
	var s strings.Builder
	s.WriteString("sensors:\n  - {name: board, driver: host, every: 30s}\n")
	for i := range 9 {
		fmt.Fprintf(&s, "  - {name: s%d, driver: simulated, every: %s}\n", i, every)
	}
	return s.String()
}

// BenchmarkIdle is an agent with ten sensors and nothing to tell.
func BenchmarkIdle(b *testing.B) {
	br := mosquitto(b, 0)
	d := newDisk(b, 128)
	a := runAgent(b, filepath.Join(d.path, "state"), fmt.Sprintf(brokerSection, br.Addr(), 16, 64)+tenSensors("30s"))
	a.empty(b, nil)
	<-time.After(15 * time.Second) // what starting wrote and cost is over
	bytes, began, busy := d.written(), time.Now(), cpu(b, a.cmd.Process.Pid)
	<-time.After(40 * time.Second)
	share := (cpu(b, a.cmd.Process.Pid) - busy).Seconds() / time.Since(began).Seconds() * 100
	report(b, row{what: "idle, ten sensors: resident memory", got: statusKB(b, a.cmd.Process.Pid, "VmRSS") / 1024, floor: 16, side: atMost, unit: "MB", limits: "the program's own pages"})
	report(b, row{what: "idle, ten sensors: bytes written", got: d.written() - bytes, floor: 0, side: atMost, unit: "bytes", limits: "nothing is stored, so nothing is written"})
	report(b, row{what: "idle, ten sensors: share of a core", got: share, floor: 0.5, side: atMost, unit: "%", limits: "wake-ups"})
}

// BenchmarkStart takes the time from exec to the first reading at the broker, and the memory with a backlog.
func BenchmarkStart(b *testing.B) {
	const rounds = 5
	br := mosquitto(b, 0)
	var bare []float64
	for range rounds {
		dir := b.TempDir()
		bare = append(bare, untilReading(b, br.Addr(), func() func() {
			cmd := role(b, "bare", br.Addr(), dir)
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			return func() { _ = cmd.Wait() }
		}))
	}
	for _, c := range []struct {
		n     int
		floor float64
	}{{0, 100}, {1_000_000, 200}} {
		state := filepath.Join(b.TempDir(), "state")
		if c.n > 0 {
			output(b, "fill", state, fmt.Sprint(c.n), "1", fmt.Sprint(1024<<20))
		}
		var took []float64
		anonymous := 0.0
		for range rounds {
			took = append(took, untilReading(b, br.Addr(), func() func() {
				a := runAgent(b, state, fmt.Sprintf(brokerSection, br.Addr(), 1, 1024)+"sensors:\n  - {name: s0, driver: simulated, every: 1s}\n")
				return func() {
					anonymous = max(anonymous, statusKB(b, a.cmd.Process.Pid, "RssAnon")/1024)
					a.stop(b)
				}
			}))
		}
		report(b, row{what: fmt.Sprintf("exec to first reading, backlog of %d", c.n), got: median(took), floor: c.floor, side: atMost, unit: "ms",
			limits: fmt.Sprintf("bare paho and bbolt: %.0f ms", median(bare))})
		if c.n > 0 {
			report(b, row{what: fmt.Sprintf("anonymous memory, backlog of %d", c.n), got: anonymous, floor: 24, side: atMost, unit: "MB", limits: "the newest rows, 512 KiB of them, and the runtime"})
		}
	}
}

// untilReading returns the milliseconds until a reading comes; start starts the publisher and returns what ends it.
func untilReading(b testing.TB, addr string, start func() func()) float64 {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, p := range []wire.Packet{wire.Connect("bench-watch", true, 0), wire.Subscribe(1, "fieldagent/bench/sensor/s0", 0)} {
		if _, err := conn.Write(p.Raw); err != nil {
			b.Fatal(err)
		}
		if _, err := wire.Read(r, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	end := start()
	conn.SetReadDeadline(began.Add(time.Minute))
	for {
		p, err := wire.Read(r, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		if p.Type() == wire.PUBLISH {
			took := time.Since(began)
			end()
			return float64(took.Microseconds()) / 1000
		}
	}
}

// BenchmarkReadings compares the processor time of readings at a slow pace with paho's for the same bytes at the same pace.
func BenchmarkReadings(b *testing.B) {
	const length = 20 * time.Second
	br := mosquitto(b, 0)
	var s strings.Builder
	s.WriteString("sensors:\n")
	for i := range 10 {
		fmt.Fprintf(&s, "  - {name: s%d, driver: simulated, every: 100ms}\n", i)
	}
	state := b.TempDir()
	a := runAgent(b, state, fmt.Sprintf(brokerSection, br.Addr(), 16, 64)+s.String())
	a.empty(b, nil)
	pub := role(b, "paho-readings", br.Addr())
	in, err := pub.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := pub.Start(); err != nil {
		b.Fatal(err)
	}
	<-time.After(3 * time.Second)
	ours, theirs := cpu(b, a.cmd.Process.Pid), cpu(b, pub.Process.Pid)
	<-time.After(length)
	ours, theirs = cpu(b, a.cmd.Process.Pid)-ours, cpu(b, pub.Process.Pid)-theirs
	in.Close()
	if err := pub.Wait(); err != nil {
		b.Fatal(err)
	}
	per1000 := func(d time.Duration) float64 { return d.Seconds() * 1000 / (length.Seconds() * 100) * 1000 }
	report(b, row{what: "CPU per 1,000 readings, times paho", got: ours.Seconds() / theirs.Seconds(), floor: 1.5, side: atMost, unit: "x paho",
		limits: fmt.Sprintf("wake-ups; agent %.0f ms, paho %.0f ms", per1000(ours), per1000(theirs))})
}

// BenchmarkBinary is the size that a Pi Zero gets.
func BenchmarkBinary(b *testing.B) {
	const name = "dist/fieldagent-linux-arm-6"
	build := exec.Command("make", "-s", "-C", filepath.Join("..", ".."), name)
	if text, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, text)
	}
	info, err := os.Stat(filepath.Join("..", "..", name))
	if err != nil {
		b.Fatal(err)
	}
	report(b, row{what: "binary, GOARM=6, stripped", got: float64(info.Size()) / 1e6, floor: 10, side: atMost, unit: "MB", limits: "the libraries that are given"})
}
