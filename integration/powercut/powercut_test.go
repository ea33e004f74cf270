package powercut

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/queue"
)

var (
	states  = flag.Int("states", 10000, "states to check on the file level")
	onExt4  = flag.Int("ext4", 300, "states to check on a real ext4")
	seed    = flag.Uint64("seed", 0, "of the lives and the cuts; 0 draws one")
	journal = flag.String("journal", "", "journal of a failed run, to look at one state of it again")
	at      = flag.Int("at", 0, "with -journal: operations that happened before the cut")
	plan    = flag.Int("plan", 0, "with -journal: which of the states")
)

// scenario is a story of one board: lives of the workload, one after another on one disk. The journal is of the lives after the first damage, if there is one.
type scenario struct {
	name   string
	share  int // of the states
	lives  []string
	damage int // lives before the database is damaged; 0: it is not
	opt    queue.Options
}

var scenarios = []scenario{
	{name: "first start", share: 3, lives: []string{"-ops 150 -producers 3"}},
	{name: "killed", share: 3, lives: []string{"-ops 120 -kill", "-ops 120 -kill -producers 8", "-ops 100"}},
	{name: "backlog", share: 3, opt: queue.Options{MaxSize: 4 << 20},
		lives: []string{"-ops 2200 -offline -small 500 -large 900 -producers 32 -max 4194304", "-ops 1200 -producers 16 -max 4194304 -kill", "-ops 300 -max 4194304"}},
	{name: "full", share: 2, opt: queue.Options{MaxSize: 4 << 20},
		lives: []string{"-ops 250 -offline -small 9000 -large 20000 -max 4194304", "-ops 150 -small 3000 -large 9000 -max 4194304"}},
	{name: "dead letters", share: 3, lives: []string{"-ops 150 -bury -kill", "-ops 150 -bury -keep 20", "-ops 80 -bury -lost"}, opt: queue.Options{KeepDelivered: 20}},
	{name: "lost session", share: 2, lives: []string{"-ops 120", "-ops 120 -lost -kill", "-ops 60 -lost"}},
	{name: "salvage", share: 2, damage: 1, lives: []string{"-ops 300 -kill", "-ops 120"}},
}

// record runs the lives of a scenario. before are the facts that were noted before the journal began.
func (s scenario) record(t *testing.T, program string, seed uint64) (j *Journal, before []Fact) {
	t.Helper()
	run := func(img Image, lives []string, first int) *Journal {
		j, err := Record(filepath.Join(t.TempDir(), "disk"), img, func(dir string) error {
			for i, life := range lives {
				args := append(strings.Fields(life), "-life", string(rune('a'+first+i)), "-seed", fmt.Sprint(seed+uint64(first+i)))
				if err := RunLife(program, dir, filepath.Join(dir, "state"), args...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s, seed %d: %v", s.name, seed, err)
		}
		return j
	}
	if s.damage == 0 {
		return run(Empty(), s.lives, 0), nil
	}
	j = run(Empty(), s.lives[:s.damage], 0)
	img := Final(j)
	clear(img.find(t, "state", "fieldagent.db")[:8192]) // both of bbolt's meta pages: it cannot be opened, and no record is lost
	return run(img, s.lives[s.damage:], s.damage), append(Facts(j), Fact{What: "damage"})
}

func (img Image) find(t *testing.T, path ...string) []byte {
	t.Helper()
	node := uint64(Root)
	for _, name := range path {
		node = img.Dirs[node][name]
	}
	if len(img.Files[node]) == 0 {
		t.Fatalf("%v is not on the disk", path)
	}
	return img.Files[node]
}

func (s scenario) walk(t *testing.T, program string, states int, seed uint64) (w *Walk, before []Fact) {
	t.Helper()
	j, before := s.record(t, program, seed)
	w = &Walk{Journal: j, Start: NewModel(), States: states, Seed: seed, Scratch: scratch(t), Check: CheckState(s.opt)}
	for _, f := range before {
		w.Start.Add(f)
	}
	return w, before
}

// scratch is a folder in memory, where there is one.
func scratch(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "powercut"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

func drawSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64() >> 16
}

func workload(t *testing.T, changes ...Change) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "workload")
	if err := BuildWorkload(out, changes...); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPowerCut cuts the power everywhere in the life of a state folder, its first start included.
func TestPowerCut(t *testing.T) {
	program := workload(t)
	shares := 0
	for _, s := range scenarios {
		shares += s.share
	}
	total, asked := 0, 0
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			seed := drawSeed()
			w, before := s.walk(t, program, *states*s.share/shares, seed)
			n, found := w.Run()
			total, asked = total+n, asked+w.States
			t.Logf("seed %d: %d operations, %d states checked, %d violations", seed, len(w.Journal.Ops()), n, len(found))
			tell(t, w, before, found)
		})
	}
	t.Logf("%d states in all", total)
	if total < asked*9/10 {
		t.Errorf("only %d states were checked, %d were asked for", total, asked)
	}
}

