package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/agent/config"
	"fieldagent/queue"
	"fieldagent/sensors"
)

// fake is a driver whose sensors say what a test wants.
func fake(read func() ([]sensors.Value, error)) []sensors.Driver {
	return []sensors.Driver{{
		Name: "fake", Summary: "for tests", Options: func() any { return &struct{}{} },
		Quantities: []sensors.Quantity{{Name: "temperature_celsius", Unit: "°C"}},
		Open:       func(context.Context, any, sensors.Board) (sensors.Sensor, error) { return fakeSensor(read), nil },
	}}
}

type fakeSensor func() ([]sensors.Value, error)

func (f fakeSensor) Read(context.Context) ([]sensors.Value, error) { return f() }

func warm() ([]sensors.Value, error) {
	return []sensors.Value{{Name: "temperature_celsius", Number: 21.534, Precision: 2}}, nil
}

// rig is an agent on a real store, running.
type rig struct {
	*Agent
	t    *testing.T
	dir  string
	stop func() error
	logs *logs
}

// logs keeps what was logged, for failures.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func localFile(addr, extra string) string {
	return fmt.Sprintf("device: {id: pump-7}\nmqtt:\n  servers: [\"mqtt://%s\"]\n  reconnect: {min: 10ms, max: 20ms}\n%s", addr, extra)
}

func start(t *testing.T, dir, file string, change func(*Options)) *rig {
	t.Helper()
	l := &logs{}
	log := slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opt := Options{Drivers: fake(warm), Version: "test", Log: log, Clock: NewClock(nil), Sources: []config.Source{{Name: "fieldagent.yaml", Data: []byte(file)}}}
	if err := config.Load(&opt.Config, ConfigOptions(opt.Drivers), opt.Sources...); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&opt)
	}
	qo := opt.Config.Outbox.QueueOptions()
	qo.Now, qo.Log = opt.Clock.Now, log
	q, err := queue.Open(dir, qo)
	if err != nil {
		t.Fatal(err)
	}
	opt.Queue = q
	a, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	r := &rig{Agent: a, t: t, dir: dir, logs: l}
	r.stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		return errors.Join(err, q.Close())
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil && !errors.Is(err, ErrRestart) {
			t.Errorf("run: %v", err)
		}
		if t.Failed() {
			t.Log(l.String())
		}
	})
	return r
}

func (r *rig) emit(qos byte) queue.ID {
	r.t.Helper()
	id, err := r.Emit(r.t.Context(), Event{Type: "test", QoS: qos, Data: []byte(`{"n":1}`)})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) acknowledged(id queue.ID) queue.Life {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	l, err := r.queue.Wait(ctx, id)
	if err != nil || l.State != queue.StateAcked {
		r.t.Fatalf("event %v: %+v, %v", id, l, err)
	}
	return l
}

func TestHelloReadingsGoodbye(t *testing.T) {
	b := newBroker(t)
	began := time.Now()
	r := start(t, t.TempDir(), localFile(b.addr, "sensors: [{name: cabinet, driver: fake, every: 1h}]\n"), nil)
	b.wait("a reading", func() bool { return len(b.topic("sensor/cabinet")) == 1 })
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("first reading after %v", d)
	}
	b.wait("state", func() bool {
		return b.retained["fieldagent/pump-7/status"].payload == "online" && b.retained["fieldagent/pump-7/sensor/cabinet/status"].payload == "ok" &&
			b.retained["fieldagent/pump-7/config/state"].qos == 1 && strings.Contains(b.retained["fieldagent/pump-7/config/current"].payload, "pump-7") && len(b.topic("/health")) > 0
	})
	b.mu.Lock()
	reading, info, health := b.topic("sensor/cabinet")[0], b.retained["fieldagent/pump-7/info"].payload, b.topic("/health")[0].payload
	b.mu.Unlock()
	var v struct {
		Time        string
		Temperature json.Number `json:"temperature_celsius"`
	}
	if err := json.Unmarshal([]byte(reading.payload), &v); err != nil || v.Temperature != "21.53" || reading.qos != 0 || reading.retain {
		t.Errorf("reading %+v: %v", reading, err)
	}
	for _, s := range []string{info, health} {
		if !json.Valid([]byte(s)) {
			t.Errorf("no JSON: %s", s)
		}
	}
	known := strings.Contains(health, `"cabinet":{"state":"ok"`) || strings.Contains(health, `"cabinet":{"state":"starting"`) // the first health may go out before the first reading
	if !strings.Contains(info, `"temperature_celsius"`) || !known {
		t.Errorf("info %s\nhealth %s", info, health)
	}
	stopped := time.Now()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(stopped); d > 2*time.Second {
		t.Errorf("stopped after %v", d)
	}
	b.wait("offline after a clean stop", func() bool { return b.retained["fieldagent/pump-7/status"].payload == "offline" })
}

