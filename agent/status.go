package agent

import (
	"cmp"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fieldagent/queue"
	"fieldagent/sensors"
)

// Status returns what the agent is doing.
func (a *Agent) Status() Status {
	cfg := a.config()
	now := a.clock.Now()
	s := Status{Device: cfg.ID(), Root: a.root, Version: a.opt.Version, Boot: bootString(now.Boot), Started: a.started.Wall, Time: now.Wall, Uptime: seconds(now.Uptime - a.started.Uptime),
		Board: seconds(now.Uptime), Clock: now.Clock.String(), Labels: cfg.Device.Labels, Broker: a.brokerStatus(), Outbox: a.outboxStatus(now),
		Readings: ReadingStatus{Sent: a.readings.sent.Load(), Dropped: a.readings.dropped.Load(), Kept: a.readings.kept.Load()},
		Sensors:  a.sensorStatus(), Inputs: a.inputs.status(cfg.Inputs), Meters: a.meters.status(cfg.Meters), Outputs: a.outputs.status(cfg.Outputs), Commands: a.commands.status(), Config: a.remote.view(), Memory: memory(), Warnings: a.warnings(now.Wall)}
	return s
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func (a *Agent) brokerStatus() BrokerStatus {
	c := a.connection()
	held, inFlight := a.delivery.status()
	b := BrokerStatus{Connected: c.Connected, Subscribed: c.Connected && a.subscribed.Load(), Server: c.Server, Error: c.LastError, Held: held, Limited: a.delivery.shortage(), InFlight: inFlight, Connects: a.connects.Load()}
	b.AliasSaved = a.aliasSaved.Load()
	if s := a.session.Load(); s != nil {
		b.AliasSaved += s.AliasSaved()
	}
	if !c.Since.IsZero() {
		b.Since = &c.Since
	}
	if b.Connected && b.Error == "" && !a.subscribed.Load() {
		b.Error = a.fault("subscribe")
	}
	return b
}

func (a *Agent) outboxStatus(now queue.Stamp) OutboxStatus {
	q := a.queue.Stats()
	o := OutboxStatus{Depth: q.Depth, Bytes: q.Bytes, Limit: q.Limit, Full: q.Full, Dead: q.Dead, Refused: q.Refused, Lost: q.Lost, Ambiguous: a.delivery.ambiguous.Load(), HandedOver: a.delivery.handed.Load(),
		Sent: a.delivery.sent.Load(), Repeated: a.delivery.repeated.Load(), Acknowledged: a.delivery.acked.Load(), WrittenToday: a.written.today(a.clock), Commits: q.Commits}
	if q.Depth > 0 {
		o.OldestAge = seconds(age(now, q.Oldest))
	}
	if q.Err != nil {
		o.Error = q.Err.Error()
	}
	return o
}

// age is the time since s, by the clock that cannot be set where both are of one boot.
func age(now, s queue.Stamp) time.Duration {
	if s.Boot == now.Boot && s.Uptime > 0 {
		return max(0, now.Uptime-s.Uptime)
	}
	return max(0, now.Wall.Sub(s.Wall))
}

func (a *Agent) sensorStatus() []SensorStatus {
	out := []SensorStatus{}
	set := a.set.Load()
	if set == nil {
		return out
	}
	for _, x := range set.States() {
		s := SensorStatus{Name: x.Name, Driver: x.Driver, State: x.State, Error: x.Err, Reading: a.readings.newest(x.Name)}
		if !x.Since.IsZero() {
			t := x.Since.UTC()
			s.Since = &t
		}
		if x.LastErr != "" {
			t := x.LastErrAt.UTC().Truncate(time.Millisecond)
			s.LastError, s.LastErrorAt = x.LastErr, &t
		}
		out = append(out, s)
	}
	return out
}

// memory reads the process's size from /proc: the runtime's own figures stop the world.
func memory() MemoryStatus {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(sample)
	m := MemoryStatus{Heap: int64(sample[0].Value.Uint64()), Routines: int(sample[1].Value.Uint64())}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			m.Resident = n * int64(os.Getpagesize())
		}
	}
	return m
}

// health is what goes out every minute.
func (a *Agent) health() []byte {
	s := a.Status()
	type sensor struct {
		State       string     `json:"state"`
		Error       string     `json:"error,omitempty"`
		LastError   string     `json:"last_error,omitempty"`
		LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	}
	h := struct {
		Time     string            `json:"time"`
		Uptime   float64           `json:"uptime_seconds"`
		Board    float64           `json:"board_uptime_seconds"`
		Clock    string            `json:"clock"`
		Outbox   OutboxStatus      `json:"outbox"`
		Readings ReadingStatus     `json:"readings"`
		Broker   BrokerStatus      `json:"broker"`
		Memory   MemoryStatus      `json:"memory"`
		Commands CommandStatus     `json:"commands"`
		Warnings []string          `json:"warnings,omitempty"`
		Sensors  map[string]sensor `json:"sensors"`
		Inputs   []LineStatus      `json:"inputs,omitempty"`
		Meters   []MeterStatus     `json:"meters,omitempty"`
		Outputs  []LineStatus      `json:"outputs,omitempty"`
	}{formatTime(s.Time), s.Uptime, s.Board, s.Clock, s.Outbox, s.Readings, s.Broker, s.Memory, s.Commands, s.Warnings, map[string]sensor{}, nil, nil, nil}
	for _, x := range s.Sensors {
		h.Sensors[x.Name] = sensor{x.State, x.Error, x.LastError, x.LastErrorAt}
	}
	h.Inputs, h.Meters, h.Outputs = s.Inputs, s.Meters, s.Outputs
	return mustJSON(h)
}

