package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/agent/config"
	"fieldagent/queue"
	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"
)

const linesFile = `
inputs:
  - {name: door, line: GPIO17, debounce: 0s, event: {type: door, qos: 2}}
  - {name: button, line: GPIO18}
meters:
  - {name: energy, line: GPIO27, edge: rising, every: 200ms, unit: kwh, pulses_per_unit: 1000}
outputs:
  - {name: up, line: GPIO1, excludes: [down]}
  - {name: down, line: GPIO2}
`

func withLines(l sensors.Lines) func(*Options) { return func(o *Options) { o.Lines = l } }

// payloads returns what was delivered below a topic; the broker must be locked.
func (b *broker) payloads(suffix string) (out []string) {
	for _, m := range b.topic(suffix) {
		out = append(out, m.payload)
	}
	return out
}

func field(payload, name string) string {
	var e struct{ Data map[string]any }
	if json.Unmarshal([]byte(payload), &e) != nil {
		return ""
	}
	return fmt.Sprint(e.Data[name])
}

func TestInputs(t *testing.T) {
	b := newBroker(t)
	lines := &sensortest.Lines{Now: func() time.Duration { return sensors.Monotonic() - 5*time.Second }}
	dir := t.TempDir()
	r := start(t, dir, localFile(b.addr, linesFile), withLines(lines))
	const door = "fieldagent/pump-7/input/door"
	b.wait("the first state", func() bool {
		return b.retained[door].payload == "OFF" && b.retained["fieldagent/pump-7/input/button"].payload == "OFF"
	})
	before := time.Now()
	lines.Drive("GPIO17", true, 0)
	b.wait("ON", func() bool { return b.retained[door].payload == "ON" && len(b.topic("event/door")) == 1 })
	lines.Drive("GPIO17", false, 4)
	lines.Drive("GPIO18", true, 0)
	b.wait("OFF and a gap", func() bool {
		return b.retained[door].payload == "OFF" && len(b.topic("event/door")) == 2 && len(b.topic("event/gap")) == 1 && b.retained["fieldagent/pump-7/input/button"].payload == "ON"
	})
	b.mu.Lock()
	events, gap := b.topic("event/door"), b.payloads("event/gap")[0]
	b.mu.Unlock()
	var e struct{ Time time.Time }
	if err := json.Unmarshal([]byte(events[0].payload), &e); err != nil || events[0].qos != 2 || field(events[0].payload, "state") != "ON" {
		t.Errorf("event %+v: %v", events[0], err)
	}
	if age := before.Sub(e.Time); age < 4*time.Second || age > 30*time.Second {
		t.Errorf("the event's time is that of its reading, not of the edge: %v ago", age)
	}
	if field(gap, "missed") != "4" || field(gap, "input") != "door" {
		t.Errorf("gap %s", gap)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	lines.Drive("GPIO17", true, 0) // nobody watches
	start(t, dir, localFile(b.addr, linesFile), withLines(lines))
	b.wait("the change while the agent was away", func() bool { return len(b.topic("event/door")) == 3 })
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.payloads("event/door")[2]; field(p, "late") != "true" || field(p, "state") != "ON" {
		t.Errorf("late event %s", p)
	}
}

func TestOutputs(t *testing.T) {
	b := newBroker(t)
	lines := &sensortest.Lines{}
	r := start(t, t.TempDir(), localFile(b.addr, linesFile), withLines(lines))
	state := func(name string) string { return b.retained["fieldagent/pump-7/output/"+name].payload }
	set := func(name, payload string) { b.publish("fieldagent/pump-7/output/"+name+"/set", payload, false) }
	b.wait("the first state", func() bool { return state("up") == "OFF" && state("down") == "OFF" && b.subscribed("output/+/set") })

	set("up", "ON")
	b.wait("plain ON", func() bool { return state("up") == "ON" })
	set("down", "ON")
	b.wait("the interlock's answer", func() bool { return len(b.topic("output/down")) > 1 && state("down") == "OFF" })
	set("up", "toggle")
	b.wait("toggle", func() bool { return state("up") == "OFF" })
	set("down", `{"state":"ON","for":"50ms"}`)
	b.wait("a pulse", func() bool {
		n := len(b.topic("output/down"))
		return n >= 4 && state("down") == "OFF" && b.topic("output/down")[n-2].payload == "ON"
	})
	b.publish("fieldagent/pump-7/output/up/set", "ON", true)
	for _, bad := range []string{"MAYBE", `{"state":"ON","four":"1s"}`, `{"state":"ON","for":"-1s"}`, `{"state":"ON"} x`, ""} {
		set("up", bad)
	}
	b.wait("refusals", func() bool { return r.Status().Commands.Refused == 7 }) // five, a retained one and the interlock
	if on, _ := lines.Level("GPIO1"); on {
		t.Error("a refused message switched the output")
	}

	command := func(name, id, args string) string {
		b.publish("fieldagent/pump-7/cmd/"+name, fmt.Sprintf(`{"id":%q,"args":%s}`, id, args), false)
		var out string
		b.wait("result of "+id, func() bool {
			for _, p := range b.payloads("cmd/" + name + "/result") {
				if field(p, "id") == id {
					out = p
				}
			}
			return out != ""
		})
		return out
	}
	if p := command("set", "c1", `{"output":"up","state":"ON"}`); field(p, "status") != "ok" || !strings.Contains(p, `"result":{"output":"up","state":"ON"}`) {
		t.Errorf("set: %s", p)
	}
	if p := command("set", "c2", `{"output":"down","state":"ON"}`); field(p, "status") != "failed" || !strings.Contains(p, "interlock") {
		t.Errorf("set against an interlock: %s", p)
	}
	if p := command("set", "c3", `{"output":"up","state":"OFF"}`); field(p, "status") != "ok" {
		t.Errorf("set: %s", p)
	}
	if p := command("pulse", "c4", `{"output":"down"}`); field(p, "status") != "failed" {
		t.Errorf("pulse without a time: %s", p)
	}
	if p := command("pulse", "c5", `{"output":"down","for":"100ms"}`); !strings.Contains(p, `"result":{"output":"down","state":"ON","for":"100ms"}`) {
		t.Errorf("pulse: %s", p)
	}
	if p := command("meter-exchange", "c6", `{"meter":"energy","total_pulses":40}`); field(p, "status") != "ok" || !strings.Contains(p, `"total_pulses":40`) {
		t.Errorf("meter-exchange: %s", p)
	}
	for id, args := range map[string]string{"c7": `{"meter":"nope","total_pulses":1}`, "c8": `{"meter":"energy"}`, "c9": `{"total_pulses":1}`, "c10": `{"meter":"energy","total_pulses":-1}`} {
		if p := command("meter-exchange", id, args); field(p, "status") != "failed" {
			t.Errorf("meter-exchange %s: %s", args, p)
		}
	}
	b.wait("the pulse's end", func() bool { return state("down") == "OFF" })

	for _, c := range []struct {
		path, body string
		want       int
	}{{"outputs/up", `{"state":"ON"}`, 200}, {"outputs/down", `{"state":"ON"}`, 409}, {"outputs/nope", `{"state":"ON"}`, 404}, {"outputs/up", `{"state":"?"}`, 400}, {"outputs/up", `{`, 400},
		{"meters/energy", `{"total_pulses":7}`, 200}, {"meters/energy", `{}`, 400}, {"meters/nope", `{"total_pulses":7}`, 404}} {
		w := httptest.NewRecorder()
		r.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/"+c.path, strings.NewReader(c.body)))
		if w.Code != c.want {
			t.Errorf("POST %s %s: %d %s, want %d", c.path, c.body, w.Code, w.Body, c.want)
		}
	}
	if a, _ := r.Read(t.Context(), "up"); !strings.Contains(string(a), `"state":"ON"`) {
		t.Errorf("read up: %s", a)
	}

	// A reload that changes other things does not touch what is on.
	before := slices.Clone(lines.Trace)
	file := strings.Replace(localFile(b.addr, linesFile), "debounce: 0s", "debounce: 10ms", 1)
	file = strings.Replace(file, "  - {name: button, line: GPIO18}\n", "", 1)
	sources := []config.Source{{Name: "fieldagent.yaml", Data: []byte(file)}}
	var cfg Config
	if err := config.Load(&cfg, ConfigOptions(r.opt.Drivers), sources...); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(t.Context(), cfg, sources); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, lines.Trace) {
		t.Errorf("a reload moved outputs: %v", lines.Trace[len(before):])
	}
	b.wait("the removed input's topic to go", func() bool {
		m := b.retained["fieldagent/pump-7/input/button"]
		return m.payload == "" && m.topic != ""
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if on, held := lines.Level("GPIO1"); on || held {
		t.Errorf("after the end: on %v, held %v", on, held)
	}
}

// virtual is an agent without a broker, in the virtual time of a synctest bubble. Its clock is set.
type virtual struct {
	*Agent
	stop func()
}

func virtually(t *testing.T, dir, file string, lines *sensortest.Lines) *virtual {
	t.Helper()
	began := time.Now()
	mono := func() time.Duration { return time.Since(began) + time.Second }
	if lines.Now == nil {
		lines.Now = mono
	}
	clock := NewClock(func() queue.Stamp {
		return queue.Stamp{Wall: time.Now().UTC(), Clock: queue.ClockSynced, Boot: 1, Uptime: lines.Now()}
	})
	opt := Options{Drivers: fake(warm), Version: "test", Clock: clock, Lines: lines, Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }}
	if err := config.Load(&opt.Config, ConfigOptions(opt.Drivers), config.Source{Name: "f", Data: []byte(localFile("127.0.0.1:1", "") + file)}); err != nil {
		t.Fatal(err)
	}
	opt.Config.MQTT.Reconnect.Min, opt.Config.MQTT.Reconnect.Max = time.Hour, time.Hour
	qo := opt.Config.Outbox.QueueOptions()
	qo.Now = clock.Now
	q, err := queue.Open(dir, qo)
	if err != nil {
		t.Fatal(err)
	}
	opt.Queue = q
	a, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	a.mono = lines.Now
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	v := &virtual{Agent: a}
	v.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, q.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(v.stop)
	synctest.Wait()
	return v
}

// events returns the data of all stored events of a type, in order.
func (v *virtual) events(t *testing.T, kind string) (out []string) {
	t.Helper()
	list, err := v.queue.List(0, 10000, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if l.Type == kind {
			r, err := v.queue.Record(l.ID)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(r.Data))
		}
	}
	return out
}

