package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"fieldagent/queue"
	"fieldagent/sensors"
)

const (
	meterRetry = time.Second      // after the disk refused
	alarmEvery = 10 * time.Minute // between two alarms of one meter
	lookAfter  = time.Minute      // when nothing is due
)

// errNoMeter is returned when no meter has that name.
var errNoMeter = errors.New("no such meter")

// meters count pulses. Totals are integers; they are read from disk before anything is counted or published, and one goroutine writes them:
// what is due goes to disk in one transaction, a billing record together with the total that it states.
type meters struct {
	a       *Agent
	wake    chan struct{} // of the writer
	read    chan struct{} // of the reader
	writing sync.Mutex    // one transaction with totals at a time
	writes  beat
	reads   beat

	mu    sync.Mutex
	all   map[string]*meter
	hurry bool // the power is about to go
}

// meter is one line and its total.
type meter struct {
	name string
	part *part

	// under meters.mu
	cfg      sensors.MeterConfig
	count    *sensors.Meter // nil: the total could not be restored
	held     bool
	polled   bool
	err      error
	started  time.Duration
	recordAt time.Duration
	readAt   time.Duration
	retryAt  time.Duration
	fault    string
	alarmAt  time.Duration
}

func newMeters(a *Agent) *meters {
	return &meters{a: a, wake: make(chan struct{}, 1), read: make(chan struct{}, 1), all: map[string]*meter{}}
}

// drop lets go of the lines that next does not have, or has otherwise, and writes what they counted.
func (s *meters) drop(next []sensors.MeterConfig) {
	s.mu.Lock()
	var gone []*meter
	for name, m := range s.all {
		i := slices.IndexFunc(next, func(c sensors.MeterConfig) bool { return c.Name == name })
		if i >= 0 && sameWatch(next[i], m.cfg) && m.count != nil {
			if !reflect.DeepEqual(next[i], m.cfg) {
				m.cfg = next[i]
				m.count.Configure(m.cfg)
				m.schedule(s.a)
				m.readAt = s.a.mono()
			}
			continue
		}
		gone = append(gone, m)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, m := range gone {
		wg.Go(func() { m.part.stop(linePatience) })
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), linePatience)
	defer cancel()
	if err := s.save(ctx, gone); err != nil {
		s.a.log.Error("a meter's last pulses are not on disk", "err", err)
	}
	s.mu.Lock()
	for _, m := range gone {
		delete(s.all, m.name)
	}
	s.mu.Unlock()
}

// sameWatch says whether the line can stay held as it is.
func sameWatch(a, b sensors.MeterConfig) bool {
	x, ex := a.Spec()
	y, ey := b.Spec()
	return x == y && ex == ey
}

// hold restores the totals of new meters and watches their lines.
func (s *meters) hold(ctx context.Context, next []sensors.MeterConfig) {
	for _, c := range next {
		s.mu.Lock()
		known := s.all[c.Name] != nil
		s.mu.Unlock()
		if known {
			continue
		}
		m := &meter{name: c.Name, cfg: c, started: s.a.mono(), readAt: s.a.mono()}
		total, err := s.restore(c.Name)
		if err != nil {
			m.err = fmt.Errorf("the total cannot be read: %w; set it as after an exchange of the meter", err)
			s.a.log.Error("meter does not count", "meter", c.Name, "err", m.err)
		} else {
			m.count = sensors.NewMeter(c, total)
		}
		m.schedule(s.a)
		s.mu.Lock()
		s.all[c.Name] = m
		s.mu.Unlock()
		if err == nil {
			s.watch(ctx, m)
		}
	}
	s.poke()
}

func (s *meters) watch(ctx context.Context, m *meter) {
	spec, edges := m.cfg.Spec()
	m.part = startPart(ctx, func(ctx context.Context) {
		_ = sensors.Watch(ctx, "meter "+m.name, spec, edges, s.a.opt.Lines, s.a.log, func(r sensors.LineReport) { s.take(m, r) })
	})
}

// restore reads a total; a meter that was never seen begins now.
func (s *meters) restore(name string) (t sensors.Total, err error) {
	var b []byte
	err = s.a.queue.View(func(tx *queue.Tx) (err error) {
		b, err = tx.Get(queue.Totals, name)
		return err
	})
	if err == nil && b != nil {
		err = json.Unmarshal(b, &t)
	}
	if t.Since.IsZero() {
		t.Since = s.a.clock.Now().Wall
	}
	return t, err
}

// schedule says when the next record is due. Records fall on even times of day where the clock is known and the period divides the day.
func (m *meter) schedule(a *Agent) {
	now, at := a.mono(), a.clock.Now()
	every := m.cfg.Event.Every
	wait := every
	if every > 0 && at.Clock == queue.ClockSynced && 24*time.Hour%every == 0 {
		if wait -= at.Wall.Sub(at.Wall.Truncate(every)); wait < every/10 {
			wait += every
		}
	} else if m.count != nil {
		wait -= min(max(0, at.Wall.Sub(m.count.Total().Since)), every)
	}
	m.recordAt = now + wait
}

// take is called by the line's reader, in order, and must not wait.
func (s *meters) take(m *meter, r sensors.LineReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Err != nil:
		m.held, m.err = false, r.Err
	case r.Opened:
		m.held, m.polled, m.err = true, r.Polled, nil
		m.readAt = s.a.mono() // its total can be told now
		s.poke()
	default:
		clean := m.count.Unsaved() == 0
		m.count.Pulse(r.Edge, r.Missed)
		if due, _ := m.count.SaveDue(r.Edge.At); due || clean {
			s.poke()
		}
	}
}

