package powercut

import (
	"encoding/gob"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"fieldagent/queue"
)

// Walk visits states that a cut could leave along a journal.
type Walk struct {
	Journal *Journal
	Start   *Model // what was promised before the journal began
	States  int
	Seed    uint64
	Scratch string // folder for the states, best in memory
	Check   func(img Image, m *Model, scratch string) error
}

// CheckState lays a state out and opens the folder named state in it.
func CheckState(opt queue.Options) func(Image, *Model, string) error {
	return func(img Image, m *Model, scratch string) error {
		if err := img.Lay(scratch); err != nil {
			return err
		}
		return Check(filepath.Join(scratch, "state"), m, opt)
	}
}

// Place names one state of a journal: the number of operations that happened, and which of the states it could be.
type Place struct{ At, Plan int }

// Violation is a state that breaks a promise.
type Violation struct {
	Place
	Err error
}

// Run checks about States states, spread over the journal by how much is at stake at each place, and returns how many it checked and what it found.
func (w *Walk) Run() (checked int, found []Violation) {
	places := w.places()
	type task struct {
		place Place
		img   Image
		m     *Model
	}
	tasks := make(chan task)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for t := range tasks {
				err := w.one(t.img, t.m)
				mu.Lock()
				checked++
				if err != nil {
					found = append(found, Violation{t.place, err})
				}
				mu.Unlock()
			}
		})
	}
	c, m := NewCursor(w.Journal), w.Start.Clone()
	var shared *Model
	for _, p := range places {
		for c.At() < p.At && c.Next() {
			if op := &c.ops[c.at-1]; op.Kind == Note {
				m.Add(op.Fact)
				shared = nil
			}
		}
		if shared == nil {
			shared = m.Clone()
		}
		tasks <- task{p, c.Draw(p.Plan, w.rng(p)), shared}
	}
	close(tasks)
	workers.Wait()
	return checked, found
}

// At builds one state and what was promised then.
func (w *Walk) At(p Place) (Image, *Model) {
	c, m := NewCursor(w.Journal), w.Start.Clone()
	for c.At() < p.At && c.Next() {
		if op := &c.ops[c.at-1]; op.Kind == Note {
			m.Add(op.Fact)
		}
	}
	return c.Draw(p.Plan, w.rng(p)), m
}

func (w *Walk) rng(p Place) *rand.Rand {
	return rand.New(rand.NewPCG(w.Seed, uint64(p.At)<<20|uint64(p.Plan)))
}

func (w *Walk) one(img Image, m *Model) error {
	dir, err := os.MkdirTemp(w.Scratch, "state")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return w.Check(img, m, dir)
}

// places draws where to cut. Where nothing is pending there is one state only.
func (w *Walk) places() []Place {
	c := NewCursor(w.Journal)
	var weights []int
	total := 0
	for more := true; more; more = c.Next() {
		n := 1
		if p := c.Pending(); p > 0 {
			n = min(Plans(p), 40) + 20
		}
		weights = append(weights, n)
		total += n
	}
	rng := rand.New(rand.NewPCG(w.Seed, 1))
	share := float64(w.States) / float64(total)
	var places []Place
	due := rng.Float64() // carried from place to place, so that there are as many as were asked for
	for at, weight := range weights {
		due += share * float64(weight)
		n := int(due)
		due -= float64(n)
		if weight == 1 {
			n = min(n, 1)
		}
		first := 0
		if weight > 1 && n < weight {
			first = rng.IntN(weight - n + 1)
		}
		for k := range n {
			places = append(places, Place{at, first + k})
		}
	}
	return places
}

// saved is a walk on disk: journals depend on the scheduling of the process that made them, so a seed alone does not bring one back.
type saved struct {
	Base   Image
	Ops    []Op
	Facts  []Fact // before the journal began
	Seed   uint64
	Sector int64
}

// Save writes the walk to a file. before are the facts that Start was made of.
func (w *Walk) Save(name string, before []Fact) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := gob.NewEncoder(f).Encode(saved{w.Journal.Base, w.Journal.Ops(), before, w.Seed, w.Journal.Sector}); err != nil {
		return fmt.Errorf("save journal: %w", err)
	}
	return f.Sync()
}

// LoadWalk reads what Save wrote.
func LoadWalk(name string) (*Walk, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var s saved
	if err := gob.NewDecoder(f).Decode(&s); err != nil {
		return nil, fmt.Errorf("load journal: %w", err)
	}
	w := &Walk{Journal: &Journal{Base: s.Base, Sector: s.Sector, ops: s.Ops}, Start: NewModel(), Seed: s.Seed}
	for _, fact := range s.Facts {
		w.Start.Add(fact)
	}
	return w, nil
}