func (v *virtual) total(t *testing.T) MeterStatus {
	t.Helper()
	return v.Status().Meters[0]
}

func pulse(l *sensortest.Lines, n int, apart time.Duration) {
	for range n {
		l.Drive("GPIO27", true, 0)
		l.Drive("GPIO27", false, 0)
		<-time.After(apart)
	}
	synctest.Wait()
}

const meterFile = `meters: [{name: energy, line: GPIO27, edge: rising, unit: kwh, pulses_per_unit: 1000, event: {every: 15m}, save: {every: 2s, pulses: 100}, stuck_after: 2h}]
`

// A power cut at any moment loses no more than save says, and what the records state is what the meter goes on from.
func TestMeterPowerCut(t *testing.T) {
	for _, c := range []struct {
		name  string
		apart time.Duration
		n     int
		lost  uint64 // at most
	}{{"slow", time.Second, 123, 2}, {"fast", time.Millisecond, 2345, 100}, {"saved", 10 * time.Millisecond, 1000, 0}} {
		t.Run(c.name, func(t *testing.T) {
			dir, copied := t.TempDir(), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				lines := &sensortest.Lines{}
				v := virtually(t, dir, meterFile, lines)
				pulse(lines, c.n, c.apart)
				if c.lost == 0 {
					<-time.After(2 * time.Second)
					synctest.Wait()
				}
				if got := v.total(t).Pulses; got != uint64(c.n) {
					t.Fatalf("running total %d, want %d", got, c.n)
				}
				if err := os.CopyFS(copied, os.DirFS(dir)); err != nil { // all that is idle is on disk
					t.Fatal(err)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				v := virtually(t, copied, meterFile, &sensortest.Lines{})
				got := v.total(t).Pulses
				if got > uint64(c.n) || uint64(c.n)-got > c.lost {
					t.Fatalf("goes on at %d of %d, may lose %d", got, c.n, c.lost)
				}
			})
		})
	}
}

