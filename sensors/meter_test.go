package sensors_test

import (
	"testing"
	"time"

	"fieldagent/sensors"
)

func meter(restored sensors.Total) *sensors.Meter {
	return sensors.NewMeter(sensors.MeterConfig{Name: "energy", Debounce: 5 * time.Millisecond, PulsesPerUnit: 1000,
		Save: sensors.MeterSave{Every: time.Second, Pulses: 100}, StuckAfter: time.Hour}, restored)
}

func TestMeterCountsMissedEdges(t *testing.T) {
	m := meter(sensors.Total{Pulses: 1000, Reported: 990})
	m.Pulse(sensors.Edge{At: time.Second}, 0)
	m.Pulse(sensors.Edge{At: 2 * time.Second}, 7)
	if got := m.Total(); got.Pulses != 1009 || got.Missed != 7 {
		t.Fatalf("total %+v, want 1009 pulses, 7 of them missed", got)
	}
	after, pulses := m.Record(time.Unix(5, 0))
	if pulses != 19 || after.Reported != 1009 {
		t.Fatalf("record: %d pulses, %+v", pulses, after)
	}
}

func TestMeterSaveBound(t *testing.T) {
	m := meter(sensors.Total{})
	if due, at := m.SaveDue(time.Hour); due || at != 0 {
		t.Fatal("nothing counted, but a save is due")
	}
	m.Pulse(sensors.Edge{At: 10 * time.Second}, 0)
	if due, at := m.SaveDue(10*time.Second + time.Second - 1); due || at != 11*time.Second {
		t.Fatalf("due %v at %v, want not before 11s", due, at)
	}
	if due, _ := m.SaveDue(11 * time.Second); !due {
		t.Fatal("not due after save.every")
	}
	m.Saved(m.Total(), 11*time.Second)
	for i := range 100 {
		m.Pulse(sensors.Edge{At: 12*time.Second + time.Duration(i)*20*time.Millisecond}, 0)
	}
	if due, _ := m.SaveDue(12 * time.Second); !due {
		t.Fatal("not due after save.pulses")
	}
}

// Pulses that come while a record is being written are in the next one, not lost.
func TestMeterCommitKeepsLaterPulses(t *testing.T) {
	m := meter(sensors.Total{})
	for i := range 10 {
		m.Pulse(sensors.Edge{At: time.Duration(i+1) * time.Second}, 0)
	}
	from := m.Total()
	after, _ := m.Record(time.Unix(100, 0))
	m.Pulse(sensors.Edge{At: 20 * time.Second}, 2)
	m.Commit(from, after, 20*time.Second)
	if got := m.Total(); got.Pulses != 13 || got.Reported != 10 || got.Missed != 2 {
		t.Fatalf("after commit: %+v", got)
	}
	if due, at := m.SaveDue(20 * time.Second); due || at == 0 {
		t.Fatal("later pulses are unsaved and must become due")
	}
}

func TestMeterExchange(t *testing.T) {
	m := meter(sensors.Total{Pulses: 5000, Reported: 4000})
	m.Pulse(sensors.Edge{At: time.Second}, 0)
	from := m.Total()
	m.Commit(from, m.Exchange(77, time.Unix(9, 0)), time.Second)
	if got := m.Total(); got.Pulses != 77 || got.Reported != 77 || got.Exchanges != 1 {
		t.Fatalf("after exchange: %+v", got)
	}
}

func TestMeterRateAndFaults(t *testing.T) {
	m := meter(sensors.Total{})
	m.Pulse(sensors.Edge{At: 10 * time.Second}, 0)
	m.Pulse(sensors.Edge{At: 12 * time.Second}, 0)
	if r := m.Rate(12 * time.Second); r != 0.5 {
		t.Errorf("rate %v, want 0.5", r)
	}
	if r := m.Rate(22 * time.Second); r != 0.1 {
		t.Errorf("rate %v after 10 s of silence, want 0.1", r)
	}
	if f := m.Fault(13*time.Second, 0); f != "" {
		t.Errorf("fault %q of a healthy meter", f)
	}
	if f := m.Fault(2*time.Hour, 0); f == "" {
		t.Error("stuck meter not noticed")
	}
	m.Pulse(sensors.Edge{At: 12*time.Second + 6*time.Millisecond}, 0)
	if f := m.Fault(13*time.Second, 0); f == "" {
		t.Error("bouncing meter not noticed")
	}
}

func TestFormatUnits(t *testing.T) {
	for _, c := range []struct {
		pulses uint64
		per    int64
		want   string
	}{{15230, 1000, "15.230"}, {5, 1000, "0.005"}, {7, 1, "7"}, {1001, 800, "1.251"}, {1 << 63, 1000, "9223372036854775.808"}} {
		if got := sensors.FormatUnits(c.pulses, c.per); got != c.want {
			t.Errorf("%d pulses at %d per unit: %s, want %s", c.pulses, c.per, got, c.want)
		}
	}
}

func TestDebouncer(t *testing.T) {
	const ms = time.Millisecond
	d := sensors.NewDebouncer(10*ms, false)
	feed := func(active bool, at time.Duration) (sensors.Edge, bool) {
		return d.Feed(sensors.Edge{Active: active, At: at})
	}
	// a bounce: on 1 ms, off, on: counts once, from the last on
	for i, at := range []time.Duration{0, 1 * ms, 2 * ms} {
		if _, ok := feed(i%2 == 0, at); ok {
			t.Fatal("bounce counted")
		}
	}
	if _, ok := d.Settle(11 * ms); ok {
		t.Fatal("settled before 10 ms")
	}
	if e, ok := d.Settle(12 * ms); !ok || !e.Active || e.At != 2*ms {
		t.Fatalf("got %+v %v, want the edge of 2 ms", e, ok)
	}
	// a spike shorter than the period is nothing
	feed(false, 50*ms)
	feed(true, 51*ms)
	if _, ok := d.Settle(time.Second); ok {
		t.Fatal("spike counted")
	}
	// an edge that comes long after the one before lets that one through
	feed(false, 2*time.Second)
	if e, ok := feed(true, 3*time.Second); !ok || e.Active || e.At != 2*time.Second {
		t.Fatalf("got %+v %v", e, ok)
	}
}
