package sensors

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Errors of a bus. A Board wraps them around what its hardware says.
var (
	// ErrNoAnswer is returned when no chip acknowledges the address, or a chip refuses a byte.
	ErrNoAnswer = errors.New("no chip answers")
	// ErrBusStuck is returned when a line of the bus is held low, or a transfer does not end.
	ErrBusStuck = errors.New("the bus is stuck")
	// ErrReset is returned by a driver that finds its chip without its settings: it is opened anew at once.
	ErrReset = errors.New("the chip lost its settings: was its power interrupted?")
)

// stuckAfter is how long a transfer may take. A kernel gives a transfer up after a second at most; what takes longer hangs.
const stuckAfter = 1500 * time.Millisecond

// Share returns b with its buses shared by all that use the result: one transfer at a time on each bus, whichever set of sensors asks.
func Share(b Board) Board {
	if s, ok := b.(*shared); ok {
		return s
	}
	return &shared{Board: b, buses: map[string]*bus{}}
}

type shared struct {
	Board
	mu    sync.Mutex
	buses map[string]*bus
}

func (s *shared) bus(name string) *bus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buses[name] == nil {
		s.buses[name] = &bus{name: name, turn: make(chan struct{}, 1)}
	}
	return s.buses[name]
}

// bus lets one transfer at a time through. A driver that waits between two transfers does not hold it.
type bus struct {
	name string
	turn chan struct{}

	mu     sync.Mutex
	sensor string // whose transfer is under way
	addr   uint16
	since  time.Time
}

// take waits for a turn. It gives up at once when the transfer under way hangs: nobody waits behind a dead bus.
func (b *bus) take(ctx context.Context, sensor string, addr uint16) error {
	for ctx.Err() == nil {
		b.mu.Lock()
		left := stuckAfter - time.Since(b.since)
		if len(b.turn) == 0 {
			left = stuckAfter
		}
		stuck := fmt.Errorf("%w: the transfer of sensor %s with %#x began %v ago and does not end", ErrBusStuck, b.sensor, b.addr, time.Since(b.since).Round(time.Second))
		b.mu.Unlock()
		if left <= 0 {
			return stuck
		}
		timer := time.NewTimer(left)
		select {
		case b.turn <- struct{}{}:
			timer.Stop()
			b.mu.Lock()
			b.sensor, b.addr, b.since = sensor, addr, time.Now()
			b.mu.Unlock()
			return nil
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C: // the transfer hangs, or another one began
		}
	}
	return ctx.Err()
}

func (b *bus) free() { <-b.turn }

// site is the board as one sensor sees it: the transfers on its buses end with the reading's time, and what it keeps is its own.
type site struct {
	*shared
	sensor string
	memory Memory
	ctx    context.Context // of the reading under way
	fault  error           // of its last transfer
}

// I2C returns a bus whose transfers take turns with those of other sensors.
func (s *site) I2C(name string) (i2c.Bus, error) {
	real, err := s.Board.I2C(name)
	if err != nil {
		return nil, err
	}
	return &wire{site: s, bus: s.bus(name), real: real}, nil
}

type wire struct {
	site *site
	bus  *bus
	real i2c.Bus
}

func (w *wire) String() string { return w.bus.name }

func (w *wire) SetSpeed(f physic.Frequency) error { return w.real.SetSpeed(f) }

// Tx does one transfer when it is its turn.
func (w *wire) Tx(addr uint16, out, in []byte) error {
	err := w.bus.take(w.site.ctx, w.site.sensor, addr)
	if err == nil {
		err = w.real.Tx(addr, out, in)
		w.bus.free()
	}
	if err != nil {
		err = explain(w.bus.name, addr, err)
		w.site.fault = err
	}
	return err
}

// explain adds where it happened and what mends it.
func explain(bus string, addr uint16, err error) error {
	switch {
	case errors.Is(err, ErrNoAnswer):
		return fmt.Errorf("%s address %#x: %w; check wiring, power and address (fieldagent scan)", bus, addr, err)
	case errors.Is(err, ErrBusStuck):
		return fmt.Errorf("%s: %w; a chip or a short holds SDA or SCL low, or the pull-ups are missing: take the chips off one by one, or cut their power", bus, err)
	}
	return fmt.Errorf("%s address %#x: %w", bus, addr, err)
}