func (s *meters) poke() {
	for _, c := range []chan struct{}{s.wake, s.read} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// flush writes all totals at once: the power is about to go.
func (s *meters) flush() {
	s.mu.Lock()
	s.hurry = true
	s.mu.Unlock()
	s.poke()
}

// run writes and reads until ctx ends.
func (s *meters) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { s.loop(ctx, &s.writes, s.wake, s.writeDue) })
	wg.Go(func() { s.loop(ctx, &s.reads, s.read, s.readDue) })
	wg.Wait()
}

// loop calls due, which says when it wants to be called again at the latest.
func (s *meters) loop(ctx context.Context, turn *beat, wake <-chan struct{}, due func(context.Context) time.Duration) {
	for {
		turn.start()
		next := due(ctx)
		turn.stop()
		timer := time.NewTimer(max(0, next-s.a.mono()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// writeDue saves totals and writes billing records.
func (s *meters) writeDue(ctx context.Context) time.Duration {
	now := s.a.mono()
	next := now + lookAfter
	var dirty, record []*meter
	s.mu.Lock()
	save := s.hurry
	s.hurry = false
	for _, m := range s.all {
		if m.count == nil {
			continue
		}
		if m.retryAt > now {
			next = min(next, m.retryAt)
			continue
		}
		due, at := m.count.SaveDue(now)
		save = save || due
		if at > 0 {
			next = min(next, at)
		}
		if due || m.count.Unsaved() > 0 {
			dirty = append(dirty, m)
		}
		if m.recordAt <= now {
			record = append(record, m)
		} else {
			next = min(next, m.recordAt)
		}
	}
	s.mu.Unlock()
	failed := func(m *meter, what string, err error) {
		s.a.log.Error(what, "meter", m.name, "err", err)
		s.mu.Lock()
		m.retryAt = s.a.mono() + meterRetry
		s.mu.Unlock()
		next = min(next, now+meterRetry)
	}
	for _, m := range record {
		if err := s.record(ctx, m); err != nil && ctx.Err() == nil {
			failed(m, "a meter's record is not stored yet", err)
		}
		next = now
	}
	if save { // all of them in one commit
		if err := s.save(ctx, dirty); err != nil && ctx.Err() == nil {
			for _, m := range dirty {
				failed(m, "a meter's total is not stored yet", err)
			}
		}
		next = min(next, now)
	}
	return next
}

// save writes totals that have changed, in one transaction. One that did not change writes nothing.
func (s *meters) save(ctx context.Context, list []*meter) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	type entry struct {
		m     *meter
		total sensors.Total
	}
	var todo []entry
	s.mu.Lock()
	at := s.a.mono()
	for _, m := range list {
		if m.count != nil && m.count.Unsaved() > 0 {
			todo = append(todo, entry{m, m.count.Total()})
		}
	}
	s.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	err := s.a.update(ctx, func(tx *queue.Tx) error {
		for _, e := range todo {
			if err := tx.Put(queue.Totals, e.m.name, mustJSON(e.total)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range todo {
		e.m.count.Saved(e.total, at)
	}
	return nil
}

// record writes the billing record and the total that it states in one transaction.
func (s *meters) record(ctx context.Context, m *meter) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	at := s.a.clock.Now()
	s.mu.Lock()
	cfg, from := m.cfg, m.count.Total()
	to, pulses := m.count.Record(at.Wall)
	taken := s.a.mono()
	s.mu.Unlock()
	e := queue.Event{Type: meterType(cfg), QoS: byte(cfg.Event.QoS), At: at, Data: meterData(cfg, to, from.Since, pulses)}
	err := s.a.update(ctx, func(tx *queue.Tx) error {
		if err := tx.Put(queue.Totals, cfg.Name, mustJSON(to)); err != nil {
			return err
		}
		_, err := tx.Append(e)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		m.count.Commit(from, to, taken)
	}
	if err == nil || errors.Is(err, queue.ErrFull) { // the pulses are in the next record
		m.schedule(s.a)
	}
	return err
}

// readDue publishes totals and rates, and looks for faults.
func (s *meters) readDue(ctx context.Context) time.Duration {
	now := s.a.mono()
	next := now + lookAfter
	type out struct {
		reading sensors.Reading
		alarm   map[string]any
	}
	var list []out
	s.mu.Lock()
	for _, m := range s.all {
		if m.readAt > now {
			next = min(next, m.readAt)
			continue
		}
		for m.readAt <= now {
			m.readAt += max(m.cfg.Every, 100*time.Millisecond)
		}
		next = min(next, m.readAt)
		r := sensors.Reading{Sensor: m.name, At: time.Now(), State: sensors.StateOK}
		fault := m.check(now)
		if fault != nil {
			r.State = sensors.StateFailed
		}
		if m.count != nil && m.held { // a total that nobody adds to is not told as if all were well
			r.Values = m.values(now)
		} else if fault == nil {
			continue // not opened yet
		} else {
			r.Err = fault
		}
		list = append(list, out{r, s.alarm(m, fault, now)})
	}
	s.mu.Unlock()
	for _, o := range list {
		s.a.readings.report(o.reading)
		if o.alarm != nil {
			s.a.alarm(ctx, o.alarm)
		}
	}
	return next
}