func TestMeterRecords(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		v := virtually(t, dir, meterFile, lines)
		<-time.After(500 * time.Millisecond)
		for range 65 { // 65 minutes: four quarters of an hour
			pulse(lines, 3, time.Second)
			<-time.After(57 * time.Second)
		}
		lines.Drive("GPIO27", true, 9) // nine edges were read by nobody
		lines.Drive("GPIO27", false, 0)
		synctest.Wait()
		records := v.events(t, "meter")
		if len(records) != 4 {
			t.Fatalf("%d records in 65 minutes: %v", len(records), records)
		}
		sum, since := 0, ""
		for i, r := range records {
			var x struct {
				Total  int `json:"total_pulses"`
				Kwh    json.Number
				Pulses int
				Since  time.Time
			}
			if err := json.Unmarshal([]byte(r), &x); err != nil {
				t.Fatal(err)
			}
			if sum += x.Pulses; sum != x.Total {
				t.Errorf("record %d: %s: the periods before it add up to %d", i, r, sum)
			}
			if i > 0 && (x.Since.Minute()%15 != 0 || x.Since.Second() != 0) {
				t.Errorf("record %d does not begin at a quarter of an hour: %s", i, r)
			}
			since = x.Since.String()
		}
		if m := v.total(t); m.Pulses != 195+10 || m.Missed != 9 || m.Period != m.Pulses-uint64(sum) {
			t.Errorf("%+v after records up to %d (%s)", m, sum, since)
		}
		if !strings.HasPrefix(records[3], `{"meter":"energy","total_pulses":180,"total_kwh":0.180,"since":"2000-01-01T00:45:00.`) || !strings.HasSuffix(records[3], `"pulses":45}`) {
			t.Errorf("record: %s", records[3])
		}
		x, err := v.ExchangeMeter(t.Context(), "energy", 5000)
		if err != nil || x.Before != 205 || x.After != 5000 || x.Unreported != 25 {
			t.Errorf("exchange: %+v, %v", x, err)
		}
		pulse(lines, 2, 100*time.Millisecond)
		<-time.After(15 * time.Minute)
		synctest.Wait()
		last := v.events(t, "meter")
		if ex := v.events(t, "meter-exchange"); len(ex) != 1 || field(`{"data":`+ex[0]+`}`, "total_pulses_before") != "205" {
			t.Errorf("exchange event: %v", ex)
		}
		if r := last[len(last)-1]; field(`{"data":`+r+`}`, "total_pulses") != "5002" || field(`{"data":`+r+`}`, "pulses") != "2" {
			t.Errorf("record after the exchange: %s", r)
		}
	})
}

