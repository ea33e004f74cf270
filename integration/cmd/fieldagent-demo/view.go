package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	keepValues = 60 // of a sparkline
	keepLines  = 200
)

// view is what a subscriber knows, and what the application on the device was promised.
type view struct {
	mu       sync.Mutex
	began    time.Time
	addr     string
	up       bool // the broker
	running  bool // the agent's process
	status   string
	series   map[string]*series
	states   map[string]string // inputs, outputs and sensors' states, by topic
	tail     []entry
	printed  int // entries that were ever added
	wake     chan struct{}
	promised map[string]time.Time // ids that are stored and have not come
	storedN  int
	refusedN int
	eventsN  int
	last     uint64
	seen     map[uint64]bool
	gaps     map[uint64]bool // sequences that should have come before a later one
	doubles  int
	slowest  time.Duration
}

type series struct {
	values []float64
}

type entry struct {
	at   time.Time
	what string
	text string
}

func newView(addr string) *view {
	return &view{began: time.Now(), addr: addr, up: true, status: "?", series: map[string]*series{}, states: map[string]string{}, wake: make(chan struct{}),
		promised: map[string]time.Time{}, seen: map[uint64]bool{}, gaps: map[uint64]bool{}}
}

// message takes what the broker delivers.
func (v *view) message(topic string, payload []byte, _ byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.changeLocked()
	name := strings.TrimPrefix(topic, root+"/")
	kind, rest, _ := strings.Cut(name, "/")
	switch {
	case name == "status":
		if v.status != string(payload) {
			v.add("status", string(payload))
		}
		v.status = string(payload)
	case kind == "sensor" && strings.HasSuffix(rest, "/status"), kind == "input", kind == "output":
		if old, known := v.states[name]; old != string(payload) && (known || string(payload) != "ok") {
			v.add(name, string(payload))
		}
		v.states[name] = string(payload)
	case kind == "sensor", kind == "meter":
		v.reading(rest, payload)
	case kind == "event", kind == "cmd" && strings.HasSuffix(rest, "/result"):
		v.event(payload)
	}
}

func (v *view) reading(sensor string, payload []byte) {
	var values map[string]any
	if json.Unmarshal(payload, &values) != nil {
		v.add("strange", fmt.Sprintf("%s: %.60s", sensor, payload))
		return
	}
	names := make([]string, 0, len(values))
	for k := range values {
		names = append(names, k)
	}
	sort.Strings(names)
	var text []string
	for _, k := range names {
		n, ok := values[k].(float64)
		if !ok {
			continue
		}
		key := sensor + " " + k
		s := v.series[key]
		if s == nil {
			s = &series{}
			v.series[key] = s
		}
		s.values = append(s.values, n)
		s.values = s.values[max(0, len(s.values)-keepValues):]
		text = append(text, k+" "+strconv.FormatFloat(n, 'f', -1, 64))
	}
	v.add("reading", sensor+"  "+strings.Join(text, "  "))
}

func (v *view) event(payload []byte) {
	var e struct {
		ID, Sequence, Type string
		Data               json.RawMessage
	}
	seq := uint64(0)
	if json.Unmarshal(payload, &e) == nil {
		seq, _ = strconv.ParseUint(e.Sequence, 10, 64)
	}
	if seq == 0 {
		v.add("strange", fmt.Sprintf("%.80s", payload))
		return
	}
	note := ""
	switch {
	case v.seen[seq]:
		v.doubles++
		note = "   << DOUBLE"
	case seq > v.last+1:
		for n := v.last + 1; n < seq; n++ {
			v.gaps[n] = true
		}
		note = fmt.Sprintf("   << GAP of %d", seq-v.last-1)
	case seq < v.last:
		delete(v.gaps, seq)
		note = "   << LATE"
	}
	if began, ok := v.promised[e.ID]; ok {
		took := time.Since(began)
		v.slowest = max(v.slowest, took)
		delete(v.promised, e.ID)
		note = fmt.Sprintf("   after %v", took.Round(time.Millisecond)) + note
	}
	v.seen[seq], v.last = true, max(v.last, seq)
	v.eventsN++
	v.add("event", fmt.Sprintf("%016d %-6s %s%s", seq, e.Type, e.Data, note))
}

// stored notes that an event is on disk: it must come, once.
func (v *view) stored(id string, began time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.storedN++
	_, number, _ := strings.Cut(id, "-")
	if seq, _ := strconv.ParseUint(number, 10, 64); !v.seen[seq] { // it may have come before the answer
		v.promised[id] = began
	}
	v.changeLocked()
}

func (v *view) refused() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refusedN++
	v.changeLocked()
}

func (v *view) note(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add("demo", text)
	v.changeLocked()
}

func (v *view) brokerUp(up bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.up = up
	v.changeLocked()
}

func (v *view) deviceUp(up bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.running = up
	v.changeLocked()
}

func (v *view) add(what, text string) {
	v.tail = append(v.tail, entry{time.Now(), what, text})
	v.tail = v.tail[max(0, len(v.tail)-keepLines):]
	v.printed++
}

// changed returns a channel that is closed at the next change.
func (v *view) changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.wake
}

func (v *view) changeLocked() {
	close(v.wake)
	v.wake = make(chan struct{})
}

func (v *view) missing() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.promised)
}

// summary is the last line.
func (v *view) summary() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("application: %d events stored on the device, %d not taken (the agent was down) · subscriber: %d events of all kinds, %d still missing, %d gaps, %d doubles · slowest %v",
		v.storedN, v.refusedN, v.eventsN, len(v.promised), len(v.gaps), v.doubles, v.slowest.Round(time.Millisecond))
}

// verdict is an error when the promise was broken.
func (v *view) verdict() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.promised)+len(v.gaps)+v.doubles > 0 {
		return errors.New("events are missing or doubled")
	}
	return nil
}
