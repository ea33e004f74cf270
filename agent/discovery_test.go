package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fieldagent/agent/config"
	"fieldagent/sensors"
	"fieldagent/sensors/drivers"
	"fieldagent/sensors/sensortest"
)

// validate checks v against the keywords of JSON Schema that testdata/home-assistant.json uses.
func validate(schema map[string]any, v any, path string) (faults []string) {
	bad := func(format string, args ...any) {
		faults = append(faults, path+": "+fmt.Sprintf(format, args...))
	}
	if all, ok := schema["enum"].([]any); ok && !slices.Contains(all, v) {
		bad("%v is none of %v", v, all)
	}
	switch want, _ := schema["type"].(string); want {
	case "object":
		object, ok := v.(map[string]any)
		if !ok {
			bad("%v is no object", v)
			return faults
		}
		required, _ := schema["required"].([]any)
		for _, key := range required {
			if _, ok := object[key.(string)]; !ok {
				bad("%v is missing", key)
			}
		}
		known, _ := schema["properties"].(map[string]any)
		patterns, _ := schema["patternProperties"].(map[string]any)
		for key, x := range object {
			sub, ok := known[key].(map[string]any)
			for pattern, s := range patterns {
				if regexp.MustCompile(pattern).MatchString(key) {
					sub, ok = s.(map[string]any), true
				}
			}
			if !ok {
				bad("%s is not documented", key)
				continue
			}
			faults = append(faults, validate(sub, x, path+"."+key)...)
		}
	case "array":
		list, ok := v.([]any)
		if !ok {
			bad("%v is no array", v)
		}
		items, _ := schema["items"].(map[string]any)
		for i, x := range list {
			faults = append(faults, validate(items, x, fmt.Sprintf("%s[%d]", path, i))...)
		}
	case "string":
		text, ok := v.(string)
		if pattern, has := schema["pattern"].(string); !ok || has && !regexp.MustCompile(pattern).MatchString(text) {
			bad("%v is not %v", v, schema)
		}
	case "integer":
		if n, ok := v.(float64); !ok || n != float64(int(n)) {
			bad("%v is no integer", v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			bad("%v is no boolean", v)
		}
	}
	return faults
}

type discovered struct {
	Device     struct{ Identifiers []string }
	Components map[string]component
}

// found parses a discovery message and checks it against the schema.
func found(t *testing.T, body string) (d discovered) {
	t.Helper()
	b, err := os.ReadFile("testdata/home-assistant.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	var v any
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	for _, fault := range validate(schema, v, "message") {
		t.Error(fault)
	}
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Everything in the example configuration appears, with the keys that Home Assistant documents.
func TestDiscoveryOfTheExample(t *testing.T) {
	b := newBroker(t)
	example, err := os.ReadFile("../configs/pump-house.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(example), "\nsensors:")
	file := localFile(b.addr, "sensors:"+rest)
	start(t, t.TempDir(), localFile(b.addr, ""), func(o *Options) {
		o.Sources = []config.Source{{Name: "pump-house.yaml", Data: []byte(file)}}
		o.Lines, o.Drivers, o.Board = &sensortest.Lines{}, drivers.All, sensortest.Board{}
		if err := config.Load(&o.Config, ConfigOptions(drivers.All), o.Sources...); err != nil {
			t.Fatal(err)
		}
	})
	const topic = "homeassistant/device/pump-7/config"
	b.wait("discovery", func() bool { return b.retained[topic].payload != "" })
	b.mu.Lock()
	d := found(t, b.retained[topic].payload)
	b.mu.Unlock()
	for id, want := range map[string]component{
		"sensor_cabinet_temperature_celsius": {Platform: "sensor", DeviceClass: "temperature", StateClass: "measurement", UnitOfMeasurement: "°C", ExpireAfter: 30},
		"sensor_energy_total_kwh":            {Platform: "sensor", DeviceClass: "energy", StateClass: "total_increasing", UnitOfMeasurement: "kWh"},
		"sensor_energy_power_watts":          {Platform: "sensor", DeviceClass: "power", StateClass: "measurement", UnitOfMeasurement: "W"},
		"input_door":                         {Platform: "binary_sensor"},
		"output_relay1":                      {Platform: "switch"},
	} {
		got, ok := d.Components[id]
		if !ok || got.Platform != want.Platform || got.DeviceClass != want.DeviceClass || got.StateClass != want.StateClass || got.UnitOfMeasurement != want.UnitOfMeasurement || got.ExpireAfter != want.ExpireAfter {
			t.Errorf("%s: %+v, want %+v", id, got, want)
		}
		if !slices.ContainsFunc(got.Availability, func(a availability) bool { return a.Topic == "fieldagent/pump-7/status" }) {
			t.Errorf("%s is available whatever happens to the device", id)
		}
	}
	if c := d.Components["output_relay1"]; c.CommandTopic != "fieldagent/pump-7/output/relay1/set" {
		t.Errorf("%+v", c)
	}
	host := 0
	for id := range d.Components {
		if strings.HasPrefix(id, "sensor_board_") {
			host++
		}
	}
	if host < 3 {
		t.Errorf("%d values of the board", host)
	}
}

// The message is sent again when Home Assistant comes back; what went away is named as gone, also when the agent was off meanwhile; and all of it
// goes when discovery is switched off.
func TestDiscoveryLife(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	const topic = "homeassistant/device/pump-7/config"
	two := "sensors: [{name: one, driver: fake, every: 1h}, {name: two, driver: fake, every: 1h}]\nhome_assistant: {discovery: true}\n"
	r := start(t, dir, localFile(b.addr, two), nil)
	b.wait("discovery", func() bool { return b.retained[topic].payload != "" && b.subscribed("homeassistant/status") })
	b.mu.Lock()
	if d := found(t, b.retained[topic].payload); len(d.Components) != 2 {
		t.Errorf("%+v", d.Components)
	}
	n := len(b.topic(topic))
	b.mu.Unlock()
	b.publish("homeassistant/status", "online", false)
	b.wait("discovery again", func() bool { return len(b.topic(topic)) > n })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, localFile(b.addr, strings.Replace(two, ", {name: two, driver: fake, every: 1h}", "", 1)), nil)
	b.wait("a thing that is gone", func() bool {
		var d discovered
		return json.Unmarshal([]byte(b.retained[topic].payload), &d) == nil && d.Components["sensor_two_temperature_celsius"].StateTopic == ""
	})
	b.mu.Lock()
	d := found(t, b.retained[topic].payload)
	b.mu.Unlock()
	if c, ok := d.Components["sensor_two_temperature_celsius"]; !ok || c.Platform != "sensor" || c.UniqueID != "" || d.Components["sensor_one_temperature_celsius"].StateTopic == "" {
		t.Errorf("%+v", d.Components)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	start(t, dir, localFile(b.addr, ""), nil)
	b.wait("nothing", func() bool { m, ok := b.retained[topic]; return ok && m.payload == "" })
}

// Every value that a driver can have gets a unit from its driver or from its name, unless it has none.
func TestUnits(t *testing.T) {
	for name, want := range map[string]string{"temperature_celsius": "°C", "relative_humidity_percent": "%", "total_m3": "m³", "total_kwh": "kWh", "total_hectolitre": "hectolitre", "load_1m": "", "flow_m3_per_hour": "m³/h"} {
		if got := unitOf(name).unit; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := expireAfter(sensors.Config{Every: 10 * time.Second, Deadband: 1, Heartbeat: 5 * time.Minute}); got != 15*time.Minute {
		t.Errorf("with a deadband: %v", got)
	}
}