// A meter that nobody turns writes nothing but its records, and says that it is stuck.
func TestMeterIdle(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		v := virtually(t, dir, strings.Replace(meterFile, "every: 15m", "every: 700h", 1), lines)
		pulse(lines, 5, 100*time.Millisecond)
		<-time.After(5 * time.Second)
		synctest.Wait()
		before := v.queue.Stats().Commits
		<-time.After(time.Hour)
		synctest.Wait()
		if n := v.queue.Stats().Commits - before; n != 0 {
			t.Errorf("%d commits in an idle hour", n)
		}
		if m := v.total(t); m.Error != "" {
			t.Errorf("fault after an hour: %s", m.Error)
		}
		<-time.After(time.Hour + time.Minute)
		synctest.Wait()
		if m := v.total(t); !strings.Contains(m.Error, "no pulse for") {
			t.Errorf("a stuck meter is not reported: %+v", m)
		}
		if a := v.events(t, "alarm"); len(a) != 1 || !strings.Contains(a[0], "stuck_after") {
			t.Errorf("alarms: %v", a)
		}
	})
}

// A total is not told while nobody watches the line: whoever reads it may take it that pulses count from now on.
func TestMeterNotYetOpen(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{Slow: make(chan struct{})}
		v := virtually(t, dir, meterFile, lines)
		told := func() bool {
			<-time.After(30 * time.Second)
			synctest.Wait()
			v.readings.mu.Lock()
			defer v.readings.mu.Unlock()
			return v.readings.last["energy"].payload != nil
		}
		if told() {
			t.Error("a total is told while the line is not held")
		}
		close(lines.Slow)
		if !told() {
			t.Error("no total is told when the line is held")
		}
	})
}

