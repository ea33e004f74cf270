package campaign

import (
	"testing"
	"time"
)

// TestSoak is the campaign at a walking pace: long lives, few faults, for hours. The short form lasts some seconds and shows that it works.
func TestSoak(t *testing.T) {
	last := *soak
	if last == 0 {
		last = 5 * time.Second
	}
	t.Run(brokers()[0], func(t *testing.T) {
		r := rig(t, Setup{Broker: brokers()[0]})
		end := time.Now().Add(last)
		counts, err := r.Run(Plan{Seed: seed(t), Faults: 1 << 30, Longest: max(2*time.Second, last/20), Pace: 200 * time.Millisecond,
			Until: func(map[string]int) bool { return time.Now().After(end) }, Report: func(s string) { t.Log(s) }})
		rep, rerr := r.Report(counts)
		t.Log(rep)
		if err != nil || rerr != nil {
			t.Error(err, rerr)
		}
		object(t, rep)
		if rep.Verdict.Accepted == 0 {
			t.Error("no event: this proves nothing")
		}
	})
}