func TestEventsSurviveEverything(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	n := 0
	b.onPublish = func(message) reaction {
		if n++; n%7 == 0 {
			return closeIt
		}
		return obey
	}
	const each, lives = 20, 4
	var last queue.ID
	for life := range lives {
		r := start(t, dir, localFile(b.addr, ""), nil)
		for i := range each {
			last = r.emit(byte(1 + (life+i/5)%2))
		}
		if life == lives-1 {
			b.mu.Lock()
			b.onPublish = nil
			b.mu.Unlock()
			r.acknowledged(last)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var qos2, first []string
	seen := map[string]bool{}
	for _, m := range b.topic("event/test") {
		s := sequences([]message{m})[0]
		if m.qos == 2 {
			qos2 = append(qos2, s)
		}
		if !seen[s] {
			seen[s] = true
			first = append(first, s)
		}
	}
	if doubled(qos2) {
		t.Errorf("doubled at QoS 2: %v", qos2)
	}
	for i, s := range first {
		if s != fmt.Sprint(i+1) {
			t.Fatalf("order or loss at %d: %v", i, first)
		}
	}
	if len(first) != each*lives {
		t.Fatalf("%d of %d events", len(first), each*lives)
	}
}

func TestBrokerLosesItsSession(t *testing.T) {
	b := newBroker(t)
	stuck := true
	b.onPublish = func(m message) reaction {
		if stuck && m.qos == 2 {
			return swallow
		}
		return obey
	}
	r := start(t, t.TempDir(), localFile(b.addr, ""), nil)
	id := r.emit(2)
	b.wait("connect", func() bool { return b.connects > 0 })
	b.mu.Lock()
	stuck = false
	b.mu.Unlock()
	b.forget()
	r.acknowledged(id)
}

func TestNewStoreForgetsTheOldSession(t *testing.T) {
	b := newBroker(t)
	r := start(t, t.TempDir(), localFile(b.addr, ""), nil)
	r.acknowledged(r.emit(2))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// The broker holds a QoS 2 message of the old store under the packet id that the new store's first row will have.
	b.mu.Lock()
	for _, s := range b.sessions {
		s.incoming[packetID(1)] = message{topic: "stale", payload: "stale", qos: 2}
	}
	b.mu.Unlock()
	r = start(t, t.TempDir(), localFile(b.addr, ""), nil)
	r.acknowledged(r.emit(2))
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.topic("event/test")); n != 2 || len(b.topic("stale")) != 0 {
		t.Fatalf("%d events, %d stale", n, len(b.topic("stale")))
	}
}

func TestDowngradeIsHeldAndReported(t *testing.T) {
	b := newBroker(t)
	b.onPublish = func(m message) reaction { return ackAsQoS1 }
	r := start(t, t.TempDir(), localFile(b.addr, ""), nil)
	id := r.emit(2)
	b.wait("the event", func() bool { return len(b.topic("event/test")) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if l, err := r.queue.Wait(ctx, id); err == nil {
		t.Fatalf("a PUBACK made a QoS 2 event %s", l.State)
	}
	if s := r.Status(); !strings.Contains(s.Broker.Held, "QoS 2") || s.Outbox.Depth != 1 {
		t.Fatalf("nobody is told: %+v %+v", s.Broker, s.Outbox)
	}
	info := func(words string) func() bool {
		return func() bool { return strings.Contains(b.retained["fieldagent/pump-7/info"].payload, words) }
	}
	b.wait("info that says so", info("cannot do QoS 2: it confirms with PUBACK"))
	b.cut()
	b.wait("the next connection", func() bool { return b.connects >= 2 && b.subscribed("cmd/+") })
	b.mu.Lock()
	n := len(b.topic("event/test"))
	b.mu.Unlock()
	if n != 1 {
		t.Fatalf("sent %d times to a broker that cannot do QoS 2", n)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, r.dir, localFile(b.addr, "  allow_downgrade: true\n"), nil)
	r.acknowledged(id)
	b.wait("info that says so", info("go out at QoS 1"))
	if s := r.Status(); !strings.Contains(s.Broker.Limited, "may come twice") {
		t.Errorf("nobody is told: %+v", s.Broker)
	}
}

func TestPoisonousEventBecomesADeadLetter(t *testing.T) {
	t.Parallel() // it waits for the pause before a suspect goes alone
	b := newBroker(t)
	b.onPublish = func(m message) reaction {
		if strings.Contains(m.payload, "poison") {
			return closeIt
		}
		return obey
	}
	r := start(t, t.TempDir(), localFile(b.addr, ""), nil)
	before := r.emit(1)
	bad, err := r.Emit(t.Context(), Event{Type: "test", QoS: 1, Data: []byte(`"poison"`)})
	if err != nil {
		t.Fatal(err)
	}
	after := r.emit(1)
	r.acknowledged(before)
	r.acknowledged(after)
	l, err := r.queue.Life(bad)
	if err != nil || l.State != queue.StateDead || !strings.Contains(l.Reason, "closed the connection") {
		t.Fatalf("%+v, %v", l, err)
	}
	b.mu.Lock()
	b.onPublish = nil
	b.mu.Unlock()
	if err := r.Retry(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	b.wait("the retried event", func() bool { return len(b.topic("event/test")) == 3 })
}
