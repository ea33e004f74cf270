package verify

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Judge compares what producers were promised with what the broker delivered.
type Judge struct {
	mu       sync.Mutex
	sources  map[string]*source
	lost     int // the judge's own session
	strange  []string
	last     time.Time
	messages int
	missing  int // accepted and not delivered yet
}

// source is one outbox: everything in it has one store id and one run of sequence numbers.
type source struct {
	store     string
	accepted  map[uint64]Mark
	delivered map[uint64]uint8 // how often
	qos       map[uint64]byte
	max       uint64
	marks     map[int]int // producer → last number seen
	twice     []uint64    // QoS 2, in order of the second delivery
	again     int         // QoS 1
	disorder  []string
}

// Mark is what a producer writes into its event: who it is, and which of its events this is.
type Mark struct {
	Producer int `json:"p"`
	Number   int `json:"n"`
}

type event struct {
	SpecVersion string          `json:"specversion"`
	Source      string          `json:"source"`
	ID          string          `json:"id"`
	Sequence    string          `json:"sequence"`
	Type        string          `json:"type"`
	Data        json.RawMessage `json:"data"`
}

// NewJudge makes a judge who knows nothing yet.
func NewJudge() *Judge { return &Judge{sources: map[string]*source{}} }

func (j *Judge) source(name string) *source {
	s := j.sources[name]
	if s == nil {
		s = &source{accepted: map[uint64]Mark{}, delivered: map[uint64]uint8{}, qos: map[uint64]byte{}, marks: map[int]int{}}
		j.sources[name] = s
	}
	return s
}

// Accept notes that a producer was told "on disk" for an event of source with this id.
func (j *Judge) Accept(source, id string, m Mark) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.source(source)
	store, sequence, err := parse(id)
	if err != nil {
		j.note("%s: accepted with id %q: %v", source, id, err)
		return
	}
	j.sameStore(source, s, store)
	if old, ok := s.accepted[sequence]; ok {
		j.note("%s: id %s was given to %+v and to %+v", source, id, old, m)
		return
	}
	if s.accepted[sequence] = m; s.delivered[sequence] == 0 {
		j.missing++
	}
}

// Deliver notes that the broker has handed over a message.
func (j *Judge) Deliver(topic string, payload []byte, qos byte) {
	var e event
	err := json.Unmarshal(payload, &e)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = time.Now()
	j.messages++
	if err != nil || e.SpecVersion != "1.0" || e.ID == "" {
		j.note("%s: no event: %.100q", topic, payload)
		return
	}
	s := j.source(e.Source)
	store, sequence, err := parse(e.ID)
	if err != nil || e.Sequence != e.ID[len(e.ID)-16:] {
		j.note("%s: event with id %q and sequence %q", topic, e.ID, e.Sequence)
		return
	}
	j.sameStore(e.Source, s, store)
	s.delivered[sequence]++
	s.qos[sequence] = qos
	if s.delivered[sequence] > 1 {
		if qos == 2 {
			s.twice = append(s.twice, sequence)
		} else {
			s.again++
		}
		return
	}
	if _, ok := s.accepted[sequence]; ok {
		j.missing--
	}
	if sequence < s.max {
		s.disorder = append(s.disorder, fmt.Sprintf("%s after %d", e.ID, s.max))
	}
	s.max = max(s.max, sequence)
	var m Mark
	if json.Unmarshal(e.Data, &m) == nil && m.Number > 0 {
		if promised, ok := s.accepted[sequence]; ok && promised != m {
			j.note("%s: event %s was accepted as %+v and delivered as %+v", e.Source, e.ID, promised, m)
		}
		if last := s.marks[m.Producer]; m.Number <= last {
			s.disorder = append(s.disorder, fmt.Sprintf("%s: producer %d's number %d after its %d", e.ID, m.Producer, m.Number, last))
		}
		s.marks[m.Producer] = max(s.marks[m.Producer], m.Number)
	}
}

