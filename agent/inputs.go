package agent

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"fieldagent/queue"
	"fieldagent/sensors"
)

const (
	inputWaiting = 4096        // edges of one input that may wait for the disk
	gapEvery     = time.Second // between two gap events of one input
	inputRetry   = time.Second // after the disk refused
	inputKey     = "input/"    // state that the last event told, in the store
)

// inputs are the lines that are watched.
type inputs struct {
	a *Agent

	mu  sync.Mutex
	all map[string]*input
}

// drop lets go of what next does not have, or has otherwise. What the agent watched at its end stays at the broker.
func (s *inputs) drop(next []sensors.InputConfig, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wg sync.WaitGroup
	for name, in := range s.all {
		i := slices.IndexFunc(next, func(c sensors.InputConfig) bool { return c.Name == name })
		if i >= 0 && reflect.DeepEqual(next[i], in.cfg) {
			continue
		}
		delete(s.all, name)
		wg.Go(func() {
			if !in.part.stop(linePatience) {
				s.a.log.Warn("an input's events are not on disk yet; they are left behind", "input", name)
			}
		})
		if i < 0 && !ending {
			s.a.retained.remove("input/" + name)
		}
	}
	wg.Wait()
}

// hold watches what is not watched yet.
func (s *inputs) hold(ctx context.Context, next []sensors.InputConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range next {
		if s.all[c.Name] == nil {
			in := &input{a: s.a, cfg: c, wake: make(chan struct{}, 1)}
			in.part = startPart(ctx, in.run)
			s.all[c.Name] = in
		}
	}
}

func (s *inputs) find(name string) *input {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[name]
}

// input is one line and what happened on it.
type input struct {
	a    *Agent
	cfg  sensors.InputConfig
	part *part
	wake chan struct{}

	// of the worker
	told    string    // state that the last event told; "" none
	shown   string    // as published
	gapAt   time.Time // of the last gap event
	retryAt time.Time

	mu      sync.Mutex
	waiting []sensors.LineReport
	missed  missedEdges
	held    bool
	polled  bool
	level   bool
	since   time.Time // of level
	err     error
}

// missedEdges are edges that nobody read, or that found no room.
type missedEdges struct {
	n           uint64
	first, last time.Duration
	reason      string
}

func (m *missedEdges) add(n uint64, at time.Duration, reason string) {
	if n == 0 {
		return
	}
	if m.n == 0 {
		m.first, m.reason = at, reason
	}
	m.n += n
	m.last = at
}

// run watches the line until ctx ends, and until what happened on it is on disk.
func (in *input) run(ctx context.Context) {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = sensors.Watch(ctx, "input "+in.cfg.Name, in.cfg.Spec(), sensors.BothEdges, in.a.opt.Lines, in.a.log, in.take)
	}()
	in.told = in.restore()
	for ended := false; !ended; {
		var later <-chan time.Time
		if wait, ok := in.due(); ok {
			later = time.After(wait)
		}
		select {
		case <-in.wake:
		case <-later:
		case <-watched:
			ended = true
		}
		in.store(ended)
		in.publish()
	}
}

