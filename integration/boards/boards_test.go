package boards

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/wire"
)

const config = `device: {id: %[1]s}
mqtt: {servers: ["mqtt://10.0.2.100:1883"], keepalive: 60s, reconnect: {min: 200ms, max: 1s}}
sensors:
  - {name: outdoor, driver: lm75, bus: %[2]s, address: 0x48, every: 500ms}
  - {name: behind-mux, driver: tmp102, bus: %[2]s, address: 0x49, every: 500ms}
outputs:
  - {name: relay1, line: "%[3]s", initial: "OFF"}
`

const inputs = `inputs:
  - {name: door, line: "%[1]s", debounce: 0s, event: {type: door, qos: 1}}
meters:
  - {name: energy, line: "%[2]s", edge: rising, debounce: 0s, unit: kwh, pulses_per_unit: 1000, every: 200ms, event: {every: 700h, qos: 2}, save: {every: 1s, pulses: 100}}
`

const debounced = `  - {name: button, line: "%s", debounce: 2s, event: {type: button}}
`

// TestBoards is the main job on real kernels: chips, inputs, a meter, an output, and a power cut. In its short form on two of the boards, with fewer pulses.
func TestBoards(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 35*time.Minute)
	t.Cleanup(cancel)
	cache, err := Prepare(ctx, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	pipe := build(t, ".", "pipe", "./pipe")
	for _, b := range All {
		if testing.Short() && !b.Inputs() {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel() // each has one busy thread
			onBoard(ctx, t, cache, b, pipe)
		})
	}
}

func build(t *testing.T, dir, out, pkg string, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), out)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", path, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(env, "CGO_ENABLED=0")...)
	if o, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, o)
	}
	return path
}

// shipped makes the agent as it is shipped: the Makefile has the flags.
func shipped(t *testing.T, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fieldagent")
	cmd := exec.Command("make", "-s", "-C", "../..", "build", "OUT="+path)
	cmd.Env = append(os.Environ(), env...)
	if o, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, o)
	}
	return path
}

// rig is a board, its disk, and the broker it talks to.
type rig struct {
	*Machine
	t     *testing.T
	s     *subscriber
	start func()
}

