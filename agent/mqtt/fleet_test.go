package mqtt

import (
	"testing"
	"time"
)

// reconnects returns the most connects in one second when a broker that was away for that long comes back to n devices.
func reconnects(n int, r Reconnect, away time.Duration) (peak int) {
	per := map[time.Duration]int{}
	for range n {
		at := time.Duration(0)
		for failures := 0; ; failures++ {
			if at += pause(r, failures); at >= away {
				break
			}
		}
		per[at/time.Second]++
	}
	for _, c := range per {
		peak = max(peak, c)
	}
	return peak
}

// TestFleetReconnects holds what the README says of ten thousand devices: with reconnect {min: 20s, max: 60s} a broker sees fewer than 700 connects a
// second however long it was away; with the defaults that holds after five minutes, and a blink brings all of them back within seconds.
func TestFleetReconnects(t *testing.T) {
	const devices, bound = 10000, 700
	for _, c := range []struct {
		r     Reconnect
		away  time.Duration
		bound int
	}{
		{Reconnect{Min: 20 * time.Second, Max: time.Minute}, 0, bound},
		{Reconnect{Min: 20 * time.Second, Max: time.Minute}, 2 * time.Second, bound},
		{Reconnect{Min: 20 * time.Second, Max: time.Minute}, 30 * time.Second, bound},
		{Reconnect{Min: 20 * time.Second, Max: time.Minute}, time.Hour, bound},
		{Reconnect{Min: time.Second, Max: time.Minute}, 5 * time.Minute, bound},
		{Reconnect{Min: time.Second, Max: time.Minute}, time.Hour, bound},
		{Reconnect{Min: time.Second, Max: time.Minute}, 0, devices + 1},
		{Reconnect{Min: time.Second, Max: time.Minute}, 5 * time.Second, devices / 3},
	} {
		peak := reconnects(devices, c.r, c.away)
		t.Logf("%d devices, %v to %v, broker away for %v: at most %d connects a second", devices, c.r.Min, c.r.Max, c.away, peak)
		if peak >= c.bound {
			t.Errorf("%v to %v, away for %v: %d connects in one second, want fewer than %d", c.r.Min, c.r.Max, c.away, peak, c.bound)
		}
	}
}
