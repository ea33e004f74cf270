package sensors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Errors of outputs.
var (
	// ErrNoOutput is returned when no output has that name.
	ErrNoOutput = errors.New("no such output")
	// ErrInterlock is returned when an output that excludes this one is on.
	ErrInterlock = errors.New("refused by interlock")
	// ErrOutputDown is returned while the line of the output cannot be held.
	ErrOutputDown = errors.New("the output's line is not held")
	// ErrOutputState is returned when a state is none of ON, OFF and TOGGLE.
	ErrOutputState = errors.New("use ON, OFF or TOGGLE")
)

// OutputConfig is one entry of outputs:.
type OutputConfig struct {
	Name      string        `config:"name,required" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Name of the output; its topic is <root>/output/<name>."`
	Line      string        `config:"line,required" doc:"Line by name (GPIO22) or by chip label and offset (pinctrl-bcm2711:22)."`
	ActiveLow bool          `config:"active_low" doc:"Low is ON."`
	OpenDrain bool          `config:"open_drain" doc:"Drive low, let go for high."`
	Initial   string        `config:"initial" default:"OFF" enum:"ON,OFF" doc:"State at start."`
	OnExit    string        `config:"on_exit" default:"initial" enum:"keep,initial" doc:"State when the agent ends or the output is removed: initial, or keep (left as it is, as far as the chip keeps it)."`
	Excludes  []string      `config:"excludes" doc:"Outputs that must be OFF while this one is ON."`
	MaxOn     time.Duration `config:"max_on" default:"0s" min:"0s" doc:"Switch OFF by itself after this time; 0 never."`
}

// Spec returns how the line is requested.
func (c OutputConfig) Spec() LineSpec {
	return LineSpec{Line: c.Line, Consumer: "fieldagent " + c.Name, ActiveLow: c.ActiveLow, OpenDrain: c.OpenDrain}
}

// Command is what to do with an output.
type Command struct {
	State string        // ON, OFF or TOGGLE
	For   time.Duration // then back to the other state; 0 for good
}

// OutputState is an output as it is now.
type OutputState struct {
	Name string
	On   bool  // level of the line, read back
	Held bool  // the line is ours; On means nothing otherwise
	Err  error // why it is not held, or does not do what it should
}

// Outputs holds and switches lines with interlocks between them.
type Outputs struct {
	lines  Lines
	log    *slog.Logger
	report func(OutputState)

	telling sync.Mutex // keeps reports in the order of what they report
	mu      sync.Mutex
	out     map[string]*output
}

type output struct {
	cfg  OutputConfig
	line OutputLine
	on   bool // as commanded
	real bool // as read back
	last error
	undo *time.Timer
	gen  uint64 // of the newest command: an older timer must not undo it
}

// NewOutputs makes a set without lines. report is called for each change and each fault, one at a time, and must not call the set.
func NewOutputs(lines Lines, log *slog.Logger, report func(OutputState)) *Outputs {
	return &Outputs{lines: lines, log: log, report: report, out: map[string]*output{}}
}

// Apply makes the set hold exactly cfgs. An output whose settings did not change is not touched: no relay clicks.
// Lines that cannot be held are reported and tried again by Run.
func (o *Outputs) Apply(cfgs []OutputConfig) {
	o.mu.Lock()
	keep := map[string]bool{}
	for _, c := range cfgs {
		if old, ok := o.out[c.Name]; ok && sameLine(old.cfg, c) {
			old.cfg = c // the rest needs no new line
			keep[c.Name] = true
		}
	}
	for name, old := range o.out {
		if !keep[name] {
			o.release(old)
			delete(o.out, name)
		}
	}
	var opened []string
	for _, c := range cfgs {
		if !keep[c.Name] {
			o.out[c.Name] = &output{cfg: c}
			o.open(o.out[c.Name])
			opened = append(opened, c.Name)
		}
	}
	o.mu.Unlock()
	o.tell(opened...)
}

// sameLine says whether the line can stay held as it is.
func sameLine(a, b OutputConfig) bool {
	return a.Line == b.Line && a.ActiveLow == b.ActiveLow && a.OpenDrain == b.OpenDrain
}

// open tries to hold the line. It says whether that is news.
func (o *Outputs) open(n *output) bool {
	on := n.cfg.Initial == "ON"
	line, err := o.lines.Output(n.cfg.Spec(), on)
	if err != nil {
		news := n.last == nil || n.last.Error() != err.Error()
		n.last = err
		return news
	}
	n.line, n.on, n.real, n.last = line, on, on, nil
	if on && n.cfg.MaxOn > 0 {
		o.undoAfter(n, n.cfg.MaxOn, false)
	}
	return true
}

func (o *Outputs) release(n *output) {
	n.cancel()
	if n.line == nil {
		return
	}
	if n.cfg.OnExit != "keep" {
		if err := n.line.Set(n.cfg.Initial == "ON"); err != nil {
			o.log.Error("output not set to its initial state at its end", "output", n.cfg.Name, "err", err)
		}
	}
	_ = n.line.Close()
	n.line = nil
}

// cancel keeps a pulse that is under way from ending.
func (n *output) cancel() {
	n.gen++
	if n.undo != nil {
		n.undo.Stop()
		n.undo = nil
	}
}

// outputsEvery is how often lines are looked at, and those that could not be held tried again.
const outputsEvery = 5 * time.Second

