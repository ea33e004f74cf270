package sensors_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
)

// numbers runs one sensor that reads seq, one a minute, and returns what it reports.
func numbers(t *testing.T, cfg sensors.Config, seq ...float64) (got []float64) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		d := driver("d", nil, func(context.Context) ([]sensors.Value, error) {
			return value(seq[min(int(n.Add(1)), len(seq))-1]), nil
		})
		cfg.Name, cfg.Driver, cfg.Every, cfg.Timeout, cfg.Options = "a", "d", time.Minute, time.Second, &none{}
		c, _, stop := start(t, []sensors.Config{cfg}, d)
		for int(n.Load()) < len(seq) {
			<-time.After(time.Second)
		}
		stop()
		for _, r := range c.of("a") {
			got = append(got, r.Values[0].Number)
		}
	})
	return got
}

func same(t *testing.T, what string, got []float64, want ...float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
		return
	}
	for k := range want {
		if d := got[k] - want[k]; d < -1e-9 || d > 1e-9 {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
	}
}

func TestFilters(t *testing.T) {
	c := map[string]sensors.Calibration{"t_celsius": {Scale: 2, Offset: -1}}
	same(t, "none", numbers(t, sensors.Config{}, 1, 2, 3), 1, 2, 3)
	same(t, "calibrated", numbers(t, sensors.Config{Calibrate: c}, 1, 2, -3), 1, 3, -7)
	same(t, "mean", numbers(t, sensors.Config{Filter: "mean", Samples: 3}, 1, 2, 6, 10, 11), 1, 1.5, 3, 6, 9)
	same(t, "median", numbers(t, sensors.Config{Filter: "median", Samples: 3}, 10, 50, 11, 12), 10, 30, 11, 12)
	same(t, "median, calibrated before", numbers(t, sensors.Config{Filter: "median", Samples: 3, Calibrate: c}, 1, 80, 2, 3), 1, 80, 3, 5)
}

func TestDeadband(t *testing.T) {
	same(t, "deadband", numbers(t, sensors.Config{Deadband: 0.5, Heartbeat: time.Hour}, 20, 20.4, 20.5, 20.2, 20.0, 19.6), 20, 20.5, 20.0)
	// From the last one that was sent, not from the last one: a slow drift is seen.
	same(t, "drift", numbers(t, sensors.Config{Deadband: 1, Heartbeat: time.Hour}, 20, 20.4, 20.8, 21.2, 21.6), 20, 21.2)
	// The first reading is not on the grid; after it one in three is sent.
	if got := numbers(t, sensors.Config{Deadband: 1, Heartbeat: 150 * time.Second}, make([]float64, 31)...); len(got) != 10 && len(got) != 11 {
		t.Errorf("heartbeat: %d readings were sent, want one in three of 31", len(got))
	}
}

func TestCalibrationFits(t *testing.T) {
	d := driver("d", nil, nil)
	d.MinEvery = 5 * time.Second
	cfg := sensors.Config{Name: "a", Driver: "d", Every: time.Second, Calibrate: map[string]sensors.Calibration{"t_celcius": {Scale: 1}, "t_celsius": {}}}
	_, err := sensors.New([]sensors.Config{cfg}, []sensors.Driver{d}, sensors.Options{})
	for _, want := range []string{`no value "t_celcius"; it has t_celsius`, "scale 0", "d needs 5s or more"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

// tended is a sensor that wants a call each second.
type tended struct {
	fake
	calls *int
}

func (s tended) Tend(context.Context) error { *s.calls++; return nil }
func (s tended) TendEvery() time.Duration   { return time.Second }

func TestTended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		d := driver("d", nil, nil)
		d.Open = func(context.Context, any, sensors.Board) (sensors.Sensor, error) {
			return tended{fake{read: func(context.Context) ([]sensors.Value, error) { return value(1), nil }}, &calls}, nil
		}
		_, _, stop := start(t, []sensors.Config{{Name: "a", Driver: "d", Every: time.Minute, Timeout: time.Second}}, d)
		<-time.After(10*time.Minute + time.Millisecond)
		stop()
		if calls < 585 || calls > 600 {
			t.Errorf("%d calls in ten minutes", calls)
		}
	})
}

// A chip that lost its settings is opened anew at once, and nothing fails.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens, n := 0, 0
		d := driver("d", &opens, func(context.Context) ([]sensors.Value, error) {
			if n++; n%10 == 5 {
				return nil, sensors.ErrReset
			}
			return value(1), nil
		})
		c, _, stop := start(t, []sensors.Config{{Name: "a", Driver: "d", Every: time.Second, Timeout: time.Second}}, d)
		<-time.After(30 * time.Second)
		stop()
		for _, r := range c.of("a") {
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
		if opens < 4 {
			t.Errorf("opened %d times", opens)
		}
	})
}
