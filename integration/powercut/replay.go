package powercut

import (
	"math/rand/v2"
	"slices"
)

// Cursor walks a journal and knows at each place what is durable and what is not.
type Cursor struct {
	ops    []Op
	sector int64
	at     int // operations that have happened
	files  map[uint64]*content
	dirs   map[uint64]*listing
	wet    map[uint64]bool // files and folders with operations that no sync has covered
}

type content struct {
	durable []byte
	shared  bool // durable is part of an image that was drawn: it must not change
	pending []int
}

type listing struct {
	durable map[string]uint64
	pending []int
}

// NewCursor starts before the first operation.
func NewCursor(j *Journal) *Cursor {
	c := &Cursor{ops: j.Ops(), sector: max(j.Sector, 512), files: map[uint64]*content{}, dirs: map[uint64]*listing{}, wet: map[uint64]bool{}}
	for n, d := range j.Base.Dirs {
		l := &listing{durable: map[string]uint64{}}
		for name, child := range d {
			l.durable[name] = child
		}
		c.dirs[n] = l
	}
	for n, data := range j.Base.Files {
		c.files[n] = &content{durable: slices.Clone(data)}
	}
	return c
}

// At is the number of operations that have happened.
func (c *Cursor) At() int { return c.at }

// Next lets the next operation happen; false after the last one.
func (c *Cursor) Next() bool {
	if c.at >= len(c.ops) {
		return false
	}
	op := &c.ops[c.at]
	switch op.Kind {
	case Write, Truncate:
		f := c.files[op.Node]
		f.pending = append(f.pending, c.at)
		c.wet[op.Node] = true
	case Sync:
		f := c.files[op.Node]
		if f.shared && len(f.pending) > 0 {
			f.durable, f.shared = slices.Clone(f.durable), false
		}
		for _, i := range f.pending {
			f.durable = apply(f.durable, &c.ops[i])
		}
		f.pending = nil
		delete(c.wet, op.Node)
	case Link:
		if _, known := c.files[op.Child]; !known && c.dirs[op.Child] == nil {
			if op.Off < 0 {
				c.dirs[op.Child] = &listing{durable: map[string]uint64{}}
			} else {
				c.files[op.Child] = &content{}
			}
		}
		fallthrough
	case Unlink, Rename:
		d := c.dirs[op.Node]
		d.pending = append(d.pending, c.at)
		c.wet[op.Node] = true
	case SyncDir:
		d := c.dirs[op.Node]
		for _, i := range d.pending {
			applyName(d.durable, &c.ops[i])
		}
		d.pending = nil
		delete(c.wet, op.Node)
	}
	c.at++
	return true
}

func apply(data []byte, op *Op) []byte {
	if op.Kind == Truncate {
		return resize(data, op.Off)
	}
	return put(data, op.Off, op.Data)
}

func applyName(dir map[string]uint64, op *Op) {
	switch op.Kind {
	case Link:
		dir[op.Name] = op.Child
	case Unlink:
		if dir[op.Name] == op.Child {
			delete(dir, op.Name)
		}
	case Rename:
		if dir[op.Name] == op.Child {
			delete(dir, op.Name)
		}
		dir[op.To] = op.Child
	}
}

// Pending counts the operations that a cut here could undo.
func (c *Cursor) Pending() int {
	n := 0
	for id := range c.wet {
		if f := c.files[id]; f != nil {
			n += len(f.pending)
		} else {
			n += len(c.dirs[id].pending)
		}
	}
	return n
}

// fate says what becomes of one operation that no sync has covered.
type fate struct {
	kept bool
	torn func(i int) bool // keeps the sector i of a write; nil: all of them
	size bool             // a lost write beyond the end leaves zeros
}

// Draw builds one state that a cut at this place could leave. plan counts from 0: the first plans are the plain cases (all lost, all kept,
// each one lost, each one kept), when few operations are pending then every subset; all others are drawn from rng.
func (c *Cursor) Draw(plan int, rng *rand.Rand) Image {
	nodes := make([]uint64, 0, len(c.wet))
	for id := range c.wet {
		nodes = append(nodes, id)
	}
	slices.Sort(nodes)
	var all []int
	for _, id := range nodes {
		all = append(all, c.pendingOf(id)...)
	}
	slices.Sort(all)
	fates := c.plan(all, plan, rng)
	return c.build(fates)
}

func (c *Cursor) pendingOf(id uint64) []int {
	if f := c.files[id]; f != nil {
		return f.pending
	}
	return c.dirs[id].pending
}

// Plans is the number of plans that are not left to chance.
func Plans(pending int) int {
	if pending <= 5 {
		return 1 << pending
	}
	return 2 + 2*pending
}

