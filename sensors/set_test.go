package sensors_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
)

// fake is a driver whose reading is a function.
type fake struct {
	read func(ctx context.Context) ([]sensors.Value, error)
}

func (f fake) Read(ctx context.Context) ([]sensors.Value, error) { return f.read(ctx) }

type none struct{}

func driver(name string, opens *int, read func(ctx context.Context) ([]sensors.Value, error)) sensors.Driver {
	return sensors.Driver{Name: name, Options: func() any { return &none{} }, Quantities: []sensors.Quantity{{Name: "t_celsius", Min: -40, Max: 85}},
		Open: func(context.Context, any, sensors.Board) (sensors.Sensor, error) {
			if opens != nil {
				*opens++
			}
			return fake{read: read}, nil
		}}
}

func value(x float64) []sensors.Value {
	return []sensors.Value{{Name: "t_celsius", Number: x, Precision: 2}}
}

type collector struct {
	mu  sync.Mutex
	got map[string][]sensors.Reading
}

func (c *collector) report(r sensors.Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.got == nil {
		c.got = map[string][]sensors.Reading{}
	}
	c.got[r.Sensor] = append(c.got[r.Sensor], r)
}

func (c *collector) of(sensor string) []sensors.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]sensors.Reading(nil), c.got[sensor]...)
}

// start runs a set; the returned function ends it and says how long that took.
func start(t *testing.T, cfg []sensors.Config, drivers ...sensors.Driver) (*collector, *sensors.Set, func() time.Duration) {
	t.Helper()
	s, err := sensors.New(cfg, drivers, sensors.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return started(t, s)
}

func started(t *testing.T, s *sensors.Set) (*collector, *sensors.Set, func() time.Duration) {
	c := &collector{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, c.report) }()
	return c, s, func() time.Duration {
		at := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return time.Since(at)
	}
}

// One sensor hangs for ever, one fails: the others are on time to 50 ms, and the end does not wait.
func TestOthersAreOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var hung atomic.Int32
		ds := []sensors.Driver{
			driver("good", nil, func(context.Context) ([]sensors.Value, error) { return value(20), nil }),
			driver("bad", nil, func(context.Context) ([]sensors.Value, error) { return nil, errors.New("NACK") }),
			driver("hang", nil, func(context.Context) ([]sensors.Value, error) { hung.Add(1); <-hang; return value(1), nil }),
		}
		var cfg []sensors.Config
		for _, name := range []string{"good", "bad", "hang"} {
			cfg = append(cfg, sensors.Config{Name: name, Driver: name, Every: time.Second, Timeout: 500 * time.Millisecond, Options: &none{}})
		}
		c, set, stop := start(t, cfg, ds...)
		<-time.After(10 * time.Minute)
		for _, name := range []string{"good"} {
			r := c.of(name)
			if len(r) < 600 || len(r) > 601 {
				t.Fatalf("%s: %d readings in ten minutes, want 600", name, len(r))
			}
			for i := 2; i < len(r); i++ {
				if d := r[i].At.Sub(r[1].At) - time.Duration(i-1)*time.Second; d < -50*time.Millisecond || d > 50*time.Millisecond {
					t.Fatalf("%s: reading %d is %v off", name, i, d)
				}
			}
		}
		if n := hung.Load(); n != 1 {
			t.Errorf("a hanging reading was started %d times, want once", n)
		}
		states := map[string]sensors.SensorState{}
		for _, s := range set.States() {
			states[s.Name] = s
		}
		for name, want := range map[string]string{"good": "ok", "bad": "failed", "hang": "failed"} {
			if states[name].State != want {
				t.Errorf("%s is %s (%s), want %s", name, states[name].State, states[name].Err, want)
			}
		}
		if took := stop(); took > 2*time.Second {
			t.Errorf("the end took %v", took)
		}
		close(hang)
	})
}

// Three days without drift, in virtual time.
func TestNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := driver("slow", nil, func(context.Context) ([]sensors.Value, error) {
			<-time.After(300 * time.Millisecond)
			return value(1), nil
		})
		c, _, stop := start(t, []sensors.Config{{Name: "a", Driver: "slow", Every: time.Minute, Timeout: time.Second, Options: &none{}}}, d)
		<-time.After(72 * time.Hour)
		stop()
		r := c.of("a")
		last, first := r[len(r)-1].At, r[1].At
		if n := len(r) - 2; last.Sub(first) != time.Duration(n)*time.Minute || n < 72*60-2 {
			t.Fatalf("%d readings over %v", n, last.Sub(first))
		}
	})
}

func TestFailsReopensRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens, n := 0, 0
		d := driver("d", &opens, func(context.Context) ([]sensors.Value, error) {
			n++
			if n > 5 && n <= 20 {
				return nil, errors.New("NACK")
			}
			return value(float64(n % 50)), nil
		})
		c, set, stop := start(t, []sensors.Config{{Name: "a", Driver: "d", Every: time.Second, Timeout: time.Second, Options: &none{}}}, d)
		<-time.After(2 * time.Hour)
		if set.States()[0].State != sensors.StateOK || opens < 4 {
			t.Errorf("%+v, opened %d times", set.States()[0], opens)
		}
		changes := 0
		all := c.of("a")
		for i, r := range all {
			if i > 0 && r.State != all[i-1].State {
				changes++
			}
		}
		if changes != 2 {
			t.Errorf("%d changes of state, want ok → failed → ok", changes)
		}
		stop()
	})
}

