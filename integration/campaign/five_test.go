package campaign

import (
	"math/rand/v2"
	"testing"
)

// TestFive is the campaign with MQTT 5, in short; the long form is make campaign BROKER=mosquitto MQTT=5.
func TestFive(t *testing.T) {
	defer func(was string) { *version = was }(*version)
	*version = "5"
	n, s := 60, rand.Uint64N(1e6)+1
	t.Logf("seed %d replays it: make campaign BROKER=mosquitto MQTT=5 FAULTS=%d SEED=%d", s, n, s)
	r := rig(t, Setup{Broker: "mosquitto"})
	counts, err := r.Run(Plan{Seed: s, Faults: n, Report: func(s string) { t.Log(s) }})
	rep, rerr := r.Report(counts)
	t.Log(rep)
	if err != nil || rerr != nil {
		t.Error(err, rerr)
	}
	object(t, rep)
	if rep.Verdict.Accepted < 2*n/3 || rep.Readings == 0 {
		t.Errorf("too little happened: %v", rep)
	}
}
