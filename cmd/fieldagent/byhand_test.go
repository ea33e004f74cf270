package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/agent"
	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"
)

func TestLinesByHand(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var out, notes bytes.Buffer
		p := &program{stdout: &out, stderr: &notes, state: dir, config: "f.yaml"}
		lines := &sensortest.Lines{}
		cfg := agent.Config{Inputs: []sensors.InputConfig{{Name: "door", Line: "GPIO17"}}, Meters: []sensors.MeterConfig{{Name: "energy", Line: "GPIO27"}},
			Outputs: []sensors.OutputConfig{{Name: "relay1", Line: "GPIO22", Initial: "OFF"}}}

		lines.Drive("GPIO17", true, 0)
		if found, err := p.readLine(cfg, "door", lines); !found || err != nil || out.String() != "state ON\n" {
			t.Errorf("read door: %v, %v, %q", found, err, out.String())
		}
		if found, err := p.readLine(cfg, "energy", lines); !found || err == nil || !strings.Contains(err.Error(), "--state") {
			t.Errorf("read a meter without its state: %v, %v", found, err)
		}
		if found, err := p.readLine(cfg, "relay1", lines); !found || err == nil {
			t.Errorf("read relay1: %v, %v", found, err)
		}
		if found, _ := p.readLine(cfg, "nope", lines); found {
			t.Error("found nope")
		}

		done := make(chan error, 1)
		go func() { done <- p.setLine(t.Context(), cfg, "relay1", "ON", 2*time.Second, lines) }()
		<-time.After(time.Second)
		if on, held := lines.Level("GPIO22"); !on || !held {
			t.Errorf("after 1 s: on %v, held %v", on, held)
		}
		<-time.After(1500 * time.Millisecond)
		if on, held := lines.Level("GPIO22"); on || held {
			t.Errorf("after its time: on %v, held %v", on, held)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- p.setLine(ctx, cfg, "relay1", "ON", 0, lines) }()
		synctest.Wait()
		if !strings.Contains(notes.String(), "Ctrl-C") {
			t.Errorf("notes: %q", notes.String())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		var u usage
		if err := p.setLine(t.Context(), cfg, "nope", "ON", 0, lines); !errors.As(err, &u) {
			t.Error(err)
		}
		if err := p.setLine(t.Context(), cfg, "relay1", "TOGGLE", 0, lines); err == nil {
			t.Error("TOGGLE without an agent")
		}
	})
}