// tell reports violations, and keeps the journal so that they can be looked at again.
func tell(t *testing.T, w *Walk, before []Fact, found []Violation) {
	t.Helper()
	if len(found) == 0 {
		return
	}
	name := filepath.Join(os.TempDir(), fmt.Sprintf("powercut-%d.journal", w.Seed))
	if err := w.Save(name, before); err != nil {
		t.Error(err)
	}
	for _, v := range found[:min(len(found), 5)] {
		t.Errorf("cut after operation %d, state %d: %v\nagain: go test ./powercut -run '^TestReplay$' -args -journal=%s -at=%d -plan=%d", v.At, v.Plan, v.Err, name, v.At, v.Plan)
	}
}

// TestReplay looks at one state of a kept journal again; without -journal it shows that a state comes back as it was.
func TestReplay(t *testing.T) {
	if *journal == "" {
		w, before := scenarios[0].walk(t, workload(t), 0, 7)
		name := filepath.Join(t.TempDir(), "journal")
		if err := w.Save(name, before); err != nil {
			t.Fatal(err)
		}
		again, err := LoadWalk(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []Place{{0, 0}, {len(w.Journal.Ops()) / 2, 50}, {len(w.Journal.Ops()), 3}} {
			a, _ := w.At(p)
			b, _ := again.At(p)
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Errorf("state %v is not the same again", p)
			}
		}
		return
	}
	w, err := LoadWalk(*journal)
	if err != nil {
		t.Fatal(err)
	}
	img, m := w.At(Place{*at, *plan})
	check := CheckState
	if w.Journal.Sector == ext4Sector {
		check = CheckExt4
	}
	if err := check(queue.Options{MaxSize: 4 << 20})(img, m, t.TempDir()); err != nil {
		t.Error(err)
	}
}

// controls are deliberately wrong builds. A checker that does not find them proves nothing.
var controls = []struct {
	name     string
	scenario string
	changes  []Change
}{
	{"no sync of the database", "first start", []Change{{"files.go", "PreLoadFreelist: !q.opt.ReadOnly}", "PreLoadFreelist: !q.opt.ReadOnly, NoSync: true}"}}},
	{"no sync of folders", "first start", []Change{{"segment.go", "return errors.Join(d.Sync(), d.Close())", "return d.Close()"}}},
	{"segments renamed without sync", "backlog", []Change{{"segment.go", "		err = f.Sync()\n", "		err = nil\n"}}},
	{"PUBREL before its mark", "killed", []Change{{"delivery.go", "q.marks.done = append(q.marks.done, done)", "done(nil)"}}},
}

func TestControlsFail(t *testing.T) {
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			for _, s := range scenarios {
				if s.name != c.scenario {
					continue
				}
				seed := drawSeed()
				w, _ := s.walk(t, workload(t, c.changes...), 200, seed)
				n, found := w.Run()
				t.Logf("seed %d: %d violations in %d states", seed, len(found), n)
				if len(found) == 0 {
					t.Error("the checker does not find what is wrong with this build")
				} else {
					t.Logf("such as: %.300v", found[0].Err)
				}
			}
		})
	}
}