// Run opens what could not be opened, and reads back what is held, until ctx ends; then every output goes to its on_exit state.
func (o *Outputs) Run(ctx context.Context) error {
	tick := time.NewTicker(outputsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			o.mu.Lock()
			defer o.mu.Unlock()
			for _, n := range o.out {
				o.release(n)
			}
			return nil
		case <-tick.C:
			var news []string
			o.mu.Lock()
			for name, n := range o.out {
				if n.line == nil && o.open(n) || n.line != nil && o.look(n) {
					news = append(news, name)
				}
			}
			o.mu.Unlock()
			o.tell(news...)
		}
	}
}

// look reads the line back. It says whether something is not as it was.
func (o *Outputs) look(n *output) bool {
	before, last := n.real, n.last
	err := o.readBack(n)
	n.last = err
	return n.real != before || (err == nil) != (last == nil) || err != nil && err.Error() != last.Error()
}

// readBack takes the level that the line really has. A line whose chip has gone is let go: Run opens it again.
func (o *Outputs) readBack(n *output) error {
	real, err := n.line.Active()
	if err != nil {
		return o.gone(n, fmt.Errorf("output %s: read back: %w", n.cfg.Name, err))
	}
	n.real = real
	if real != n.on {
		return fmt.Errorf("output %s: line reads %s after it was set %s: check for a short or another driver", n.cfg.Name, OnOff(real), OnOff(n.on))
	}
	return nil
}

func (o *Outputs) gone(n *output, err error) error {
	if errors.Is(err, ErrLineGone) {
		n.cancel()
		_ = n.line.Close()
		n.line, n.on, n.real = nil, false, false
	}
	return err
}

// Do carries out a command. It returns the state after it, read back from the line.
func (o *Outputs) Do(name string, c Command) (bool, error) {
	o.mu.Lock()
	n, ok := o.out[name]
	if !ok {
		o.mu.Unlock()
		return false, fmt.Errorf("%w: %q", ErrNoOutput, name)
	}
	err := o.set(n, c)
	on := n.real
	o.mu.Unlock()
	o.tell(name)
	return on, err
}

func (o *Outputs) set(n *output, c Command) error {
	var want bool
	switch c.State {
	case "ON":
		want = true
	case "OFF":
	case "TOGGLE":
		want = !n.on
	default:
		return fmt.Errorf("output %s: state %q: %w", n.cfg.Name, c.State, ErrOutputState)
	}
	if n.line == nil {
		return fmt.Errorf("output %s: %w: %v", n.cfg.Name, ErrOutputDown, n.last)
	}
	if want {
		if other := o.conflict(n); other != "" {
			return fmt.Errorf("output %s: %w: %s is ON; switch it OFF first", n.cfg.Name, ErrInterlock, other)
		}
	}
	if err := n.line.Set(want); err != nil {
		n.last = o.gone(n, fmt.Errorf("output %s: set %s: %w", n.cfg.Name, c.State, err))
		return n.last
	}
	n.on = want
	n.cancel()
	switch {
	case want && n.cfg.MaxOn > 0 && (c.For == 0 || c.For > n.cfg.MaxOn):
		o.undoAfter(n, n.cfg.MaxOn, false)
	case c.For > 0:
		o.undoAfter(n, c.For, !want)
	}
	n.last = o.readBack(n)
	return n.last
}

// undoAfter runs in a timer of its own, so that a busy agent does not lengthen a pulse.
func (o *Outputs) undoAfter(n *output, wait time.Duration, state bool) {
	gen := n.gen
	n.undo = time.AfterFunc(wait, func() {
		o.mu.Lock()
		if n.gen != gen || n.line == nil {
			o.mu.Unlock()
			return
		}
		if err := o.set(n, Command{State: OnOff(state)}); err != nil {
			o.log.Error("the end of a timed output failed", "output", n.cfg.Name, "err", err)
			n.last = err
		}
		o.mu.Unlock()
		o.tell(n.cfg.Name)
	})
}

// conflict returns the names of outputs that are ON and exclude n, or are excluded by it.
func (o *Outputs) conflict(n *output) string {
	var found []string
	for name, other := range o.out {
		if other != n && (other.on || other.real) && (slices.Contains(n.cfg.Excludes, name) || slices.Contains(other.cfg.Excludes, n.cfg.Name)) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
}

// Report reports an output though it did not change.
func (o *Outputs) Report(name string) { o.tell(name) }

// tell reports outputs as they are when they are reported: the last report is never a stale one.
func (o *Outputs) tell(names ...string) {
	o.telling.Lock()
	defer o.telling.Unlock()
	slices.Sort(names)
	for _, name := range names {
		o.mu.Lock()
		n, ok := o.out[name]
		var s OutputState
		if ok {
			s = n.state()
		}
		o.mu.Unlock()
		if ok {
			o.report(s)
		}
	}
}

func (n *output) state() OutputState {
	return OutputState{Name: n.cfg.Name, On: n.real, Held: n.line != nil, Err: n.last}
}

// States returns all outputs, by name.
func (o *Outputs) States() []OutputState {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := make([]OutputState, 0, len(o.out))
	for _, n := range o.out {
		s = append(s, n.state())
	}
	slices.SortFunc(s, func(a, b OutputState) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// OnOff writes a state as the topics have it.
func OnOff(on bool) string {
	if on {
		return "ON"
	}
	return "OFF"
}
