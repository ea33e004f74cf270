package sensors_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
	"fieldagent/sensors/sensortest"
)

func TestOutputsPulseInterlockReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		o := sensors.NewOutputs(lines, slog.New(slog.DiscardHandler), func(sensors.OutputState) {})
		up := sensors.OutputConfig{Name: "up", Line: "GPIO1", Initial: "OFF", OnExit: "initial", Excludes: []string{"down"}}
		down := sensors.OutputConfig{Name: "down", Line: "GPIO2", Initial: "OFF", OnExit: "keep"}
		o.Apply([]sensors.OutputConfig{up, down})
		do := func(name, state string, d time.Duration) error {
			t.Helper()
			_, err := o.Do(name, sensors.Command{State: state, For: d})
			return err
		}
		if err := do("up", "ON", 0); err != nil {
			t.Fatal(err)
		}
		if err := do("down", "ON", 0); !errors.Is(err, sensors.ErrInterlock) {
			t.Fatalf("interlock does not work both ways: %v", err)
		}
		if err := do("up", "OFF", 0); err != nil {
			t.Fatal(err)
		}
		if err := do("down", "ON", 500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		// a longer command replaces the running pulse
		if err := do("down", "ON", 2*time.Second); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		if on, _ := lines.Level("GPIO2"); !on {
			t.Fatal("the first pulse's timer ended the second")
		}
		<-time.After(time.Second + time.Millisecond)
		if on, _ := lines.Level("GPIO2"); on {
			t.Fatal("pulse did not end")
		}
		before := slices.Clone(lines.Trace)
		o.Apply([]sensors.OutputConfig{down, up}) // nothing changed but the order
		if !slices.Equal(before, lines.Trace) {
			t.Fatalf("relay clicked on a reload: %v", lines.Trace[len(before):])
		}
		if err := do("nope", "ON", 0); !errors.Is(err, sensors.ErrNoOutput) {
			t.Fatal(err)
		}
		if err := do("up", "MAYBE", 0); err == nil {
			t.Fatal("nonsense accepted")
		}
		if err := do("down", "ON", 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := o.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if on, isHeld := lines.Level("GPIO2"); !on || isHeld {
			t.Fatalf("on_exit keep: on %v, held %v", on, isHeld)
		}
	})
}

func TestOutputAppearsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		lines.Break("GPIO1", errors.New("unplugged"))
		o := sensors.NewOutputs(lines, slog.New(slog.DiscardHandler), func(sensors.OutputState) {})
		o.Apply([]sensors.OutputConfig{{Name: "r", Line: "GPIO1", Initial: "ON", OnExit: "initial"}})
		if _, err := o.Do("r", sensors.Command{State: "ON"}); !errors.Is(err, sensors.ErrOutputDown) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.Run(ctx) }()
		lines.Break("GPIO1", nil)
		<-time.After(6 * time.Second)
		if on, isHeld := lines.Level("GPIO1"); !on || !isHeld {
			t.Fatalf("not picked up: on %v, held %v", on, isHeld)
		}
		cancel()
		<-done
	})
}

func TestWatchReopensAndCountsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := &sensortest.Lines{}
		ctx, cancel := context.WithCancel(t.Context())
		var got []sensors.LineReport
		done := make(chan error)
		go func() {
			done <- sensors.Watch(ctx, "door", sensors.LineSpec{Line: "GPIO17"}, sensors.BothEdges, lines, slog.New(slog.DiscardHandler), func(r sensors.LineReport) { got = append(got, r) })
		}()
		synctest.Wait()
		lines.Drive("GPIO17", true, 0)
		lines.Drive("GPIO17", false, 4)
		lines.Break("GPIO17", sensors.ErrLineGone)
		synctest.Wait()
		lines.Break("GPIO17", nil)
		<-time.After(5 * time.Second)
		lines.Drive("GPIO17", true, 0)
		cancel()
		<-done
		if len(got) != 6 {
			t.Fatalf("%d reports, want opened, edge, edge, fault, opened, edge: %+v", len(got), got)
		}
		if !got[0].Opened || got[2].Missed != 4 || got[3].Err == nil || !got[4].Opened || got[5].Missed != 0 || !got[5].Edge.Active {
			t.Fatalf("reports: %+v", got)
		}
	})
}
