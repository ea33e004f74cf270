package main

import (
	"strings"
	"testing"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/sensors"
	"fieldagent/sensors/board"
	"fieldagent/sensors/drivers"
)

// What scan suggests can be pasted as it is, whatever was found.
func TestSuggestionLoads(t *testing.T) {
	var f busFound
	f.name = "i2c-1"
	for addr := uint16(0x08); addr <= 0x77; addr++ {
		c := chipFound{Found: board.Found{Address: addr}}
		c.drivers, c.sure = sensors.Likely(addr, drivers.All, nil)
		f.chips = append(f.chips, c)
		if c.what() == "" {
			t.Errorf("nothing said of %#x", addr)
		}
	}
	kernel := []kernelSensor{{"cpu-thermal", "sys/class/thermal/thermal_zone0"}, {"28-0316a2795abc", "sys/bus/w1/devices/28-0316a2795abc"}, {"BMP:280", "x"}, {"cpu-thermal", "y"}}
	chips := []board.Chip{{Label: "pinctrl-bcm2711", Lines: []board.Line{{Name: "GPIO17"}, {Name: "GPIO18", Used: true}, {Offset: 2}, {Name: "GPIO22"}, {Name: "a \"b\""}}}}
	text := suggest([]busFound{f, {name: "i2c-2", chips: f.chips}}, kernel, chips)
	for _, s := range []string{text, strings.NewReplacer("# inputs", "inputs", "# meters", "meters", "# outputs", "outputs", "#   -", "  -").Replace(text)} {
		var cfg agent.Config
		src := config.Source{Name: "scan", Data: []byte("mqtt: {servers: [\"mqtt://127.0.0.1\"]}\n" + s)}
		if err := config.Load(&cfg, agent.ConfigOptions(drivers.All), src); err != nil {
			t.Errorf("%v\n%s", err, s)
		}
		if len(cfg.Sensors) < 5 {
			t.Errorf("%d sensors in\n%s", len(cfg.Sensors), s)
		}
	}
}
