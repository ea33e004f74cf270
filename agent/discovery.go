package agent

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"fieldagent/queue"
	"fieldagent/sensors"
)

const (
	discoveryKey  = "discovery"            // of what was announced, in the store
	discoveryWait = 10 * time.Second       // for the first readings after a start: they say which values there are
	discoveryPace = 500 * time.Millisecond // changes within this go out together
	maxGone       = 200                    // things that went away and are still named as gone
)

// unit is how Home Assistant writes a unit, and the classes of values that carry it.
type unit struct {
	suffix, unit, class, state string
}

// units are found by the end of a value's name, longest first.
var units = []unit{
	{"relative_humidity_percent", "%", "humidity", "measurement"},
	{"battery_percent", "%", "battery", "measurement"},
	{"total_pulses", "", "", "total_increasing"},
	{"total_kwh", "kWh", "energy", "total_increasing"},
	{"total_wh", "Wh", "energy", "total_increasing"},
	{"total_m3", "m³", "volume", "total_increasing"},
	{"total_l", "L", "volume", "total_increasing"},
	{"m3_per_hour", "m³/h", "volume_flow_rate", "measurement"},
	{"pulses_per_minute", "1/min", "", "measurement"},
	{"_celsius", "°C", "temperature", "measurement"},
	{"_percent", "%", "", "measurement"},
	{"_hectopascal", "hPa", "atmospheric_pressure", "measurement"},
	{"_pascal", "Pa", "pressure", "measurement"},
	{"_lux", "lx", "illuminance", "measurement"},
	{"_volts", "V", "voltage", "measurement"},
	{"_volt", "V", "voltage", "measurement"},
	{"_amperes", "A", "current", "measurement"},
	{"_ampere", "A", "current", "measurement"},
	{"_watts", "W", "power", "measurement"},
	{"_watt", "W", "power", "measurement"},
	{"_hertz", "Hz", "frequency", "measurement"},
	{"_bytes", "B", "data_size", "measurement"},
	{"_seconds", "s", "duration", "measurement"},
	{"_dbm", "dBm", "signal_strength", "measurement"},
	{"_metres", "m", "distance", "measurement"},
	{"_millimetres", "mm", "distance", "measurement"},
	{"co2_ppm", "ppm", "carbon_dioxide", "measurement"},
	{"_ppm", "ppm", "", "measurement"},
	{"_rpm", "rpm", "", "measurement"},
}

func unitOf(name string) unit {
	best := unit{state: "measurement"}
	for _, u := range units {
		if strings.HasSuffix(name, u.suffix) && len(u.suffix) > len(best.suffix) {
			best = u
		}
	}
	if best.suffix == "" && strings.HasPrefix(name, "total_") {
		best.unit, best.state = strings.TrimPrefix(name, "total_"), "total_increasing"
	}
	return best
}

// component is one entity, with the keys of Home Assistant's MQTT sensor, binary sensor and switch. Gone ones have a platform only.
type component struct {
	Platform          string         `json:"platform"`
	UniqueID          string         `json:"unique_id,omitempty"`
	Name              string         `json:"name,omitempty"`
	StateTopic        string         `json:"state_topic,omitempty"`
	CommandTopic      string         `json:"command_topic,omitempty"`
	ValueTemplate     string         `json:"value_template,omitempty"`
	DeviceClass       string         `json:"device_class,omitempty"`
	StateClass        string         `json:"state_class,omitempty"`
	UnitOfMeasurement string         `json:"unit_of_measurement,omitempty"`
	ExpireAfter       int            `json:"expire_after,omitempty"`
	PayloadOn         string         `json:"payload_on,omitempty"`
	PayloadOff        string         `json:"payload_off,omitempty"`
	QoS               int            `json:"qos,omitempty"`
	Availability      []availability `json:"availability,omitempty"`
	AvailabilityMode  string         `json:"availability_mode,omitempty"`
}

type availability struct {
	Topic        string `json:"topic"`
	Available    string `json:"payload_available"`
	NotAvailable string `json:"payload_not_available"`
}

// announced is what Home Assistant was told, and where; kept on disk, so that what goes away while the agent is off is removed too.
type announced struct {
	Topic string              `json:"topic"`
	Names map[string][]string `json:"names,omitempty"` // of the values that each sensor was seen to have
	Parts map[string]string   `json:"parts,omitempty"` // platform by component
	Gone  map[string]string   `json:"gone,omitempty"`
}

// discovery tells Home Assistant what the device has: one retained message.
type discovery struct {
	a    *Agent
	wake chan struct{}

	mu    sync.Mutex
	again bool                // send even what did not change
	names map[string][]string // values of each sensor and meter, as seen
	kept  announced
}