// take is called by the line's reader, in order, and must not wait.
func (in *input) take(r sensors.LineReport) {
	in.mu.Lock()
	switch {
	case r.Err != nil:
		in.held, in.err = false, r.Err
	case r.Opened:
		in.held, in.err, in.polled = true, nil, r.Polled
		in.change(r.Level)
	default:
		in.missed.add(uint64(r.Missed), r.Edge.At, "edges came faster than they were read")
		in.change(r.Edge.Active)
	}
	if r.Err == nil && in.cfg.Event != nil {
		if len(in.waiting) < inputWaiting {
			in.waiting = append(in.waiting, r)
		} else if !r.Opened {
			in.missed.add(1, r.Edge.At, "the disk did not take events as fast as edges came")
		}
	}
	in.mu.Unlock()
	if in.cfg.PowerFail && r.Err == nil && (r.Opened && r.Level || !r.Opened && r.Edge.Active) {
		in.a.meters.flush()
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

func (in *input) change(level bool) {
	if in.since.IsZero() || level != in.level {
		in.level, in.since = level, time.Now()
	}
}

// due says when there is something to do without an edge.
func (in *input) due() (time.Duration, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case time.Until(in.retryAt) > 0:
		return time.Until(in.retryAt), len(in.waiting) > 0 || in.missed.n > 0
	case in.missed.n > 0:
		return max(0, gapEvery-time.Since(in.gapAt)), true
	}
	return 0, false
}

// store makes events of what happened. What the disk refuses stays for the next try.
func (in *input) store(ended bool) {
	if time.Until(in.retryAt) > 0 && !ended {
		return
	}
	in.mu.Lock()
	reports := slices.Clone(in.waiting)
	missed := in.missed
	in.mu.Unlock()
	gap := missed.n > 0 && (ended || time.Since(in.gapAt) >= gapEvery)
	if len(reports) == 0 && !gap {
		return
	}
	told := in.told
	var events []queue.Event
	for _, r := range reports {
		state := sensors.OnOff(r.Edge.Active)
		if r.Opened {
			if state = sensors.OnOff(r.Level); told == "" || told == state {
				told = state
				continue
			}
		}
		told = state
		events = append(events, in.event(r, state))
	}
	if gap {
		events = append(events, in.gap(missed))
	}
	ctx, cancel := context.WithCancel(context.Background())
	if ended {
		ctx, cancel = context.WithTimeout(context.Background(), time.Second)
	}
	defer cancel()
	var err error
	if len(events) > 0 || told != in.told {
		err = in.a.update(ctx, func(tx *queue.Tx) error {
			for _, e := range events {
				if _, err := tx.Append(e); err != nil && !errors.Is(err, queue.ErrFull) { // the store counts what it has no room for
					return err
				}
			}
			if told == in.told {
				return nil
			}
			return tx.Put(queue.Misc, inputKey+in.cfg.Name, []byte(told))
		})
	}
	if err != nil {
		in.a.log.Error("an input's events are not stored yet", "input", in.cfg.Name, "events", len(events), "err", err)
		in.retryAt = time.Now().Add(inputRetry)
		return
	}
	in.told = told
	in.mu.Lock()
	in.waiting = in.waiting[len(reports):]
	if len(in.waiting) == 0 {
		in.waiting = nil
	}
	if gap {
		in.missed.n -= missed.n
		in.missed.first = missed.last
		in.gapAt = time.Now()
	}
	in.mu.Unlock()
}

// event is made of a change. One that was found when the line was opened has the time of its finding, and says so.
func (in *input) event(r sensors.LineReport, state string) queue.Event {
	data := struct {
		Input string `json:"input"`
		State string `json:"state"`
		Late  bool   `json:"late,omitempty"` // changed while nobody watched
	}{in.cfg.Name, state, r.Opened}
	e := queue.Event{Type: in.cfg.Event.Type, QoS: byte(in.cfg.Event.QoS), Data: mustJSON(data)}
	if e.Type == "" {
		e.Type = "input"
	}
	if r.Opened {
		e.At = in.a.clock.Now()
	} else {
		e.At = in.a.stampAt(r.Edge.At)
	}
	return e
}

// gap says how many edges are missing among the events, when and why.
func (in *input) gap(m missedEdges) queue.Event {
	return queue.Event{Type: "gap", QoS: 1, At: in.a.clock.Now(), Data: mustJSON(struct {
		Input  string `json:"input"`
		Missed uint64 `json:"missed"`
		First  string `json:"first"`
		Last   string `json:"last"`
		Reason string `json:"reason"`
	}{in.cfg.Name, m.n, formatTime(in.a.stampAt(m.first).Wall), formatTime(in.a.stampAt(m.last).Wall), m.reason})}
}

// publish shows the level that the line has now.
func (in *input) publish() {
	in.mu.Lock()
	state, known := sensors.OnOff(in.level), !in.since.IsZero()
	in.mu.Unlock()
	if known && state != in.shown {
		in.shown = state
		in.a.retained.set("input/"+in.cfg.Name, []byte(state))
	}
}

// restore returns the state that the last event told, "" when there was none.
func (in *input) restore() string {
	var b []byte
	err := in.a.queue.View(func(tx *queue.Tx) (err error) {
		b, err = tx.Get(queue.Misc, inputKey+in.cfg.Name)
		return err
	})
	if err != nil {
		in.a.log.Error("the last state of an input cannot be read: a change while the agent was away makes no event", "input", in.cfg.Name, "err", err)
	}
	return string(b)
}

// status returns all inputs in the order of cfg.
func (s *inputs) status(cfg []sensors.InputConfig) []LineStatus {
	out := []LineStatus{}
	for _, c := range cfg {
		l := LineStatus{Name: c.Name, Line: c.Line}
		if in := s.find(c.Name); in != nil {
			in.mu.Lock()
			l.set(in.held, in.level, in.err)
			l.Polled = in.polled
			if in.held {
				t := in.since.UTC()
				l.Since = &t
			}
			in.mu.Unlock()
		}
		out = append(out, l)
	}
	return out
}