func (c *Cursor) plan(all []int, plan int, rng *rand.Rand) map[int]fate {
	fates := make(map[int]fate, len(all))
	set := func(keep func(k int) bool) {
		for k, i := range all {
			fates[i] = fate{kept: keep(k)}
		}
	}
	n := len(all)
	switch {
	case plan < Plans(n) && n <= 5:
		set(func(k int) bool { return plan>>k&1 == 1 })
		return fates
	case plan == 0, plan == 1:
		set(func(int) bool { return plan == 1 })
		return fates
	case plan < Plans(n):
		set(func(k int) bool { return (k == (plan-2)/2) == (plan%2 == 0) })
		return fates
	}
	switch rng.IntN(5) {
	case 0: // in order up to a place
		cut := rng.IntN(n + 1)
		set(func(k int) bool { return k < cut })
		if cut < n {
			fates[all[cut]] = c.tear(all[cut], rng)
		}
	case 1: // the newest first
		cut := rng.IntN(n + 1)
		set(func(k int) bool { return k >= cut })
		if cut < n {
			fates[all[cut]] = c.tear(all[cut], rng)
		}
	default:
		p, torn := rng.Float64(), rng.Float64()*0.7
		for _, i := range all {
			if rng.Float64() < torn {
				fates[i] = c.tear(i, rng)
			} else {
				fates[i] = fate{kept: rng.Float64() < p, size: rng.IntN(8) == 0}
			}
		}
	}
	return fates
}

// tear keeps some sectors of a write. Names and truncations are whole or not there.
func (c *Cursor) tear(i int, rng *rand.Rand) fate {
	op := &c.ops[i]
	if op.Kind != Write || op.Off/c.sector == (op.Off+int64(len(op.Data))-1)/c.sector {
		return fate{kept: rng.IntN(2) == 0}
	}
	f := fate{kept: true, size: rng.IntN(2) == 0}
	n := len(op.Data)/int(c.sector) + 2
	switch rng.IntN(3) {
	case 0:
		at := rng.IntN(n)
		f.torn = func(i int) bool { return i < at }
	case 1:
		at := rng.IntN(n)
		f.torn = func(i int) bool { return i >= at }
	default:
		p, seed := rng.Float64(), rng.Uint64()
		f.torn = func(i int) bool { return rand.New(rand.NewPCG(seed, uint64(i))).Float64() < p }
	}
	return f
}

func (c *Cursor) build(fates map[int]fate) Image {
	img := Image{Dirs: map[uint64]map[string]uint64{}, Files: map[uint64][]byte{}}
	var visit func(id uint64)
	visit = func(id uint64) {
		l := c.dirs[id]
		dir := make(map[string]uint64, len(l.durable))
		for name, child := range l.durable {
			dir[name] = child
		}
		for _, i := range l.pending {
			if fates[i].kept {
				applyName(dir, &c.ops[i])
			}
		}
		img.Dirs[id] = dir
		for _, name := range names(dir) {
			child := dir[name]
			if f := c.files[child]; f != nil {
				if _, ok := img.Files[child]; !ok {
					img.Files[child] = f.after(c, fates)
				}
			} else if _, ok := img.Dirs[child]; !ok {
				visit(child)
			}
		}
	}
	visit(Root)
	return img
}

// after is the file's content when some of the pending operations have reached the disk. Without any it is the durable slice itself.
func (f *content) after(c *Cursor, fates map[int]fate) []byte {
	if len(f.pending) == 0 {
		f.shared = true
		return f.durable
	}
	data := make([]byte, len(f.durable), len(f.durable)+64<<10)
	copy(data, f.durable)
	for _, i := range f.pending {
		op, fate := &c.ops[i], fates[i]
		switch {
		case op.Kind == Truncate:
			if fate.kept {
				data = resize(data, op.Off)
			}
		case fate.kept && fate.torn == nil:
			data = put(data, op.Off, op.Data)
		case fate.kept:
			data = putTorn(data, op, fate, c.sector)
		case fate.size && op.Off+int64(len(op.Data)) > int64(len(data)):
			data = resize(data, op.Off+int64(len(op.Data)))
		}
	}
	return data
}

func putTorn(data []byte, op *Op, fate fate, sector int64) []byte {
	if end := op.Off + int64(len(op.Data)); fate.size && end > int64(len(data)) {
		data = resize(data, end)
	}
	first := op.Off / sector
	for at := int64(0); at < int64(len(op.Data)); {
		abs := op.Off + at
		n := min(sector-abs%sector, int64(len(op.Data))-at)
		if fate.torn(int(abs/sector - first)) {
			data = put(data, abs, op.Data[at:at+n])
		}
		at += n
	}
	return data
}
