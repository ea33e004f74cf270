package configs

import (
	"io/fs"
	"strings"
	"testing"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/sensors"
	"fieldagent/sensors/drivers"
)

// Two chips at one address are a fault at both of their lines.
func TestTwoChipsAtOneAddress(t *testing.T) {
	doc := `mqtt: {servers: ["mqtt://127.0.0.1"]}
sensors:
  - {name: a, driver: bme280, address: 0x76}
  - {name: b, driver: bme280, address: 0x76, bus: i2c-2}
  - {name: c, driver: bmp280}
`
	var cfg agent.Config
	err := config.Load(&cfg, agent.ConfigOptions(drivers.All), config.Source{Name: "x.yaml", Data: []byte(doc)})
	for _, want := range []string{"x.yaml:3:", "sensor c is at address 0x76 of i2c-1 already", "x.yaml:5:", "sensor a is at address 0x76 of i2c-1 already"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %q in it", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "x.yaml:4:") {
		t.Errorf("another bus is no clash: %v", err)
	}
}

// Every driver is in an example, and the line that `fieldagent drivers` shows can be pasted.
func TestDriverExamples(t *testing.T) {
	names, _ := fs.Glob(Files, "*.yaml")
	shown := map[string]bool{}
	for _, name := range names {
		cfg, err := load(t, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sensors.New(cfg.Sensors, drivers.All, sensors.Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, s := range cfg.Sensors {
			shown[s.Driver] = true
		}
	}
	for _, d := range drivers.All {
		if !shown[d.Name] {
			t.Errorf("driver %s is in no example", d.Name)
		}
		doc := "mqtt: {servers: [\"mqtt://127.0.0.1\"]}\nsensors:\n  - " + d.Example + "\n"
		var cfg agent.Config
		if err := config.Load(&cfg, agent.ConfigOptions(drivers.All), config.Source{Name: d.Name, Data: []byte(doc)}); err != nil {
			t.Error(err)
		} else if _, err := sensors.New(cfg.Sensors, drivers.All, sensors.Options{}); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
}

// Options are decoded strictly: what is unknown, out of range or impossible is a fault with its line.
func TestDriverOptionsAreStrict(t *testing.T) {
	for line, want := range map[string]string{
		"{name: a, driver: bme280, adress: 0x76}":                                                        "did you mean address",
		"{name: a, driver: bme280, address: 0x78}":                                                       "more than the most, 0x77",
		"{name: a, driver: bh1750, address: 0x24}":                                                       "0x23 or 0x5c",
		"{name: a, driver: ds18b20, id: boiler}":                                                         "not allowed",
		"{name: a, driver: ds18b20}":                                                                     `"id" is missing`,
		"{name: a, driver: ina219, shunt_ohms: 0}":                                                       "less than the least",
		"{name: a, driver: ads1x15, channels: [{input: '4'}]}":                                           "not allowed",
		"{name: a, driver: ads1x15, channels: [{input: '0', scale: 0}]}":                                 "scale 0",
		"{name: a, driver: ads1x15, channels: [{input: '0', value: x_bar}, {input: '1', value: x_bar}]}": "two channels give x_bar",
		"{name: a, driver: ads1x15, channels: [{input: '0', gain: 2}]}":                                  "unknown key",
		"{name: a, driver: sht41}":                                                                       "did you mean sht4x",
		"{name: a, driver: ina3221, channels: [4]}":                                                      "more than the most, 3",
		"{name: a, driver: adxl345, bus: /dev/i2c-1}":                                                    "not allowed",
		"{name: a, driver: lm75}\n  - {name: b, driver: tmp102}":                                         "is at address 0x48 of i2c-1 already",
		"{name: a, driver: lm75, bus: i2c-1/0x70/1}\n  - {name: b, driver: tmp102, bus: i2c-1/0x70/1}":   "is at address 0x48 of i2c-1/0x70/1 already",
	} {
		doc := "mqtt: {servers: [\"mqtt://127.0.0.1\"]}\nsensors:\n  - " + line + "\n"
		var cfg agent.Config
		err := config.Load(&cfg, agent.ConfigOptions(drivers.All), config.Source{Name: "x.yaml", Data: []byte(doc)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x.yaml:3") {
			t.Errorf("%s\n%v\nwant %q in it", line, err, want)
		}
	}
}
