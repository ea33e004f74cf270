package sensors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Options of a Set.
type Options struct {
	Board  Board // as returned by Share, when others use it too
	Memory Memory
	Log    *slog.Logger
}

// Set is all configured sensors.
type Set struct {
	opt  Options
	ones []*one
}

// New checks the configurations and puts the set together.
func New(cfg []Config, drivers []Driver, opt Options) (*Set, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Board = Share(opt.Board)
	s := &Set{opt: opt}
	var faults []error
	for _, c := range cfg {
		o, err := newOne(c, drivers, opt)
		if err != nil {
			faults = append(faults, fmt.Errorf("sensor %s: %w", c.Name, err))
			continue
		}
		s.ones = append(s.ones, o)
	}
	Clashes(cfg, func(i, other int, at Place) {
		faults = append(faults, fmt.Errorf("sensor %s: %s is at address %#x of %s already", cfg[i].Name, cfg[other].Name, at.Address, at.Bus))
	})
	return s, errors.Join(faults...)
}

// Run supervises every sensor until ctx ends. It returns within a second, even when a reading hangs.
// report is called from many goroutines.
func (s *Set) Run(ctx context.Context, report func(Reading)) error {
	// One random phase for all: a fleet does not read in step, and sensors of one device share wake-ups.
	base := time.Now().Add(-time.Duration(rand.Int64N(int64(time.Minute))))
	var wg sync.WaitGroup
	for _, o := range s.ones {
		wg.Go(func() { o.run(ctx, base, s.opt.Log, report) })
	}
	wg.Wait()
	return nil
}

// Read reads a sensor of a running set now, whatever its schedule says, and returns the corrected values. Nothing is reported.
func (s *Set) Read(ctx context.Context, name string) ([]Value, error) {
	for _, o := range s.ones {
		if o.cfg.Name == name {
			return o.now(ctx)
		}
	}
	return nil, fmt.Errorf("no sensor is called %q", name)
}

// Stalled returns an error when a supervisor has not come back from what it does for longer than limit and all that its sensor may take.
func (s *Set) Stalled(limit time.Duration) error {
	for _, o := range s.ones {
		o.mu.Lock()
		busy := o.busy
		o.mu.Unlock()
		if d := time.Since(busy); !busy.IsZero() && d > limit+4*o.cfg.Timeout { // opened, read, and both once more
			return fmt.Errorf("the supervisor of sensor %s has not turned for %v", o.cfg.Name, d.Round(time.Second))
		}
	}
	return nil
}

// States returns all sensors as they are now, in the order of the configuration.
func (s *Set) States() []SensorState {
	var out []SensorState
	for _, o := range s.ones {
		o.mu.Lock()
		out = append(out, o.state)
		o.mu.Unlock()
	}
	return out
}
