package sensors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	reopenAfter = 3 // errors in a row, then the sensor is opened anew
	backoffMin  = time.Second
	backoffMax  = 5 * time.Minute
	closeIn     = 500 * time.Millisecond // for putting a chip to sleep
)

// one is a sensor and its supervisor.
type one struct {
	cfg    Config
	driver Driver
	all    []Driver
	site   *site
	turn   chan struct{} // one call into the driver at a time; one that hangs keeps it
	began  time.Time     // of the call that has the turn
	ask    chan chan<- asked
	sensor Sensor
	tend   *time.Ticker // of a Tended sensor
	past   map[string][]float64
	sent   []Value
	sentAt time.Time

	mu                sync.Mutex
	state             SensorState
	flaps             int       // failures of late; see changed
	flapping, flapped time.Time // the first and the last of them
	busy              time.Time // since when the supervisor does something; zero while it waits
}

type asked struct {
	values []Value
	err    error
}

func newOne(c Config, drivers []Driver, opt Options) (*one, error) {
	d, err := find(drivers, c.Driver)
	if err != nil {
		return nil, err
	}
	if c.Options == nil && d.Options != nil {
		c.Options = d.Options()
	}
	c.Timeout = max(c.Timeout, d.Takes)
	o := &one{cfg: c, driver: d, all: drivers, turn: make(chan struct{}, 1), ask: make(chan chan<- asked),
		state: SensorState{Name: c.Name, Driver: c.Driver, State: StateStarting, Since: time.Now()}}
	o.site = &site{shared: Share(opt.Board).(*shared), sensor: c.Name, memory: opt.Memory}
	return o, o.fits()
}

// fits refuses what the driver cannot do.
func (o *one) fits() error {
	var faults []error
	o.driver.check(o.cfg, func(path, message, hint string) {
		faults = append(faults, fmt.Errorf("%s: %s; %s", path, message, hint))
	})
	return errors.Join(faults...)
}

// limited runs fn and returns when it has ended or its time is over. A fn that hangs keeps the turn until it returns: nothing is started beside it.
func (o *one) limited(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return fmt.Errorf("the reading that began %v ago still hangs", time.Since(o.began).Round(time.Second))
	}
	o.began = time.Now()
	o.site.ctx, o.site.fault = ctx, nil
	done := make(chan error, 1)
	go func() {
		defer cancel()
		defer func() { <-o.turn }()
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("driver %s panics: %v", o.cfg.Driver, p)
			}
		}()
		err := fn(ctx)
		done <- because(err, o.site.fault)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case err := <-done:
			return err
		default:
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("no answer within %v (timeout): check the wiring, or give the sensor more time", limit)
		}
		return ctx.Err()
	}
}

// because makes what the bus said the cause of err, where a driver does not pass it on.
func because(err, fault error) error {
	switch {
	case err == nil || fault == nil || errors.Is(err, fault):
		return err
	case strings.Contains(err.Error(), fault.Error()):
		return caused{err.Error(), fault}
	}
	return caused{err.Error() + ": " + fault.Error(), fault}
}

type caused struct {
	text  string
	cause error
}

func (c caused) Error() string { return c.text }
func (c caused) Unwrap() error { return c.cause }

func (o *one) open(ctx context.Context) error {
	var s Sensor
	err := o.limited(ctx, o.cfg.Timeout, func(ctx context.Context) (err error) {
		if err := rightChip(o.driver, o.cfg.Options, o.site, o.all); err != nil {
			return err
		}
		s, err = o.driver.Open(ctx, o.cfg.Options, o.site)
		return err
	})
	if err != nil {
		return err
	}
	o.sensor = s
	if t, ok := s.(Tended); ok {
		o.tend = time.NewTicker(t.TendEvery())
	}
	return nil
}

// close lets the sensor go. One that hangs is left behind.
func (o *one) close() {
	if c, ok := o.sensor.(io.Closer); ok {
		_ = o.limited(context.Background(), closeIn, func(context.Context) error { return c.Close() })
	}
	o.sensor = nil
	if o.tend != nil {
		o.tend.Stop()
		o.tend = nil
	}
}