// info is what the device is: retained, sent on each connect.
func (a *Agent) info() []byte {
	type quantity struct {
		Name string `json:"name"`
		Unit string `json:"unit,omitempty"`
	}
	type sensor struct {
		Name   string     `json:"name"`
		Driver string     `json:"driver"`
		Every  float64    `json:"every_seconds"`
		Values []quantity `json:"values"`
	}
	cfg := a.config()
	list := []sensor{}
	for _, c := range cfg.Sensors {
		x := sensor{Name: c.Name, Driver: c.Driver, Every: seconds(c.Every), Values: []quantity{}}
		for _, q := range valuesOf(a.opt.Drivers, c, a.discovery.valuesOf(c.Name)) {
			x.Values = append(x.Values, quantity{q.Name, cmp.Or(q.Unit, unitOf(q.Name).unit)})
		}
		list = append(list, x)
	}
	var inputs, outputs []string
	for _, c := range cfg.Inputs {
		inputs = append(inputs, c.Name)
	}
	for _, c := range cfg.Outputs {
		outputs = append(outputs, c.Name)
	}
	applied := a.remote.view().Applied
	return mustJSON(struct {
		Agent    string            `json:"agent"`
		Version  string            `json:"version"`
		Protocol int               `json:"protocol"`
		Device   string            `json:"device"`
		Labels   map[string]string `json:"labels,omitempty"`
		Store    string            `json:"store"`
		Boot     string            `json:"boot"`
		Started  string            `json:"started"`
		Reason   string            `json:"reason,omitempty"`
		Board    string            `json:"board,omitempty"`
		Config   AppliedConfig     `json:"config"`
		Sensors  []sensor          `json:"sensors"`
		Inputs   []string          `json:"inputs,omitempty"`
		Meters   []meterInfo       `json:"meters,omitempty"`
		Outputs  []string          `json:"outputs,omitempty"`
		Limited  string            `json:"limited,omitempty"` // of the broker, for QoS 2 events
	}{"fieldagent", a.opt.Version, protocol, cfg.ID(), cfg.Device.Labels, bootString(a.queue.Store()), bootString(a.started.Boot), formatTime(a.started.Wall), a.opt.Reason, boardModel(), applied, list, inputs, meterInfos(cfg.Meters), outputs, a.delivery.shortage()})
}

// valuesOf are what a sensor gives: what it was seen to give, else what its options name, else what its driver may. The driver's word on each is with it.
func valuesOf(drivers []sensors.Driver, c sensors.Config, seen []string) (out []sensors.Quantity) {
	var known []sensors.Quantity
	if i := slices.IndexFunc(drivers, func(d sensors.Driver) bool { return d.Name == c.Driver }); i >= 0 {
		known = drivers[i].Quantities
	}
	if len(seen) == 0 {
		seen = sensors.ValueNames(c)
	}
	if len(seen) == 0 {
		return known
	}
	for _, name := range seen {
		q := sensors.Quantity{Name: name}
		if i := slices.IndexFunc(known, func(q sensors.Quantity) bool { return q.Name == name }); i >= 0 {
			q = known[i]
		}
		out = append(out, q)
	}
	return out
}

// meterInfo says what a meter counts, and what a power cut can lose of it.
type meterInfo struct {
	Name          string    `json:"name"`
	Unit          string    `json:"unit,omitempty"`
	PulsesPerUnit int64     `json:"pulses_per_unit"`
	RecordEvery   float64   `json:"record_every_seconds"`
	LossBound     lossBound `json:"loss_bound"`
}

// lossBound is whichever comes first, and what comes in while one commit is under way.
type lossBound struct {
	Seconds float64 `json:"seconds"`
	Pulses  int64   `json:"pulses"`
}

func meterInfos(cfg []sensors.MeterConfig) (out []meterInfo) {
	for _, c := range cfg {
		out = append(out, meterInfo{c.Name, c.Unit, c.PulsesPerUnit, seconds(c.Event.Every), lossBound{seconds(c.Save.Every), c.Save.Pulses}})
	}
	return out
}

// boardModel is the device tree's name of the board, or the machine's.
func boardModel() string {
	for _, file := range []string{"/proc/device-tree/model", "/sys/devices/virtual/dmi/id/product_name"} {
		if b, err := os.ReadFile(file); err == nil {
			return strings.Trim(string(b), "\x00\n ")
		}
	}
	return runtime.GOOS + " " + runtime.GOARCH
}

// faults are conditions that last, by name.
type faults struct {
	mu  sync.Mutex
	all map[string]string
}

func (a *Agent) setFault(name string, err error) {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	if a.faults.all == nil {
		a.faults.all = map[string]string{}
	}
	a.faults.all[name] = err.Error()
}

func (a *Agent) fault(name string) string {
	a.faults.mu.Lock()
	defer a.faults.mu.Unlock()
	return a.faults.all[name]
}
