package campaign

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"fieldagent/integration/device"
)

var (
	faults   = flag.Int("faults", 0, "faults of the campaign; 0: the short form")
	only     = flag.String("broker", "", "mosquitto or nats; both when empty")
	seedFlag = flag.Uint64("seed", 0, "seed to replay; 0: a new one")
	commands = flag.Int("commands", 0, "commands of TestCommands; 0: the short form")
	seeds    = flag.Int("seeds", 1, "seeds for each protocol position")
	soak     = flag.Duration("soak", 0, "how long TestSoak lasts")
	version  = flag.String("mqtt", "3.1.1", "MQTT version that the agent speaks: 3.1.1 or 5")
)

var program string // the agent with fault points

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fa-build-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if program, err = device.Build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// brokers are those that speak the agent's version. NATS has no MQTT 5.
func brokers() []string {
	switch {
	case *only != "":
		return []string{*only}
	case *version == "5":
		return []string{"mosquitto"}
	}
	return []string{"mosquitto", "nats"}
}

func seed(t *testing.T) uint64 {
	s := *seedFlag
	if s == 0 {
		s = rand.Uint64N(1e6) + 1
	}
	name, broker, _ := strings.Cut(t.Name(), "/")
	target := map[string]string{"TestCampaign": "campaign", "TestSoak": "soak", "TestCommands": "commands", "TestPositions": "positions", "TestPositionsSessionLost": "positions"}[name]
	if target == "" {
		t.Logf("seed %d replays it: go test ./campaign -run %s -args -seed=%d", s, name, s)
		return s
	}
	t.Logf("seed %d replays it: make %s BROKER=%s MQTT=%s SEED=%d", s, target, broker, *version, s)
	return s
}

// folder is short, since a socket lies in it; it is kept when the test has failed.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "fa-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept for inspection: %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	return dir
}

func rig(t *testing.T, s Setup) *Rig {
	t.Helper()
	if s.Program == "" {
		s.Program = program
	}
	s.Dir, s.Version = folder(t), *version
	r, err := NewRig(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// object fails the test for everything that the agent has to answer for.
func object(t *testing.T, rep Report, excused ...string) {
	t.Helper()
	all := rep.Objections(excused...)
	for i, o := range all {
		if i == 20 {
			t.Errorf("and %d more", len(all)-20)
			break
		}
		t.Error(o)
	}
}

// TestCampaign is the proof: no event lost, none doubled, none out of order, no gap, whatever happens to process, line and broker.
func TestCampaign(t *testing.T) {
	for _, name := range brokers() {
		t.Run(name, func(t *testing.T) {
			n := *faults
			if n == 0 {
				n = 260
			}
			r, began := rig(t, Setup{Broker: name}), time.Now()
			counts, err := r.Run(Plan{Seed: seed(t), Faults: n, Report: func(s string) { t.Log(s) }})
			rep, rerr := r.Report(counts)
			t.Logf("%s: %v in %v", name, rep, time.Since(began).Round(time.Second))
			if err != nil && !errors.Is(err, errNeverCame) || rerr != nil { // what never came is judged by the logs
				t.Error(err, rerr)
			}
			object(t, rep)
			if rep.Verdict.Accepted < 2*n/3 || rep.Readings == 0 {
				t.Errorf("%d events and %d readings in %d faults: this proves nothing", rep.Verdict.Accepted, rep.Readings, n)
			}
		})
	}
}
