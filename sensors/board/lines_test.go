package board

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/sensors"
)

// A chip without interrupts is looked at: levels that hold become edges, shorter ones do not, and a chip that has gone ends it.
func TestPoll(t *testing.T) {
	type change struct {
		at    time.Duration
		level bool
	}
	type edge struct {
		at     time.Duration
		active bool
	}
	ms := time.Millisecond
	changes := []change{{100 * ms, true}, {103 * ms, false}, {300 * ms, true}, {500 * ms, false}}
	for _, c := range []struct {
		name     string
		debounce time.Duration
		want     sensors.Edges
		edges    []edge
	}{
		{"no debounce", 0, sensors.BothEdges, []edge{{100 * ms, true}, {104 * ms, false}, {300 * ms, true}, {500 * ms, false}}},
		{"a bounce", 20 * ms, sensors.BothEdges, []edge{{300 * ms, true}, {500 * ms, false}}},
		{"falling only", 20 * ms, sensors.Falling, []edge{{500 * ms, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, gone := time.Now(), errors.New("the chip has gone")
				clock := func() time.Duration { return time.Since(start) }
				read := func() (bool, error) {
					level := false
					for _, x := range changes {
						if x.at <= clock() {
							level = x.level
						}
					}
					if clock() >= time.Second {
						return false, gone
					}
					return level, nil
				}
				var got []edge
				err := poll(make(chan struct{}), read, clock, c.debounce, false, c.want, func(e sensors.Edge) { got = append(got, edge{e.At, e.Active}) })
				near := func(a, b edge) bool { return a.active == b.active && (a.at-b.at).Abs() <= pollEvery }
				if err != gone || !slices.EqualFunc(got, c.edges, near) {
					t.Errorf("%v, %v; want %v", got, err, c.edges)
				}
			})
		})
	}
	quit := make(chan struct{})
	close(quit)
	if err := poll(quit, func() (bool, error) { return false, nil }, sensors.Monotonic, 0, false, sensors.BothEdges, nil); err != nil {
		t.Error(err)
	}
}