func onBoard(ctx context.Context, t *testing.T, cache Cache, b Board, pipe string) {
	br, err := broker.Start("mosquitto", t.TempDir(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer br.Close()
	cross := []string{"GOOS=linux", "GOARCH=" + b.GOARCH, "GOARM=" + b.GOARM}
	file := fmt.Sprintf(config, b.Name, b.Bus, b.Out)
	if b.Inputs() {
		file += fmt.Sprintf(inputs, b.In, b.In2)
		if b.In3 != "" {
			file = strings.Replace(file, "meters:\n", fmt.Sprintf(debounced, b.In3)+"meters:\n", 1)
		}
	}
	files := map[string][]byte{"fieldagent.yaml": []byte(file)}
	for name, path := range map[string]string{"init": build(t, ".", "guest", "./guest", cross...), "fieldagent": shipped(t, cross...)} {
		if files[name], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("sh", "-c", "truncate -s 64M "+disk+" && PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q "+disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	r := &rig{t: t, s: subscribe(t, br.Addr(), "fieldagent/"+b.Name)}
	defer func() {
		if r.Machine != nil {
			r.PowerOff()
			if t.Failed() {
				t.Logf("console:\n%s", r.Log())
			}
		}
	}()
	r.start = func() {
		began := time.Now()
		if r.Machine, err = Start(ctx, cache, b, t.TempDir(), pipe, br.Addr(), disk, files); err != nil {
			t.Fatal(err)
		}
		r.s.forget("sensor/outdoor", "sensor/energy")
		r.s.wait(t, "online", 8*time.Minute, func(s *subscriber) bool { return s.last["status"] == "online" })
		r.s.wait(t, "first reading", time.Minute, func(s *subscriber) bool { return s.last["sensor/outdoor"] != "" })
		t.Logf("power on to first reading at the broker: %.1f s", time.Since(began).Seconds())
	}
	r.start()
	steps := []func(){r.temperatures, r.output}
	if !b.Deaf {
		steps = append(steps, r.vanishingSensor, r.scan, r.byHand)
	}
	if b.Inputs() {
		if b.In3 != "" {
			steps = append(steps, r.debounce)
		}
		steps = append(steps, r.input, r.meter)
		if !testing.Short() || b.Name == imx8mp.Name {
			steps = append(steps, r.storm)
		}
	}
	for _, step := range steps {
		began := time.Now()
		step()
		t.Logf("%.1f s", time.Since(began).Seconds())
	}
	r.s.gaps(t)
}

func (r *rig) try(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tell(format string, args ...any) string {
	r.t.Helper()
	out, err := r.Tell(format, args...)
	r.try(err)
	return out
}

func (r *rig) temperatures() {
	values := []int{-12500, 0, 21500, 85000, -40000}
	if !testing.Short() {
		for milli := -54000; milli < 125000; milli += 17500 {
			values = append(values, milli)
		}
	}
	r.t.Logf("%d temperatures", len(values))
	for _, milli := range values {
		r.try(r.SetTemperature(milli))
		want := float64(milli) / 1000
		r.s.wait(r.t, fmt.Sprintf("temperature %v", want), time.Minute, func(s *subscriber) bool {
			return math.Abs(s.number("sensor/outdoor", "temperature_celsius")-want) < 0.2
		})
	}
}

// vanishingSensor takes the chip behind the mux off the bus and gives it back.
func (r *rig) vanishingSensor() {
	r.t.Log("a chip is taken off the bus and given back")
	status := func(want string) {
		r.s.wait(r.t, "chip behind the mux "+want, 2*time.Minute, func(s *subscriber) bool { return s.last["sensor/behind-mux/status"] == want })
	}
	status("ok")
	r.try(r.Mux(0))
	status("failed")
	r.try(r.Mux(1))
	status("ok")
}

func (r *rig) scan() {
	out := r.tell("fieldagent scan")
	r.t.Logf("scan:\n%s", out)
	for _, want := range []string{"0x48", "0x49", "0x68", "0x70", "ds1307", "lm75", r.Board.Bus, r.Board.Out, "driver: lm75"} {
		if !strings.Contains(out, want) {
			r.t.Errorf("scan does not show %q", want)
		}
	}
}

func (r *rig) output() {
	r.t.Log("the output over MQTT, seen from outside")
	topic := "fieldagent/" + r.Board.Name + "/output/relay1/set"
	for _, high := range []bool{true, false} {
		r.s.publish(r.t, topic, onOff(high))
		r.reads(high)
	}
	r.s.publish(r.t, topic, `{"state":"ON","for":"2500ms"}`)
	r.reads(true)
	r.reads(false)
}

// reads waits until the output's line has a level, and its topic says so.
func (r *rig) reads(high bool) {
	r.t.Helper()
	r.s.wait(r.t, "output "+onOff(high), time.Minute, func(s *subscriber) bool {
		v, err := r.Board.Lines.Read(r.Machine, r.Board.Out)
		return err == nil && v == high && s.last["output/relay1"] == onOff(high)
	})
}

// byHand is what an installer does on the board itself.
func (r *rig) byHand() {
	r.t.Log("set and read by hand")
	if out := r.tell("fieldagent set relay1 on"); !strings.Contains(out, "relay1 ON") {
		r.t.Errorf("set by hand: %s", out)
	}
	r.reads(true)
	if out := r.tell("alone set relay1 off --for 1s"); !strings.Contains(out, `is held by "fieldagent relay1"`) {
		r.t.Errorf("a busy line does not say who holds it: %s", out)
	}
	r.reads(true)
	if out := r.tell("fieldagent read outdoor"); !strings.Contains(out, "temperature_celsius") {
		r.t.Errorf("read by hand: %s", out)
	}
}

// input drives the door. While the agent stands still the kernel keeps the edges, and their times.
func (r *rig) input() {
	r.t.Log("the input")
	r.s.mu.Lock()
	before := len(r.s.events["door"])
	r.s.mu.Unlock()
	doors := func(n int, high bool) {
		r.t.Helper()
		n += before
		r.s.wait(r.t, fmt.Sprintf("door event %d", n), time.Minute, func(s *subscriber) bool {
			return len(s.events["door"]) == n && strings.Contains(s.events["door"][n-1], onOff(high)) && s.last["input/door"] == onOff(high)
		})
	}
	for i, high := range []bool{true, false} {
		r.try(r.Edge(high, r.Board.In))
		doors(i+1, high)
	}
	r.tell("stop")
	r.try(r.Edge(true, r.Board.In))
	<-time.After(2 * time.Second)
	r.try(r.Edge(false, r.Board.In))
	r.tell("cont")
	doors(4, false)
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if d := eventTime(r.t, r.s.events["door"][before+3]).Sub(eventTime(r.t, r.s.events["door"][before+2])); d < 1500*time.Millisecond {
		r.t.Errorf("edges 2 s apart have times %v apart: those of their reading", d)
	}
}

// debounce: a level counts only when it holds, and the event has the time of its beginning.
func (r *rig) debounce() {
	r.t.Log("debounce by the kernel")
	buttons := func(n int) {
		r.t.Helper()
		r.s.wait(r.t, fmt.Sprintf("button event %d", n), time.Minute, func(s *subscriber) bool { return len(s.events["button"]) == n })
	}
	r.try(r.Edge(true, r.Board.In, r.Board.In3))
	buttons(1)
	r.try(r.Edge(false, r.Board.In3)) // too short to count
	r.try(r.Edge(true, r.Board.In3))
	<-time.After(3 * time.Second)
	r.try(r.Edge(false, r.Board.In, r.Board.In3))
	buttons(2)
	r.s.wait(r.t, "door", time.Minute, func(s *subscriber) bool { return len(s.events["door"]) == 2 })
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for i := range 2 {
		door, button := eventTime(r.t, r.s.events["door"][i]), eventTime(r.t, r.s.events["button"][i])
		if d := button.Sub(door); d < -time.Second || d > time.Second || !strings.Contains(r.s.events["button"][i], onOff(i == 0)) {
			r.t.Errorf("the same edge with and without debounce: %v apart\n%s\n%s", d, r.s.events["door"][i], r.s.events["button"][i])
		}
	}
}

func eventTime(t *testing.T, event string) time.Time {
	var e struct{ Time time.Time }
	if err := json.Unmarshal([]byte(event), &e); err != nil {
		t.Fatal(err)
	}
	return e.Time
}

func (r *rig) pulses(n int) {
	r.t.Helper()
	for range n {
		r.try(r.Edge(true, r.Board.In2))
		r.try(r.Board.Lines.Drive(r.Machine, r.Board.In2, false)) // no edge that anybody waits for
	}
}

func (r *rig) total(what string, want int) {
	r.t.Helper()
	r.s.wait(r.t, what, time.Minute, func(s *subscriber) bool { return s.number("sensor/energy", "total_pulses") == float64(want) })
}

// meter counts exactly, loses no more than its bound when the power is cut in the middle, and goes on.
func (r *rig) meter() {
	n, bound := 1000, 100
	if testing.Short() {
		n = 400
	}
	r.t.Logf("%d pulses, with a power cut in the middle", n)
	began := time.Now()
	r.pulses(n / 2)
	r.t.Logf("one pulse takes %.1f ms", time.Since(began).Seconds()*1000/float64(n/2))
	r.total("half of the pulses", n/2)
	r.pulses(bound / 2)
	r.PowerOff()
	r.s.wait(r.t, "the will after the power cut", 3*time.Minute, func(s *subscriber) bool { return s.last["status"] == "offline" })
	r.start()
	r.s.wait(r.t, "the total", time.Minute, func(s *subscriber) bool { return s.last["sensor/energy"] != "" })
	r.s.mu.Lock()
	got := int(r.s.number("sensor/energy", "total_pulses"))
	r.s.mu.Unlock()
	driven := n/2 + bound/2
	r.t.Logf("goes on at %d after %d pulses", got, driven)
	if got > driven || got < driven-bound {
		r.t.Fatalf("goes on at %d after %d pulses: the bound is %d", got, driven, bound)
	}
	r.pulses(n - driven)
	r.total("all pulses", n-driven+got)
	if testing.Short() {
		return
	}
	<-time.After(1500 * time.Millisecond) // save.every is 1 s: after it, nothing may be lost
	r.PowerOff()
	r.s.wait(r.t, "the will after the power cut", 3*time.Minute, func(s *subscriber) bool { return s.last["status"] == "offline" })
	r.start()
	r.total("what was saved", n-driven+got)
}

// storm: more edges than the kernel keeps for an agent that stands still. The meter's total is exact; the input says how many are missing.
func (r *rig) storm() {
	const kept = 1024
	r.t.Log("more edges than anybody reads")
	r.s.mu.Lock()
	before, doors, gaps := int(r.s.number("sensor/energy", "total_pulses")), len(r.s.events["door"]), len(r.s.events["gap"])
	r.s.mu.Unlock()
	r.tell("stop")
	const edges = 2*kept + 100 // of the door; the meter counts half of them
	for i := range edges {
		r.try(r.Edge(i%2 == 0, r.Board.In, r.Board.In2))
	}
	r.tell("cont")
	r.total("an exact total", before+edges/2)
	r.s.wait(r.t, "all doors, or a gap that counts them", 3*time.Minute, func(s *subscriber) bool {
		missed := 0
		for _, g := range s.events["gap"][gaps:] {
			var e struct{ Data struct{ Missed int } }
			_ = json.Unmarshal([]byte(g), &e)
			missed += e.Data.Missed
		}
		return missed > 0 && len(s.events["door"])-doors+missed == edges
	})
}

func onOff(b bool) string {
	if b {
		return "ON"
	}
	return "OFF"
}

// subscriber keeps the last message of each topic and all events.
type subscriber struct {
	mu     sync.Mutex
	c      net.Conn
	root   string
	last   map[string]string
	events map[string][]string
	seqs   []string
	news   chan struct{}
}

func subscribe(t *testing.T, addr, root string) *subscriber {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &subscriber{c: c, root: root + "/", last: map[string]string{}, events: map[string][]string{}, news: make(chan struct{}, 1)}
	for _, p := range []wire.Packet{wire.Connect("judge", true, 0), wire.Subscribe(1, root+"/#", 1)} {
		if _, err := c.Write(p.Raw); err != nil {
			t.Fatal(err)
		}
	}
	go s.run()
	return s
}

func (s *subscriber) run() {
	r := bufio.NewReader(s.c)
	for {
		p, err := wire.Read(r, 1<<20)
		if err != nil {
			return
		}
		if p.Type() != wire.PUBLISH {
			continue
		}
		topic := strings.TrimPrefix(p.Topic(), s.root)
		s.mu.Lock()
		s.last[topic] = string(p.Payload())
		if kind, ok := strings.CutPrefix(topic, "event/"); ok {
			s.events[kind] = append(s.events[kind], string(p.Payload()))
			var e struct{ Sequence string }
			_ = json.Unmarshal(p.Payload(), &e)
			s.seqs = append(s.seqs, e.Sequence)
		}
		if p.QoS() == 1 {
			_, _ = s.c.Write(wire.Ack(wire.PUBACK, p.ID()).Raw)
		}
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

func (s *subscriber) publish(t *testing.T, topic, payload string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.c.Write(wire.Publish(0, topic, []byte(payload), 0, false).Raw); err != nil {
		t.Fatal(err)
	}
}

func (s *subscriber) forget(topics ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range topics {
		delete(s.last, t)
	}
}

// number is a member of the last message, NaN when there is none; the caller holds the lock.
func (s *subscriber) number(topic, member string) float64 {
	var m map[string]any
	if json.Unmarshal([]byte(s.last[topic]), &m) != nil {
		return math.NaN()
	}
	if v, ok := m[member].(float64); ok {
		return v
	}
	return math.NaN()
}

func (s *subscriber) wait(t *testing.T, what string, limit time.Duration, ok func(*subscriber) bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		done := ok(s)
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.news:
		case <-tick.C:
		case <-deadline:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("%s: not within %v; last messages: %v", what, limit, s.last)
		}
	}
}

// gaps checks that the events' sequences have no holes and no doubles.
func (s *subscriber) gaps(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range s.seqs {
		if want := fmt.Sprintf("%016d", i+1); q != want {
			t.Fatalf("event %d has sequence %s, want %s", i+1, q, want)
		}
	}
}
