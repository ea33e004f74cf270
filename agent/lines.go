package agent

import (
	"context"
	"sync"
	"time"

	"fieldagent/queue"
	"fieldagent/sensors"
)

// linePatience is for lines that are being let go: what they counted goes to disk first.
const linePatience = 1500 * time.Millisecond

// newLines makes what looks after inputs, meters and outputs. They hold nothing yet.
func (a *Agent) newLines() {
	a.inputs = &inputs{a: a, all: map[string]*input{}}
	a.meters = newMeters(a)
	a.outputs = newOutputs(a)
	a.commands.handle("set", &command{run: a.outputs.setCommand})
	a.commands.handle("pulse", &command{run: a.outputs.pulseCommand})
	a.commands.handle("meter-exchange", &command{run: a.exchangeCommand})
}

// runLines holds the lines that cfg names. What did not change is not touched: no relay clicks, no pulse is missed.
func (a *Agent) runLines(cfg Config) {
	if a.opt.Lines == nil {
		return
	}
	a.inputs.drop(cfg.Inputs, false)
	a.meters.drop(cfg.Meters)
	a.outputs.apply(cfg.Outputs)
	a.inputs.hold(a.parts.ctx, cfg.Inputs)
	a.meters.hold(a.parts.ctx, cfg.Meters)
	if a.parts.outputs == nil && len(cfg.Outputs) > 0 {
		a.parts.outputs = startPart(a.parts.ctx, func(ctx context.Context) { _ = a.outputs.set.Run(ctx) })
	}
	if a.parts.meters == nil && len(cfg.Meters) > 0 {
		a.parts.meters = startPart(a.parts.ctx, a.meters.run)
	}
}

// stopLines puts outputs into their last state and what was counted on disk.
func (a *Agent) stopLines() {
	var wg sync.WaitGroup
	wg.Go(func() { a.parts.outputs.stop(linePatience) })
	wg.Go(func() { a.inputs.drop(nil, true) })
	wg.Go(func() {
		a.meters.drop(nil)
		a.parts.meters.stop(linePatience)
	})
	wg.Wait()
}

// configureReadings takes all that publish on sensor/<name>: sensors and meters.
func (a *Agent) configureReadings(cfg Config) {
	all := make([]sensors.Config, 0, len(cfg.Sensors)+len(cfg.Meters))
	all = append(all, cfg.Sensors...)
	for _, m := range cfg.Meters {
		all = append(all, sensors.Config{Name: m.Name, Every: m.Every})
	}
	for _, name := range a.readings.configure(all) {
		a.retained.remove("sensor/" + name + "/status")
	}
}

// stampAt is the wall time of an edge: the kernel says when it was on its monotonic clock.
func (a *Agent) stampAt(at time.Duration) queue.Stamp {
	s := a.clock.Now()
	age := max(0, a.mono()-at)
	s.Wall = s.Wall.Add(-age)
	s.Uptime = max(0, s.Uptime-age)
	return s
}
