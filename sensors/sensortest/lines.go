package sensortest

import (
	"fmt"
	"sync"
	"time"

	"fieldagent/sensors"
)

// Lines are simulated lines: a test drives inputs and looks at outputs. The zero value has every line, all inactive.
type Lines struct {
	mu    sync.Mutex
	lines map[string]*simLine
	clock time.Duration // of edges, when Now is nil
	Now   func() time.Duration
	// Trace holds "GPIO22=ON" for every level an output line was given, in order.
	Trace []string
	// Slow, when not nil, keeps Input waiting until it is closed.
	Slow chan struct{}
}

type simLine struct {
	level, held bool
	busy        error
	seq         uint32
	want        sensors.Edges
	edge        func(sensors.Edge)
	lost        func(error)
}

var _ sensors.Lines = (*Lines)(nil)

func (s *Lines) line(name string) *simLine {
	if s.lines == nil {
		s.lines = map[string]*simLine{}
	}
	if s.lines[name] == nil {
		s.lines[name] = &simLine{}
	}
	return s.lines[name]
}

// Input implements sensors.Lines.
func (s *Lines) Input(spec sensors.LineSpec, want sensors.Edges, edge func(sensors.Edge), lost func(error)) (sensors.InputLine, error) {
	if s.Slow != nil {
		<-s.Slow
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.line(spec.Line)
	if err := l.take(spec.Line); err != nil {
		return nil, err
	}
	l.seq, l.want, l.edge, l.lost = 0, want, edge, lost
	return &held{s, spec.Line}, nil
}

// Output implements sensors.Lines.
func (s *Lines) Output(spec sensors.LineSpec, initial bool) (sensors.OutputLine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.line(spec.Line)
	if err := l.take(spec.Line); err != nil {
		return nil, err
	}
	l.level = initial
	s.Trace = append(s.Trace, spec.Line+"="+sensors.OnOff(initial))
	return &held{s, spec.Line}, nil
}

func (l *simLine) take(name string) error {
	if l.busy != nil {
		return l.busy
	}
	if l.held {
		return fmt.Errorf("line %s is held by %q; end that first, or use another line", name, "fieldagent")
	}
	l.held = true
	return nil
}

// Drive sets an input's level and tells its holder, as the kernel would. lose edges are swallowed first, as by a full buffer.
func (s *Lines) Drive(name string, level bool, lose int) {
	s.mu.Lock()
	l := s.line(name)
	changed := l.level != level
	l.level = level
	s.clock += 10 * time.Millisecond
	at := s.clock
	if s.Now != nil {
		at = s.Now()
	}
	var tell func()
	if l.held && l.edge != nil && changed && (level && l.want&sensors.Rising != 0 || !level && l.want&sensors.Falling != 0) {
		l.seq += uint32(lose) + 1
		e, f := sensors.Edge{Active: level, At: at, Seq: l.seq}, l.edge
		tell = func() { f(e) }
	}
	s.mu.Unlock()
	if tell != nil {
		tell()
	}
}

// Level returns the level of a line, and whether anybody holds it.
func (s *Lines) Level(name string) (level, isHeld bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.line(name)
	return l.level, l.held
}

// Break makes the line fail for its holder and for everybody who opens it, until err is nil.
func (s *Lines) Break(name string, err error) {
	s.mu.Lock()
	l := s.line(name)
	l.busy = err
	lost := l.lost
	l.lost = nil
	s.mu.Unlock()
	if err != nil && lost != nil {
		lost(err)
	}
}

type held struct {
	s    *Lines
	name string
}

func (h *held) Active() (bool, error) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	l := h.s.line(h.name)
	return l.level, l.busy
}

func (h *held) Polled() bool { return false }

func (h *held) Set(active bool) error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	l := h.s.line(h.name)
	if l.busy != nil {
		return l.busy
	}
	l.level = active
	h.s.Trace = append(h.s.Trace, h.name+"="+sensors.OnOff(active))
	return nil
}

func (h *held) Close() error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	l := h.s.line(h.name)
	l.held, l.edge, l.lost = false, nil, nil
	return nil
}
