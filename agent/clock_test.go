package agent

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"fieldagent/queue"
)

// wrist is a board's clock that a test sets. The uptime goes on whatever happens to the wall clock.
type wrist struct {
	mu     sync.Mutex
	boot   uint32
	began  time.Time     // of the boot, on the monotonic clock
	offset time.Duration // of the wall clock from the real time
	synced bool
}

func (w *wrist) read() queue.Stamp {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	s := queue.Stamp{Wall: now.Add(w.offset).UTC(), Boot: w.boot, Uptime: now.Sub(w.began) + time.Second}
	if w.synced {
		s.Clock = queue.ClockSynced
	}
	return s
}

func (w *wrist) set(offset time.Duration, synced bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset, w.synced = offset, synced
}

func newWrist(boot uint32) *wrist {
	now := time.Now()
	return &wrist{boot: boot, began: now, offset: -now.Sub(time.Unix(0, 0))} // 1970
}

type stamped struct {
	Sequence, Clock string
	Time            time.Time
}

// stamps returns the events of type test, by sequence; the broker must be locked.
func (b *broker) stamps() map[string]stamped {
	out := map[string]stamped{}
	for _, m := range b.topic("event/test") {
		var s stamped
		if json.Unmarshal([]byte(m.payload), &s) == nil {
			out[s.Sequence] = s
		}
	}
	return out
}

// A board boots in 1970 without a network, makes events and readings, and its clock is set later; it boots again without a network; its clock steps back.
func TestClockFrom1970(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	sensor := "sensors: [{name: cabinet, driver: fake, every: 100ms}]\n"
	with := func(w *wrist) func(*Options) { return func(o *Options) { o.Clock = NewClock(w.read) } }
	const nowhere = "127.0.0.1:1"

	// The first boot: an event at 1970, the clock is set, an event after that, then a step of a year back.
	first := newWrist(1)
	r := start(t, dir, localFile(nowhere, sensor), with(first))
	before := r.emit(1)
	if s := r.Status(); s.Clock != "unsynced" || s.Time.Year() != 1970 {
		t.Errorf("at first: %s %s", s.Clock, s.Time)
	}
	realBefore := time.Now()
	first.set(0, true)
	after := r.emit(1)
	first.set(-365*24*time.Hour, true)
	back := r.emit(1)
	reads := r.set.Load().States()[0].Reads
	for deadline := time.After(20 * time.Second); r.set.Load().States()[0].Reads < reads+3; {
		select {
		case <-deadline:
			t.Fatal("a jump of the clock stopped the readings")
		case <-time.After(20 * time.Millisecond):
		}
	}
	first.set(0, true)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	// The second boot, at 1970 again and without a network: times are lower bounds, never before the last known one.
	second := newWrist(2)
	r = start(t, dir, localFile(nowhere, sensor), with(second))
	lost := r.emit(1)
	if s := r.Status(); s.Clock != "unsynced" || s.Time.Before(realBefore.Add(-time.Second)) {
		t.Errorf("after a reboot: %s %s, before the last known time %s", s.Clock, s.Time, realBefore)
	}
	if !r.clock.Behind() {
		t.Error("nobody notices that the clock is not set")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	// The third boot: the network is back, and the clock is set only after an event.
	third := newWrist(3)
	start(t, dir, localFile(b.addr, sensor), with(third))
	b.wait("the backlog", func() bool { return len(b.stamps()) >= 4 })
	b.mu.Lock()
	got := b.stamps()
	b.mu.Unlock()
	at := func(id queue.ID) stamped { return got[string(appendSequence(nil, id.Sequence))] }
	for _, c := range []struct {
		name  string
		id    queue.ID
		clock string
		from  time.Time
	}{
		{"made in 1970, sent in another boot", before, "unsynced", time.Time{}},
		{"made after the clock was set", after, "synced", realBefore.Add(-time.Second)},
		{"made after a step back", back, "synced", time.Time{}},
		{"made in a boot that never knew the time", lost, "unsynced", realBefore.Add(-time.Second)},
	} {
		s := at(c.id)
		if s.Clock != c.clock || s.Time.Before(c.from) {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
}

// An event that waits for its broker is corrected when the clock is set in the same boot.
func TestEventIsCorrected(t *testing.T) {
	w := newWrist(7)
	clock := NewClock(w.read)
	early := clock.Now()
	if early.Wall.Year() != 1970 || early.Clock != queue.ClockUnsynced {
		t.Fatalf("%+v", early)
	}
	if c := clock.Correct(early); c != early {
		t.Errorf("corrected before the time is known: %+v", c)
	}
	real := time.Now()
	w.set(0, true)
	c := clock.Correct(early)
	if d := c.Wall.Sub(real); c.Clock != queue.ClockCorrected || d > time.Second || d < -5*time.Second {
		t.Errorf("%+v, %v off", c, d)
	}
	other := early
	other.Boot = 8
	if c := clock.Correct(other); c.Clock != queue.ClockUnsynced {
		t.Errorf("a stamp of another boot is corrected: %+v", c)
	}
}

// A producer may give its event a time. One by the board's own clock is corrected with it; one from elsewhere, such as a satellite receiver, stays.
func TestGivenTime(t *testing.T) {
	w := newWrist(7)
	clock := NewClock(w.read)
	real := time.Now()
	raw := w.read()
	own := clock.At(raw.Wall.Add(-500 * time.Millisecond))
	far := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	other := clock.At(far)
	if own.Clock != queue.ClockUnsynced || other.Clock != queue.ClockUnsynced || !other.Wall.Equal(far) {
		t.Fatalf("%+v %+v", own, other)
	}
	w.set(0, true)
	if c := clock.Correct(own); c.Clock != queue.ClockCorrected || c.Wall.Sub(real.Add(-500*time.Millisecond)).Abs() > 200*time.Millisecond {
		t.Errorf("by the board's clock, half a second ago: %+v", c)
	}
	if c := clock.Correct(other); c != other {
		t.Errorf("from elsewhere: %+v", c)
	}
	if s := clock.At(far); s.Clock != queue.ClockSynced || !s.Wall.Equal(far) {
		t.Errorf("with a clock that is set: %+v", s)
	}
}