// The line that says that the power is about to go has totals written at once.
func TestPowerFail(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		file := strings.Replace(meterFile, "save: {every: 2s, pulses: 100}", "save: {every: 1h, pulses: 100000}", 1)
		v := virtually(t, dir, file+"inputs: [{name: mains, line: GPIO3, power_fail: true}]\n", lines)
		pulse(lines, 50, 100*time.Millisecond)
		if m := v.total(t); m.Unsaved != 50 {
			t.Fatalf("%+v: want 50 unsaved pulses", m)
		}
		lines.Drive("GPIO3", true, 0)
		synctest.Wait()
		if m := v.total(t); m.Unsaved != 0 {
			t.Fatalf("%+v: nothing was saved", m)
		}
	})
}

// A timed output ends on time although nothing is connected, the disk is busy and commands wait.
func TestPulseEndsOnTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		v := virtually(t, dir, "outputs: [{name: valve, line: GPIO4, max_on: 10s}]\n", lines)
		hang := make(chan struct{})
		go func() {
			_ = v.queue.Update(context.Background(), func(*queue.Tx) error { <-hang; return nil })
		}()
		if _, err := v.outputs.do("valve", sensors.Command{State: "ON", For: 500 * time.Millisecond}, "test"); err != nil {
			t.Fatal(err)
		}
		<-time.After(499 * time.Millisecond)
		if on, _ := lines.Level("GPIO4"); !on {
			t.Error("ended early")
		}
		<-time.After(2 * time.Millisecond)
		if on, _ := lines.Level("GPIO4"); on {
			t.Error("did not end")
		}
		if _, err := v.outputs.do("valve", sensors.Command{State: "ON"}, "test"); err != nil {
			t.Fatal(err)
		}
		<-time.After(10*time.Second + time.Millisecond)
		if on, _ := lines.Level("GPIO4"); on {
			t.Error("max_on did not end it")
		}
		close(hang)
	})
}

// More edges than the disk takes are counted, not lost in silence.
func TestInputFloodIsCounted(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		v := virtually(t, dir, "inputs: [{name: door, line: GPIO17, debounce: 0s, event: {type: door}}]\n", lines)
		hang := make(chan struct{})
		go func() {
			_ = v.queue.Update(context.Background(), func(*queue.Tx) error { <-hang; return nil })
		}()
		synctest.Wait()
		const edges = inputWaiting + 1000
		for i := range edges {
			lines.Drive("GPIO17", i%2 == 0, 0)
		}
		close(hang)
		<-time.After(5 * time.Second)
		synctest.Wait()
		missed := 0
		for _, g := range v.events(t, "gap") {
			var x struct{ Missed int }
			if err := json.Unmarshal([]byte(g), &x); err != nil {
				t.Fatal(err)
			}
			missed += x.Missed
		}
		if got := int(v.queue.Position().Last) - len(v.events(t, "gap")); got+missed != edges || missed == 0 {
			t.Errorf("%d events and %d in gaps of %d edges", got, missed, edges)
		}
	})
}

func TestLineMetrics(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		v := virtually(t, dir, strings.TrimPrefix(linesFile, "\n"), lines)
		lines.Drive("GPIO17", true, 0)
		synctest.Wait()
		w := httptest.NewRecorder()
		v.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		for _, want := range []string{`fieldagent_input{name="door"} 1`, `fieldagent_output{name="up"} 0`, `fieldagent_meter_pulses_total{meter="energy"} 0`, `fieldagent_meter_ok{meter="energy"} 1`} {
			if !bytes.Contains(w.Body.Bytes(), []byte(want)) {
				t.Errorf("no %s in\n%s", want, w.Body)
			}
		}
	})
}
