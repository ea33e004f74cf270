package campaign

import (
	"errors"
	"os"
	"testing"
	"time"

	"fieldagent/integration/device"
)

// A control is an agent that is wrong on purpose.
type control struct {
	name   string
	edit   device.Edit
	points []string // where its fault shows soonest
	want   string   // lost or doubled
}

// controls are wrong in the ways that clients are. What a missing sync or a missing sync of the folder does no kill can show, since the page cache outlives the process:
// those controls belong to the power cuts (package powercut).
var controls = []control{
	{"PUBREL before its mark is on disk", device.Edit{File: "agent/link.go",
		Old: "	faultPoint(\"before mark\")\n",
		New: "	for _, id := range c.w.marked(through, nil) {\n		_ = c.s.Release(id)\n	}\n	_ = c.s.Flush()\n	faultPoint(\"before mark\")\n"},
		[]string{"before commit", "before mark"}, "doubled"},
	{"PUBREL not kept, as in paho's stores", device.Edit{File: "agent/window.go", Old: "released: pos.Released,", New: "released: pos.Acked,"},
		[]string{"after mark", "after pubrel"}, "doubled"},
	{"the token of a resumed message completes at once, as paho's do", device.Edit{File: "agent/window.go",
		Old: "	case f.seq <= w.horizon:\n		s = stepRepeat\n", New: "	case f.seq <= w.horizon:\n		f.state, s = flightDone, stepDone\n"},
		[]string{"before publish", "after publish"}, "lost"},
	{"accepted before the commit", device.Edit{File: "queue/batch.go",
		Old: "	o.crash(\"before commit\")\n",
		New: "	for _, j := range jobs {\n		j.done <- j.err\n		j.done = make(chan error, 1)\n	}\n	o.crash(\"before commit\")\n"},
		[]string{"before commit"}, "lost"},
}

// TestControls runs the campaign on agents that are wrong: it must say so, or it proves nothing about the right one. The short form has one that doubles and one that loses.
func TestControls(t *testing.T) {
	all := controls
	if testing.Short() {
		all = []control{controls[0], controls[3]}
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "fa-control-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			wrong, err := device.Build(dir, c.edit)
			if err != nil {
				t.Fatal(err)
			}
			r := rig(t, Setup{Program: wrong, Broker: brokers()[0], Grace: 5 * time.Second})
			s, done := seed(t), 0
			for chunk := range uint64(25) {
				counts, err := r.Run(Plan{Seed: s + chunk, Faults: 20, Points: c.points, First: int(chunk) * 1e6})
				rep, rerr := r.Report(counts)
				if rerr != nil {
					t.Fatal(rerr)
				}
				done += rep.Faults()
				found := map[string]int{"lost": len(rep.Verdict.Lost), "doubled": len(rep.Verdict.Doubled)}[c.want]
				if found > 0 && len(rep.Objections()) > 0 {
					t.Logf("found after %d faults: %d %s. %v", done, found, c.want, rep)
					return
				}
				if err != nil && !errors.Is(err, errNeverCame) {
					t.Fatal(err)
				}
			}
			t.Fatalf("%d faults, and nothing was found: the campaign cannot fail", done)
		})
	}
}
