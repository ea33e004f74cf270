package powercut

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Model is what the facts up to a moment promise.
type Model struct {
	submitted map[string]bool
	accepted  map[string]Fact // by token
	refused   map[string]bool
	ack       bounds // rows up to here are finished
	release   bounds // rows up to here have their PUBREC
	values    map[string]bounds
	jobs      map[string]bounds
	burying   map[uint64]bool
	buried    map[uint64]bool
	retried   map[uint64]bool // dead letters that may be delivered by now
	Damaged   bool            // the database was damaged on purpose: an alarm must say so, and the session is forgotten
	newest    uint64          // the newest row that was accepted before that
	after     uint64          // the first one that was accepted after it
	Unknown   bool            // nobody noted what the broker has confirmed
}

// bounds is a number that only grows: it is at least low, and at most high.
type bounds struct{ low, high uint64 }

// NewModel promises nothing.
func NewModel() *Model {
	return &Model{submitted: map[string]bool{}, accepted: map[string]Fact{}, refused: map[string]bool{}, values: map[string]bounds{}, jobs: map[string]bounds{},
		burying: map[uint64]bool{}, buried: map[uint64]bool{}, retried: map[uint64]bool{}}
}

// Clone copies a model.
func (m *Model) Clone() *Model {
	c := *m
	c.submitted, c.accepted, c.refused = maps.Clone(m.submitted), maps.Clone(m.accepted), maps.Clone(m.refused)
	c.values, c.jobs = maps.Clone(m.values), maps.Clone(m.jobs)
	c.burying, c.buried, c.retried = maps.Clone(m.burying), maps.Clone(m.buried), maps.Clone(m.retried)
	return &c
}

// Add takes a fact.
func (m *Model) Add(f Fact) {
	switch f.What {
	case "submit":
		m.submitted[f.Token] = true
		delete(m.refused, f.Token) // another try
	case "accept":
		m.accepted[f.Token] = f
		if !m.Damaged {
			m.newest = max(m.newest, f.Seq)
		} else if m.after == 0 || f.Seq < m.after {
			m.after = f.Seq
		}
	case "refuse":
		m.refused[f.Token] = true
	case "complete?":
		m.ack.high = max(m.ack.high, f.Seq)
	case "complete":
		m.ack.low = max(m.ack.low, f.Seq)
	case "release?":
		m.release.high = max(m.release.high, f.Seq)
	case "release":
		m.release.low = max(m.release.low, f.Seq)
	case "session?":
		if f.Value == 0 { // the broker has lost it
			m.release.low = 0
		}
	case "put?", "put":
		m.values[f.Key] = m.values[f.Key].with(f)
	case "job?", "job":
		m.jobs[f.Key] = m.jobs[f.Key].with(f)
	case "bury?":
		m.burying[f.Seq] = true
	case "bury":
		m.buried[f.Seq] = true
	case "retry done?":
		m.retried[f.Seq] = true
	case "damage":
		m.Damaged = true
	}
}

func (b bounds) with(f Fact) bounds {
	if strings.HasSuffix(f.What, "?") {
		b.high = max(b.high, f.Value)
	} else {
		b.low = max(b.low, f.Value)
	}
	return b
}

func (b bounds) check(what string, v uint64) error {
	if v < b.low || v > b.high {
		return fmt.Errorf("%s is %d, must be from %d to %d", what, v, b.low, b.high)
	}
	return nil
}

// State is what was found on a disk.
type State struct {
	Store           uint32
	Acked, Released uint64
	Last            uint64
	Rows            []Row // that would be sent, in order
	Dead            []Row
	Total, Document uint64
	Harmed          bool // the document
	Jobs            map[string]uint64
	Damage          bool
}

// Row is an event that was found.
type Row struct {
	Store uint32
	Seq   uint64
	Own   bool   // written by the queue itself: gap, alarm
	Token string // "" when the data is harmed
}

// unused tells whether nothing needs to be under a sequence: salvage does not give out again what half a commit was to have.
func (m *Model) unused(seq uint64) bool {
	return m.Damaged && seq > m.newest && (m.after == 0 || seq < m.after)
}

// Judge compares what was found with what was promised.
func (m *Model) Judge(s State) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Damage && !m.Damaged {
		bad("the state is taken for damaged")
	}
	ack, release := m.ack, m.release
	if m.Unknown {
		ack.high = math.MaxUint64
	}
	release.low, release.high = max(release.low, ack.low), max(release.high, ack.high)
	if m.Damaged {
		release.low = ack.low
	}
	errs = append(errs, ack.check("the mark of finished rows", s.Acked), release.check("the mark of released rows", s.Released))
	seen, rows := map[string]bool{}, map[uint64]Row{}
	next := s.Acked + 1
	dead := map[uint64]Row{}
	for _, r := range s.Dead {
		dead[r.Seq] = r
		if !m.burying[r.Seq] {
			bad("row %d is a dead letter that nobody buried", r.Seq)
		}
	}
	for _, r := range s.Rows {
		for ; next < r.Seq && (dead[next].Seq == next || m.unused(next)); next++ {
		}
		if r.Seq != next {
			bad("row %d comes where row %d was to come", r.Seq, next)
		}
		next = r.Seq + 1
		rows[r.Seq] = r
	}
	for ; next > 0 && (dead[next].Seq == next || next <= s.Last && m.unused(next)); next++ {
	}
	if s.Last != next-1 {
		bad("the newest row is %d, the queue says %d", next-1, s.Last)
	}
	for _, r := range slices.Concat(s.Rows, s.Dead) {
		f, accepted := m.accepted[r.Token]
		switch {
		case r.Own:
		case r.Token == "":
			bad("row %d is harmed", r.Seq)
		case seen[r.Token]:
			bad("%s is there twice", r.Token)
		case !m.submitted[r.Token]:
			bad("row %d has %s, which nobody submitted", r.Seq, r.Token)
		case m.refused[r.Token]:
			bad("row %d has %s, which was refused", r.Seq, r.Token)
		case accepted && (f.Seq != r.Seq || f.Store != r.Store):
			bad("%s was accepted as %08x-%d and is %08x-%d", r.Token, f.Store, f.Seq, r.Store, r.Seq)
		}
		seen[r.Token] = true
	}
	for _, token := range slices.Sorted(maps.Keys(m.accepted)) {
		f := m.accepted[token]
		_, isDead := dead[f.Seq]
		switch {
		case f.Seq > s.Acked && !seen[token]:
			bad("%s was accepted as %d and is lost", token, f.Seq)
		case m.buried[f.Seq] && !m.retried[f.Seq] && !isDead:
			bad("%s was buried as %d and is lost", token, f.Seq)
		}
	}
	errs = append(errs, m.values["m"].check("the total", s.Total), m.values["c"].check("the document's version", s.Document))
	if s.Harmed {
		bad("the document is harmed")
	}
	top := uint64(0)
	for token := range seen {
		if rest, ok := strings.CutPrefix(token, "all-m-"); ok {
			number, _, _ := strings.Cut(rest, "-")
			n, _ := strconv.ParseUint(number, 10, 64)
			top = max(top, n)
		}
	}
	if top > 0 && top != s.Total && s.Dead == nil {
		bad("the total is %d, and the newest event made with it says %d", s.Total, top)
	}
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		errs = append(errs, m.jobs[id].check("the state of command "+id, s.Jobs[id]))
	}
	for id := range s.Jobs {
		if _, ok := m.jobs[id]; !ok {
			bad("command %s is there that nobody received", id)
		}
	}
	return errors.Join(errs...)
}