func newDiscovery(a *Agent) *discovery {
	return &discovery{a: a, wake: make(chan struct{}, 1), names: map[string][]string{}}
}

func (d *discovery) poke(again bool) {
	d.mu.Lock()
	d.again = d.again || again
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// seen notes the values of a sensor.
func (d *discovery) seen(sensor string, values []sensors.Value) {
	names := make([]string, 0, len(values))
	for _, v := range values {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	d.mu.Lock()
	old := d.names[sensor]
	for _, n := range old { // what was there once may come again
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	news := len(names) != len(old)
	if news {
		d.names[sensor] = names
	}
	d.mu.Unlock()
	if news {
		d.poke(false)
	}
}

// valuesOf returns the names of the values that a sensor was seen to give in this run.
func (d *discovery) valuesOf(sensor string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.names[sensor])
}

// load reads what was announced before.
func (d *discovery) load() error {
	return d.a.queue.View(func(tx *queue.Tx) error {
		b, err := tx.Get(queue.Misc, discoveryKey)
		if b == nil || err != nil {
			return err
		}
		return json.Unmarshal(b, &d.kept)
	})
}

// run sends what changed until ctx ends.
func (d *discovery) run(ctx context.Context) {
	pause := func(t time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(t):
		}
	}
	began := time.Now()
	var sent []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
		pause(discoveryPace)
		for time.Since(began) < discoveryWait && !d.complete() && ctx.Err() == nil {
			pause(discoveryPace)
		}
		d.a.retained.update("info", d.a.info()) // what sensors give is known now
		d.mu.Lock()
		again := d.again
		d.again = false
		d.mu.Unlock()
		sent = d.send(ctx, sent, again)
	}
}

// complete says whether every sensor has had its first reading, good or bad.
func (d *discovery) complete() bool {
	set := d.a.set.Load()
	return set != nil && !slices.ContainsFunc(set.States(), func(s sensors.SensorState) bool { return s.State == sensors.StateStarting })
}

// send announces what there is now, and takes back what is announced elsewhere or no more. It returns what Home Assistant has.
func (d *discovery) send(ctx context.Context, sent []byte, again bool) []byte {
	cfg := d.a.config()
	topic := ""
	if cfg.HomeAssistant.Discovery {
		topic = cfg.HomeAssistant.Prefix + "/device/" + cfg.ID() + "/config"
	}
	client := d.a.client.Load()
	if client == nil || topic == "" && d.kept.Topic == "" {
		return nil
	}
	next := announced{Topic: topic, Parts: map[string]string{}, Gone: map[string]string{}}
	if topic == d.kept.Topic {
		maps.Copy(next.Gone, d.kept.Gone)
	} else if d.kept.Topic != "" {
		if client.Live(d.kept.Topic, nil, true) != nil {
			return nil // again with the next connection
		}
	}
	if topic == "" {
		d.keep(ctx, announced{})
		return nil
	}
	d.mu.Lock()
	next.Names = maps.Clone(d.names)
	d.mu.Unlock()
	for name, values := range d.kept.Names {
		if _, ok := next.Names[name]; !ok && slices.Contains(publishers(cfg), name) {
			next.Names[name] = values
		}
	}
	maps.DeleteFunc(next.Names, func(name string, _ []string) bool { return !slices.Contains(publishers(cfg), name) })
	parts := d.components(cfg, next.Names)
	for id, c := range parts {
		next.Parts[id] = c.Platform
		delete(next.Gone, id)
	}
	for id, platform := range d.kept.Parts {
		if _, ok := parts[id]; !ok && topic == d.kept.Topic && len(next.Gone) < maxGone {
			next.Gone[id] = platform
		}
	}
	for id, platform := range next.Gone {
		parts[id] = component{Platform: platform}
	}
	body := d.message(cfg, parts)
	if !again && string(body) == string(sent) && topic == d.kept.Topic {
		return sent
	}
	if client.Live(topic, body, true) != nil {
		return nil
	}
	d.keep(ctx, next)
	return body
}

// keep stores what was announced, if that is news.
func (d *discovery) keep(ctx context.Context, next announced) {
	if string(mustJSON(next)) == string(mustJSON(d.kept)) {
		return
	}
	err := d.a.queue.Update(ctx, func(tx *queue.Tx) error { return tx.Put(queue.Misc, discoveryKey, mustJSON(next)) })
	if err != nil {
		d.a.log.Warn("what Home Assistant was told is not kept: what goes away while the agent is off will not be removed", "err", err)
	}
	d.kept = next
}

// publishers are the names below sensor/.
func publishers(cfg Config) (names []string) {
	for _, s := range cfg.Sensors {
		names = append(names, s.Name)
	}
	for _, m := range cfg.Meters {
		names = append(names, m.Name)
	}
	return names
}

