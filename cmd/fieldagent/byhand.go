package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"fieldagent/agent"
	"fieldagent/queue"
	"fieldagent/sensors"
)

// readLine reads an input, meter or output without the agent. It says whether one has that name.
func (p *program) readLine(cfg agent.Config, name string, lines sensors.Lines) (bool, error) {
	for _, c := range cfg.Inputs {
		if c.Name == name {
			return true, p.readInput(c.Spec(), lines)
		}
	}
	for _, c := range cfg.Meters {
		if c.Name != name {
			continue
		}
		spec, _ := c.Spec()
		return true, errors.Join(p.readTotal(c), p.readInput(spec, lines))
	}
	for _, c := range cfg.Outputs {
		if c.Name == name {
			return true, fmt.Errorf("output %s: the agent does not run, so nobody drives %s; fieldagent set %s ON does, as long as it runs", name, c.Line, name)
		}
	}
	return false, nil
}

func (p *program) readInput(spec sensors.LineSpec, lines sensors.Lines) error {
	in, err := lines.Input(spec, sensors.BothEdges, nil, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	on, err := in.Active()
	if err == nil {
		p.printf("state %s\n", sensors.OnOff(on))
	}
	return err
}

// readTotal shows what the state file has of a meter.
func (p *program) readTotal(c sensors.MeterConfig) error {
	q, err := p.store()
	if err != nil {
		return err
	}
	defer q.Close()
	return q.View(func(tx *queue.Tx) error {
		var t sensors.Total
		b, err := tx.Get(queue.Totals, c.Name)
		if err == nil && b != nil {
			err = json.Unmarshal(b, &t)
		}
		if err != nil {
			return err
		}
		p.printf("total_pulses %d\n", t.Pulses)
		if c.Unit != "" {
			p.printf("total_%s %s\n", c.Unit, sensors.FormatUnits(t.Pulses, c.PulsesPerUnit))
		}
		return nil
	})
}

// setLine drives an output without the agent: as long as hold, or until ctx ends; then as on_exit says. Interlocks hold among the outputs of one agent only.
func (p *program) setLine(ctx context.Context, cfg agent.Config, name, state string, hold time.Duration, lines sensors.Lines) error {
	for _, c := range cfg.Outputs {
		if c.Name != name {
			continue
		}
		if state == "TOGGLE" {
			return errors.New("TOGGLE needs the running agent, which knows the state: start it, or say ON or OFF")
		}
		out, err := lines.Output(c.Spec(), state == "ON")
		if err != nil {
			return err
		}
		on, err := out.Active()
		p.printf("%s %s\n", name, sensors.OnOff(on))
		if err == nil && on != (state == "ON") {
			err = fmt.Errorf("output %s: the line reads %s: check for a short or another driver", name, sensors.OnOff(on))
		}
		if hold <= 0 {
			hold = 365 * 24 * time.Hour
			fmt.Fprintln(p.stderr, "the agent does not run: this holds the line until you press Ctrl-C")
		}
		timer := time.NewTimer(hold)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		if c.OnExit != "keep" {
			err = errors.Join(err, out.Set(c.Initial == "ON"))
		}
		return errors.Join(err, out.Close())
	}
	return usage{fmt.Errorf("no output is called %q in %s", name, p.config)}
}