func (o *one) read(ctx context.Context) ([]Value, error) {
	s := o.sensor
	var v []Value
	err := o.limited(ctx, o.cfg.Timeout, func(ctx context.Context) error {
		got, err := s.Read(ctx)
		if err == nil {
			v = got
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, o.plausible(v)
}

// measure reads the sensor, and opens it first if need be. A chip that lost its settings is opened anew once.
func (o *one) measure(ctx context.Context) ([]Value, error) {
	for again := true; ; again = false {
		if o.sensor == nil {
			if err := o.open(ctx); err != nil {
				return nil, err
			}
		}
		v, err := o.read(ctx)
		if !errors.Is(err, ErrReset) {
			return v, err
		}
		o.close()
		if !again {
			return nil, err
		}
	}
}

// once is measure for people: the values as they are now, with the sensor's name in errors.
func (o *one) once(ctx context.Context) ([]Value, error) {
	v, err := o.measure(ctx)
	if err != nil {
		return nil, fmt.Errorf("sensor %s: %w", o.cfg.Name, err)
	}
	return o.calibrate(v), nil
}

// now asks the supervisor for a reading.
func (o *one) now(ctx context.Context) ([]Value, error) {
	answer := make(chan asked, 1)
	select {
	case o.ask <- answer:
	case <-ctx.Done():
		return nil, fmt.Errorf("sensor %s is busy: %w", o.cfg.Name, ctx.Err())
	}
	select {
	case a := <-answer:
		return a.values, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("sensor %s: %w", o.cfg.Name, ctx.Err())
	}
}

// run is the supervisor.
func (o *one) run(ctx context.Context, base time.Time, log *slog.Logger, report func(Reading)) {
	defer o.close()
	pause, failures := backoffMin, 0
	defer o.work(false)
	for {
		o.work(true)
		values, err := o.measure(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := untilNext(base, time.Now(), o.cfg.Every)
		if err == nil {
			pause, failures = backoffMin, 0
			o.note(log, nil)
			values = o.smooth(o.calibrate(values))
			if o.worth(values) {
				report(Reading{Sensor: o.cfg.Name, At: time.Now(), Values: values, State: StateOK})
			}
		} else {
			failures++
			o.sent = nil // the first good reading after it is sent whatever its value
			o.note(log, err)
			report(Reading{Sensor: o.cfg.Name, At: time.Now(), Err: err, State: StateFailed})
			if o.sensor != nil && failures >= reopenAfter {
				o.close()
			}
			if o.sensor == nil {
				wait = max(wait, pause)
				if pause > o.cfg.Every {
					wait = untilNext(base, time.Now().Add(pause-o.cfg.Every), o.cfg.Every) + pause - o.cfg.Every
				}
				pause = min(pause*2, backoffMax)
			}
		}
		if !o.wait(ctx, wait) {
			return
		}
	}
}

// work notes that the supervisor does something from now on, or waits.
func (o *one) work(on bool) {
	o.mu.Lock()
	o.busy = time.Time{}
	if on {
		o.busy = time.Now()
	}
	o.mu.Unlock()
}

// wait passes the time to the next reading: it tends the sensor, and reads it for whoever asks. It returns false when ctx has ended.
func (o *one) wait(ctx context.Context, d time.Duration) bool {
	next := time.NewTimer(d)
	defer next.Stop()
	for {
		var tend <-chan time.Time
		if o.tend != nil {
			tend = o.tend.C
		}
		o.work(false)
		select {
		case <-ctx.Done():
			return false
		case <-next.C:
			return true
		case <-tend:
			o.work(true)
			if t, ok := o.sensor.(Tended); ok {
				_ = o.limited(ctx, o.cfg.Timeout, t.Tend) // what is wrong shows in the next reading
			}
		case answer := <-o.ask:
			o.work(true)
			v, err := o.once(ctx)
			answer <- asked{v, err}
		}
	}
}

// untilNext is the time to the next point of the grid base + k × every. Readings that take long skip points; the grid does not move.
func untilNext(base, now time.Time, every time.Duration) time.Duration {
	since := now.Sub(base)
	return every - since%every
}

const (
	flapsTold = 4                // failures of a sensor that works in between, each told
	flapsOver = 10 * time.Minute // without one, they begin anew
)

// changed counts failures of a sensor that works in between; the caller holds mu.
func (o *one) changed() {
	if now := time.Now(); now.Sub(o.flapped) > flapsOver {
		o.flaps, o.flapping = 0, now
	}
	o.flaps++
	o.flapped = time.Now()
}

// tell says whether the newest of these is told: the first few, then ever more seldom.
func (o *one) tell() bool { return o.flaps <= flapsTold || o.flaps&(o.flaps-1) == 0 }

// note keeps the state and logs its changes.
func (o *one) note(log *slog.Logger, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.state.State
	o.state.Reads++
	state := StateOK
	if err != nil {
		state = StateFailed
		o.state.Errors++
		text := err.Error()
		if state != before {
			o.changed()
		}
		switch {
		case state == before && (o.state.Err == text || o.state.Errors%64 != 0), state != before && !o.tell():
		case o.flaps > flapsTold:
			log.Error("sensor fails again and again", "sensor", o.cfg.Name, "driver", o.cfg.Driver, "times", o.flaps, "since", o.flapping.Round(0), "err", text)
		default:
			log.Error("sensor failed, will be tried again", "sensor", o.cfg.Name, "driver", o.cfg.Driver, "err", text)
		}
		o.state.Err = text
		o.state.LastErr, o.state.LastErrAt = text, time.Now()
	} else {
		o.state.Err = ""
		if before == StateFailed && o.tell() {
			log.Info("sensor works again", "sensor", o.cfg.Name)
		}
	}
	if state != before {
		o.state.State, o.state.Since = state, time.Now()
	}
}