func (j *Judge) sameStore(name string, s *source, store string) {
	if s.store == "" {
		s.store = store
	}
	if s.store != store {
		j.note("%s: the outbox was %s and is now %s: a new database", name, s.store, store)
		s.store = store
	}
}

func (j *Judge) sessionLost() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost++
}

func (j *Judge) note(format string, args ...any) {
	if len(j.strange) < 1000 {
		j.strange = append(j.strange, fmt.Sprintf(format, args...))
	}
}

func parse(id string) (store string, sequence uint64, err error) {
	store, number, ok := strings.Cut(id, "-")
	if !ok || len(store) != 8 || len(number) != 16 {
		return "", 0, fmt.Errorf("not of the form 3f9a1c2e-0000000000000042")
	}
	sequence, err = strconv.ParseUint(number, 10, 64)
	return store, sequence, err
}

// Missing is the number of accepted events that have not come yet.
func (j *Judge) Missing() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.missing
}

// Quiet is the time since the last message.
func (j *Judge) Quiet() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Since(j.last)
}

// Verdict is what the judge found, over all sources.
type Verdict struct {
	Sources     int
	Accepted    int      // events that a producer was told are on disk
	Delivered   int      // different events that came
	Unpromised  int      // delivered, although the producer died or was cut off before it was told: legal
	Messages    int      // all that the broker sent
	Lost        []string // ids that were accepted and never came
	Doubled     []string // ids that came more than once at QoS 2
	Redelivered int      // further copies at QoS 1: legal
	Disorder    []string // with their ids at the beginning
	Missing     []string // ids that never came, below the highest that did
	Gaps        []string // the same, as runs
	Strange     []string // anything else that should not be
	Sessions    int      // times the broker forgot the judge's own session
}

// Verdict sums up.
func (j *Judge) Verdict() Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := Verdict{Sources: len(j.sources), Messages: j.messages, Strange: slices.Clone(j.strange), Sessions: j.lost}
	names := make([]string, 0, len(j.sources))
	for name := range j.sources {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		s := j.sources[name]
		id := func(n uint64) string { return fmt.Sprintf("%s %s-%016d", name, s.store, n) }
		v.Accepted += len(s.accepted)
		v.Delivered += len(s.delivered)
		v.Redelivered += s.again
		for n := range s.delivered {
			if _, ok := s.accepted[n]; !ok {
				v.Unpromised++
			}
		}
		for n := range s.accepted {
			if s.delivered[n] == 0 {
				v.Lost = append(v.Lost, id(n))
			}
		}
		for _, n := range s.twice {
			v.Doubled = append(v.Doubled, id(n))
		}
		for _, d := range s.disorder {
			v.Disorder = append(v.Disorder, name+" "+d)
		}
		for from := uint64(1); from <= s.max; from++ {
			if s.delivered[from] > 0 {
				continue
			}
			to := from
			v.Missing = append(v.Missing, id(from))
			for to < s.max && s.delivered[to+1] == 0 {
				to++
				v.Missing = append(v.Missing, id(to))
			}
			v.Gaps = append(v.Gaps, fmt.Sprintf("%s to %d", id(from), to))
			from = to
		}
	}
	sort.Strings(v.Lost)
	return v
}

// Clean tells whether there is nothing to object to.
func (v Verdict) Clean() bool {
	return len(v.Lost)+len(v.Doubled)+len(v.Disorder)+len(v.Gaps)+len(v.Strange)+v.Sessions == 0
}

// String is the report's line.
func (v Verdict) String() string {
	return fmt.Sprintf("events %d accepted, %d delivered (%d of them unpromised) from %d outboxes · lost %d · doubled %d · out of order %d · gaps %d · strange %d · redelivered at QoS 1 %d · judge's session lost %d",
		v.Accepted, v.Delivered, v.Unpromised, v.Sources, len(v.Lost), len(v.Doubled), len(v.Disorder), len(v.Gaps), len(v.Strange), v.Redelivered, v.Sessions)
}
