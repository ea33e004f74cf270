package configs

import (
	"io/fs"
	"strings"
	"testing"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/sensors/drivers"
)

// TestExamplesLoad loads every example as the agent would.
func TestExamplesLoad(t *testing.T) {
	names, err := fs.Glob(Files, "*.yaml")
	if err != nil || len(names) < 5 {
		t.Fatalf("found %v, %v: the examples are not embedded", names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
			cfg, err := load(t, name)
			if err != nil {
				t.Fatal(err)
			}
			if len(cfg.MQTT.Servers) == 0 || len(cfg.Sensors) == 0 {
				t.Errorf("an example without broker or sensors shows nothing: %+v", cfg)
			}
		})
	}
}

// TestPumpHouse pins what the largest example says.
func TestPumpHouse(t *testing.T) {
	cfg, err := load(t, "pump-house.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Source(); got != "fieldagent/pump-7" {
		t.Errorf("source %q", got)
	}
	m := cfg.Meters[0]
	if m.PulsesPerUnit != 1000 || m.Event.QoS != 2 || m.Event.Every.Minutes() != 15 || m.Save.Pulses != 100 || m.Save.Every.Seconds() != 1 {
		t.Errorf("meter %+v", m)
	}
	if len(cfg.Inputs) != 1 || len(cfg.Outputs) != 1 || len(cfg.Commands) != 1 || !cfg.HomeAssistant.Discovery {
		t.Errorf("a section is missing: %+v", cfg)
	}
}

func load(t *testing.T, name string) (agent.Config, error) {
	t.Helper()
	data, err := Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var cfg agent.Config
	err = config.Load(&cfg, agent.ConfigOptions(drivers.All), config.Source{Name: name, Data: data})
	return cfg, err
}
