package sensors

import (
	"errors"
	"time"
)

// ErrLineGone is returned when the chip of a line has gone, for example because an adapter was pulled out.
var ErrLineGone = errors.New("the line's chip has gone")

// Edge is one change of a line, as the kernel saw it.
type Edge struct {
	Active bool          // level after the edge, active_low already applied
	At     time.Duration // CLOCK_MONOTONIC of the edge, not of its reading
	Seq    uint32        // rises by one with every edge of this line; a hole is a number of edges nobody read. 0: the line cannot tell
}

// Edges says which changes of a line are wanted.
type Edges uint8

// Falling and Rising are physical unless the line is active low: Rising is "becomes active".
const (
	Rising Edges = 1 << iota
	Falling
	BothEdges = Rising | Falling
)

// LineSpec names a line and how it is wired.
type LineSpec struct {
	Line      string        // "GPIO17" (by name) or "pinctrl-bcm2711:17" (chip label and offset); never a chip number
	Consumer  string        // who holds it, shown by gpioinfo and by scan
	Pull      string        // "up", "down", "off" or "" (as the chip has it)
	ActiveLow bool          // low is active
	OpenDrain bool          // outputs: drive low, let go for high
	Debounce  time.Duration // a level counts only when it holds this long
}

// InputLine is a line that is read.
type InputLine interface {
	Active() (bool, error) // level now
	Polled() bool          // the chip has no interrupts: edges come from polling and short pulses are missed
	Close() error
}

// OutputLine is a line that is driven.
type OutputLine interface {
	Set(active bool) error
	Active() (bool, error) // real level, read back without touching the direction
	Close() error          // lets go; the level stays as the chip leaves it
}

// Lines opens lines, each once.
type Lines interface {
	// Input holds a line and calls edge for every wanted change, one at a time and in order, until Close.
	// lost is called at most once, when the line's chip goes away; both may be nil.
	Input(spec LineSpec, want Edges, edge func(Edge), lost func(error)) (InputLine, error)
	// Output holds a line that is driven to initial from the first moment, without a glitch.
	Output(spec LineSpec, initial bool) (OutputLine, error)
}