func TestImplausible(t *testing.T) {
	for name, x := range map[string]float64{"NaN": math.NaN(), "too hot": 300, "infinite": math.Inf(1)} {
		d := driver("d", nil, func(context.Context) ([]sensors.Value, error) { return value(x), nil })
		if v, err := sensors.ReadOnce(t.Context(), sensors.Config{Name: "a", Driver: "d", Timeout: time.Second, Options: &none{}}, []sensors.Driver{d}, nil); err == nil {
			t.Errorf("%s: %v", name, v)
		}
	}
	panics := driver("d", nil, func(context.Context) ([]sensors.Value, error) { panic("oops") })
	if _, err := sensors.ReadOnce(t.Context(), sensors.Config{Name: "a", Driver: "d", Timeout: time.Second, Options: &none{}}, []sensors.Driver{panics}, nil); err == nil {
		t.Error("a panic of a driver is no error")
	}
}

// TestCheckHasPaths: the configuration's check needs the place and the remedy of each fault, and New has the same faults for those who have no file.
func TestCheckHasPaths(t *testing.T) {
	d := driver("d", nil, nil)
	d.MinEvery = 5 * time.Second
	cfg := sensors.Config{Name: "a", Driver: "d", Every: time.Second, Calibrate: map[string]sensors.Calibration{"t_celcius": {Scale: 1}, "t_celsius": {}}}
	var got []string
	report := func(path, message, hint string) { got = append(got, path+": "+message+" ("+hint+")") }
	sensors.Check(cfg, []sensors.Driver{d}, report)
	want := []string{
		"every: 1s is too often (d needs 5s or more)",
		`calibrate.t_celcius: d has no value "t_celcius" (it has t_celsius)`,
		"calibrate.t_celsius.scale: scale 0 makes every value the same (leave it out, or write the factor, such as 1.02)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_, err := sensors.New([]sensors.Config{cfg}, []sensors.Driver{d}, sensors.Options{})
	if err == nil || strings.Count(err.Error(), "\n") != len(want)-1 {
		t.Errorf("New says %v", err)
	}
	got = nil
	sensors.Check(sensors.Config{Driver: "x", Every: 1}, []sensors.Driver{d}, report)
	if got != nil {
		t.Errorf("an unknown driver is said by the decoder: %v", got)
	}
}

// TestStalledSupervisor: a sensor that hangs is the sensor's fault, a supervisor that does not come back is ours.
func TestStalledSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := driver("hang", nil, func(ctx context.Context) ([]sensors.Value, error) { <-t.Context().Done(); return nil, ctx.Err() })
		well := driver("well", nil, func(context.Context) ([]sensors.Value, error) { return value(20), nil })
		set, err := sensors.New([]sensors.Config{{Name: "a", Driver: "hang", Every: time.Second, Timeout: time.Second}, {Name: "b", Driver: "well", Every: time.Second, Timeout: time.Second}},
			[]sensors.Driver{hang, well}, sensors.Options{})
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		var shut atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- set.Run(ctx, func(r sensors.Reading) {
				if r.Sensor == "b" && shut.Load() {
					<-gate
				}
			})
		}()
		<-time.After(time.Hour)
		if err := set.Stalled(time.Minute); err != nil {
			t.Errorf("with a hanging sensor: %v", err)
		}
		shut.Store(true)
		<-time.After(30 * time.Second)
		if err := set.Stalled(time.Minute); err != nil {
			t.Errorf("too early: %v", err)
		}
		<-time.After(time.Minute)
		if err := set.Stalled(time.Minute); err == nil || !strings.Contains(err.Error(), "sensor b") {
			t.Errorf("a supervisor that hangs: %v", err)
		}
		shut.Store(false)
		close(gate)
		<-time.After(time.Minute)
		if err := set.Stalled(time.Minute); err != nil {
			t.Errorf("it goes on: %v", err)
		}
		cancel()
		<-done
	})
}

// TestFlapping: a sensor that fails now and then says so a few times, then ever more seldom, and anew when it has behaved for a while.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		d := driver("d", nil, func(context.Context) ([]sensors.Value, error) {
			if n++; n%3 == 0 && n < 3000 || n == 9000 {
				return nil, errors.New("NACK")
			}
			return value(20), nil
		})
		var out bytes.Buffer
		set, err := sensors.New([]sensors.Config{{Name: "a", Driver: "d", Every: time.Second, Timeout: time.Second, Options: &none{}}}, []sensors.Driver{d},
			sensors.Options{Log: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		_ = set.Run(ctx, func(sensors.Reading) {})
		lines := strings.Count(out.String(), "\n")
		if lines < 10 || lines > 30 || !strings.Contains(out.String(), "fails again and again") || !strings.Contains(out.String(), "times=512") {
			t.Errorf("%d lines of 1,000 failures:\n%s", lines, out.String())
		}
		if s := set.States()[0]; s.Err != "" || s.LastErr != "NACK" || s.LastErrAt.IsZero() || s.Errors != 1000 {
			t.Errorf("%+v", s)
		}
		if !strings.HasSuffix(strings.TrimSpace(out.String()), "sensor=a") || strings.Count(out.String(), "will be tried again") != 5 {
			t.Errorf("it is not told anew after a while:\n%s", out.String())
		}
	})
}
