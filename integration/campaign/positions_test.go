package campaign

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPositions strikes each packet of the handshakes with each thing that can happen to it, and then kills the agent or cuts the line: nothing is lost, doubled or out of order.
func TestPositions(t *testing.T) {
	for _, name := range brokers() {
		t.Run(name, func(t *testing.T) {
			rep, began := strike(t, name, "kill", "cut")
			t.Logf("%s: %v in %v", name, rep, time.Since(began).Round(time.Second))
			object(t, rep)
		})
	}
}

// TestPositionsSessionLost does the same while the broker loses its session. Nothing is lost then either; what comes twice is counted as ambiguous by the agent.
func TestPositionsSessionLost(t *testing.T) {
	for _, name := range brokers() {
		t.Run(name, func(t *testing.T) {
			rep, began := strike(t, name, "lose")
			t.Logf("%s: %v, %d ambiguous, in %v", name, rep, rep.Ambiguous, time.Since(began).Round(time.Second))
			object(t, rep, "session lost")
			if n := uint64(len(rep.Verdict.Doubled)); n > rep.Ambiguous {
				t.Errorf("%d events came twice, the agent says that %d may have", n, rep.Ambiguous)
			}
			if rep.Audit.Lost == 0 {
				t.Error("no session was lost: this proves nothing")
			}
		})
	}
}

func strike(t *testing.T, name string, then ...string) (Report, time.Time) {
	r, began := rig(t, Setup{Broker: name}), time.Now()
	s := seed(t)
	counts, number := map[string]int{}, 0
	for n := range uint64(*seeds) {
		for i, p := range positions(then...) {
			counts[p.then+" after "+string(p.do)]++
			if err := r.at(p, rand.New(rand.NewPCG(s+n, uint64(i))), &number); err != nil {
				t.Fatalf("seed %d, %v: %v", s+n, p, err)
			}
		}
	}
	if err := r.quiet(time.Minute); err != nil {
		t.Error(err)
	}
	var now status
	if err := r.Device.Get("/v1/status", &now); err != nil {
		t.Fatal(err)
	}
	rep, err := r.Report(counts)
	if err != nil {
		t.Fatal(err)
	}
	rep.Ambiguous = now.Outbox.Ambiguous
	return rep, began
}