// objectID tells devices of several prefixes apart.
func (d *discovery) objectID(cfg Config) string {
	return strings.ReplaceAll(cfg.prefix(), "/", "_") + "_" + cfg.ID()
}

// components are all entities of a configuration. names are the values that were seen; of a sensor that was never read, its options or its driver say which it may have.
func (d *discovery) components(cfg Config, names map[string][]string) map[string]component {
	root := d.a.root
	online := availability{root + "/status", "online", cfg.goodbye()}
	parts := map[string]component{}
	add := func(kind, name, value string, c component) {
		id := kind + "_" + name
		c.Name = title(name)
		if value != "" {
			id += "_" + value
			c.Name += " " + value[:max(0, len(value)-len(unitOf(value).suffixWord(value)))]
			c.Name = strings.TrimSpace(strings.ReplaceAll(c.Name, "_", " "))
		}
		c.UniqueID = d.objectID(cfg) + "_" + id
		if c.Availability = append(c.Availability, online); len(c.Availability) > 1 {
			c.AvailabilityMode = "all"
		}
		parts[id] = c
	}
	value := func(sensor, name string, q sensors.Quantity, expire time.Duration) {
		u := unitOf(name)
		if q.Unit != "" || q.DeviceClass != "" || q.StateClass != "" {
			u.unit, u.class, u.state = q.Unit, q.DeviceClass, q.StateClass
		}
		add("sensor", sensor, name, component{Platform: "sensor", StateTopic: root + "/sensor/" + sensor, ValueTemplate: "{{ value_json." + name + " }}", DeviceClass: u.class,
			StateClass: u.state, UnitOfMeasurement: u.unit, ExpireAfter: int(expire / time.Second), Availability: []availability{{root + "/sensor/" + sensor + "/status", "ok", "failed"}}})
	}
	for _, s := range cfg.Sensors {
		for _, q := range valuesOf(d.a.opt.Drivers, s, names[s.Name]) {
			value(s.Name, q.Name, q, expireAfter(s))
		}
	}
	for _, m := range cfg.Meters {
		seen := names[m.Name]
		if len(seen) == 0 {
			seen = []string{"total_pulses"}
			if m.Unit != "" {
				seen = append(seen, "total_"+m.Unit)
			}
			seen = append(seen, m.Rate(0).Name)
		}
		for _, name := range seen {
			value(m.Name, name, sensors.Quantity{}, 0)
		}
	}
	for _, in := range cfg.Inputs {
		add("input", in.Name, "", component{Platform: "binary_sensor", StateTopic: root + "/input/" + in.Name, PayloadOn: "ON", PayloadOff: "OFF"})
	}
	for _, out := range cfg.Outputs {
		add("output", out.Name, "", component{Platform: "switch", StateTopic: root + "/output/" + out.Name, CommandTopic: root + "/output/" + out.Name + "/set", PayloadOn: "ON", PayloadOff: "OFF", QoS: 1})
	}
	return parts
}

// expireAfter is when a value that did not come again is no longer believed: three periods. What is kept for later comes late by design.
func expireAfter(s sensors.Config) time.Duration {
	if s.Offline == "keep" {
		return 0
	}
	every := s.Every
	if s.Deadband > 0 {
		every = max(every, s.Heartbeat)
	}
	return max(3*every, 30*time.Second)
}

// suffixWord is the part of a value's name that says its unit.
func (u unit) suffixWord(name string) string {
	i := strings.LastIndex(name, "_")
	if u.unit == "" || i < 0 || u.state == "total_increasing" {
		return ""
	}
	return name[i:]
}

func title(name string) string {
	words := strings.NewReplacer("_", " ", "-", " ").Replace(name)
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

func (d *discovery) message(cfg Config, parts map[string]component) []byte {
	type device struct {
		Identifiers  []string `json:"identifiers"`
		Name         string   `json:"name"`
		Model        string   `json:"model,omitempty"`
		Manufacturer string   `json:"manufacturer"`
		SWVersion    string   `json:"sw_version,omitempty"`
		SerialNumber string   `json:"serial_number"`
	}
	type origin struct {
		Name      string `json:"name"`
		SWVersion string `json:"sw_version,omitempty"`
	}
	return mustJSON(struct {
		Device     device               `json:"device"`
		Origin     origin               `json:"origin"`
		Components map[string]component `json:"components"`
	}{device{[]string{d.objectID(cfg)}, cfg.ID(), boardModel(), "fieldagent", d.a.opt.Version, cfg.ID()}, origin{"fieldagent", d.a.opt.Version}, parts})
}
