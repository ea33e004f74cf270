package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/sensors"
)

// outputs are the lines that are switched: over MQTT, by commands and through the API.
type outputs struct {
	a   *Agent
	set *sensors.Outputs

	mu    sync.Mutex
	names map[string]bool
	fault map[string]string // as logged
}

func newOutputs(a *Agent) *outputs {
	o := &outputs{a: a, names: map[string]bool{}, fault: map[string]string{}}
	o.set = sensors.NewOutputs(a.opt.Lines, a.log, o.report)
	return o
}

// apply holds exactly what next has.
func (o *outputs) apply(next []sensors.OutputConfig) {
	names := map[string]bool{}
	for _, c := range next {
		names[c.Name] = true
	}
	o.mu.Lock()
	old := o.names
	o.names = names
	o.mu.Unlock()
	o.set.Apply(next)
	for name := range old {
		if !names[name] {
			o.a.retained.remove("output/" + name)
		}
	}
}

// report shows what an output's line reads. A line that is not held has no state: a stale ON must not stay at the broker.
func (o *outputs) report(s sensors.OutputState) {
	fault := ""
	if s.Err != nil {
		fault = s.Err.Error()
	}
	o.mu.Lock()
	news, wanted := o.fault[s.Name] != fault, o.names[s.Name]
	o.fault[s.Name] = fault
	o.mu.Unlock()
	switch {
	case news && fault != "":
		o.a.log.Error("output failed", "output", s.Name, "err", fault)
	case news:
		o.a.log.Info("output works again", "output", s.Name)
	}
	switch topic := "output/" + s.Name; {
	case !wanted:
	case !s.Held:
		o.a.retained.remove(topic)
	default:
		o.a.retained.set(topic, []byte(sensors.OnOff(s.On)))
	}
}

// setting is what to do with an output, as topics, commands and the API have it.
type setting struct {
	State string `json:"state"`
	For   string `json:"for,omitempty"`
}

const maxHold = 30 * 24 * time.Hour

// command checks a setting.
func (s setting) command() (sensors.Command, error) {
	c := sensors.Command{State: strings.ToUpper(strings.TrimSpace(s.State))}
	if c.State != "ON" && c.State != "OFF" && c.State != "TOGGLE" {
		return c, fmt.Errorf(`state %q: %w, or {"state":"ON","for":"500ms"}`, s.State, sensors.ErrOutputState)
	}
	if s.For == "" {
		return c, nil
	}
	d, err := time.ParseDuration(s.For)
	if err != nil || d <= 0 || d > maxHold {
		return c, fmt.Errorf(`for: %q: write a time like 500ms or 2m, at most %v`, s.For, maxHold)
	}
	c.For = d
	return c, nil
}

// parseSetting reads the payload of output/<name>/set, plain or JSON.
func parseSetting(payload []byte) (sensors.Command, error) {
	text := bytes.TrimSpace(payload)
	if len(text) == 0 || text[0] != '{' {
		if len(text) > 16 {
			text = text[:16]
		}
		return setting{State: string(text)}.command()
	}
	var s setting
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return sensors.Command{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return sensors.Command{}, errors.New("there is something after the JSON object")
	}
	return s.command()
}

// receive takes a message from output/<name>/set.
func (o *outputs) receive(_ context.Context, rest string, m mqtt.Message) error {
	name, set, _ := strings.Cut(rest, "/")
	if set != "set" {
		o.a.log.Warn("message on a topic that was not asked for", "topic", m.Topic)
		return nil
	}
	if m.Retained {
		if len(m.Payload) > 0 {
			o.a.log.Warn("retained set message refused: it would switch again at each connect; clear it at the broker", "output", name)
			o.a.commands.refused.Add(1)
		}
		return nil
	}
	c, err := parseSetting(m.Payload)
	if err == nil {
		_, err = o.do(name, c, "MQTT")
	}
	if err != nil {
		o.a.log.Warn("output not switched", "output", name, "err", err)
		o.a.commands.refused.Add(1)
		o.set.Report(name) // whoever asked sees what it is instead
	}
	return nil
}

// do switches an output and returns its state.
func (o *outputs) do(name string, c sensors.Command, by string) (setting, error) {
	on, err := o.set.Do(name, c)
	if err != nil {
		return setting{}, err
	}
	s := setting{State: sensors.OnOff(on)}
	if c.For > 0 {
		s.For = c.For.String()
	}
	o.a.log.Info("output switched", "output", name, "state", s.State, "for", s.For, "by", by)
	return s, nil
}

// outputResult is what set and pulse answer.
type outputResult struct {
	Output string `json:"output"`
	setting
}

// setCommand is cmd/set: {"output":"relay1","state":"ON"}, with "for" if it is to end by itself.
func (o *outputs) setCommand(_ context.Context, args json.RawMessage) (any, error) {
	return o.command(args, "", false)
}

// pulseCommand is cmd/pulse: {"output":"relay1","for":"500ms"}; the state is ON when none is given. It answers when the pulse has begun.
func (o *outputs) pulseCommand(_ context.Context, args json.RawMessage) (any, error) {
	return o.command(args, "ON", true)
}

func (o *outputs) command(args json.RawMessage, state string, timed bool) (any, error) {
	arg := outputResult{setting: setting{State: state}}
	if err := decodeArgs(args, &arg); err != nil {
		return nil, err
	}
	if arg.Output == "" {
		return nil, errors.New(`args: "output" is missing`)
	}
	if timed && arg.For == "" {
		return nil, errors.New(`args: "for" is missing: how long, such as 500ms`)
	}
	c, err := arg.command()
	if err != nil {
		return nil, fmt.Errorf("args: %w", err)
	}
	s, err := o.do(arg.Output, c, "command")
	if err != nil {
		return nil, err
	}
	return outputResult{arg.Output, s}, nil
}

// status returns all outputs in the order of cfg.
func (o *outputs) status(cfg []sensors.OutputConfig) []LineStatus {
	states := map[string]sensors.OutputState{}
	for _, s := range o.set.States() {
		states[s.Name] = s
	}
	out := []LineStatus{}
	for _, c := range cfg {
		s := states[c.Name]
		l := LineStatus{Name: c.Name, Line: c.Line}
		l.set(s.Held, s.On, s.Err)
		out = append(out, l)
	}
	return out
}
