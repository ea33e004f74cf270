package sensors

import (
	"fmt"
	"time"
)

// MeterConfig is one entry of meters:. Pulses are counted as integers; units are only computed for show.
type MeterConfig struct {
	Name          string        `config:"name,required" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Name of the meter."`
	Line          string        `config:"line,required" doc:"Line by name (GPIO27) or by chip label and offset (pinctrl-bcm2711:27)."`
	Edge          string        `config:"edge" default:"falling" enum:"rising,falling" doc:"Which edge is a pulse."`
	Pull          string        `config:"pull" enum:"up,down,off" doc:"Bias of the line; left as it is when not given."`
	Debounce      time.Duration `config:"debounce" default:"5ms" min:"0s" max:"10s" doc:"A pulse counts only when its level holds this long."`
	Every         time.Duration `config:"every" default:"10s" min:"100ms" max:"24h" doc:"Time from one reading, with total and rate, to the next; its topic is <root>/sensor/<name>."`
	Unit          string        `config:"unit" pattern:"^[a-z][a-z0-9_]{0,30}$" doc:"Unit of the total, such as kwh or m3."`
	PulsesPerUnit int64         `config:"pulses_per_unit" default:"1" min:"1" max:"100000000" doc:"Pulses for one unit (an S0 meter says 1000 imp/kWh)."`
	MaxRate       float64       `config:"max_rate" default:"0" min:"0" max:"100000" doc:"Pulses a second above which the input is reported as too fast; 0: a third of what debounce lets through."`
	StuckAfter    time.Duration `config:"stuck_after" default:"0s" min:"0s" doc:"Report the meter as stuck when no pulse comes for this long; 0 never."`
	Event         MeterEvent    `config:"event" doc:"The billing record."`
	Save          MeterSave     `config:"save" doc:"How often the total goes to disk between records: what a power cut can lose."`
}

// Spec returns how the line is requested, and which of its edges is a pulse.
func (c MeterConfig) Spec() (LineSpec, Edges) {
	want := Falling
	if c.Edge == "rising" {
		want = Rising
	}
	return LineSpec{Line: c.Line, Consumer: "fieldagent " + c.Name, Pull: c.Pull, Debounce: c.Debounce}, want
}

// MeterEvent says when the billing record is written.
type MeterEvent struct {
	Type  string        `config:"type" default:"meter" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"Type of the event."`
	Every time.Duration `config:"every" default:"15m" min:"1s" max:"744h" doc:"Time from one record to the next."`
	QoS   int           `config:"qos" default:"2" min:"1" max:"2" doc:"1 (at least once) or 2 (exactly once)."`
}

// MeterSave bounds the loss by a power cut: no more than this time and this number of pulses.
type MeterSave struct {
	Every  time.Duration `config:"every" default:"1s" min:"100ms" max:"1h" doc:"Longest time that a counted pulse is only in memory."`
	Pulses int64         `config:"pulses" default:"100" min:"1" max:"1000000" doc:"Most pulses that are only in memory."`
}

// Total is what is kept of a meter on disk.
type Total struct {
	Pulses    uint64    `json:"pulses"`    // since the beginning, or since the last exchange's set total
	Reported  uint64    `json:"reported"`  // Pulses at the last billing record
	Since     time.Time `json:"since"`     // time of the last billing record
	Exchanges int       `json:"exchanges"` // how often the total was set by hand
	Missed    uint64    `json:"missed"`    // edges that the kernel counted and the agent did not read in time; already in Pulses
}

// Meter counts the pulses of one line. It is not safe for concurrent use and reads no clock: whoever owns it passes the times.
type Meter struct {
	cfg      MeterConfig
	total    Total
	saved    Total
	dirtyAt  time.Duration // when the first unsaved pulse was counted
	lastEdge time.Duration
	interval time.Duration // between the last two pulses; 0 unknown
	fast     time.Duration // the last interval that was too short
	fastAt   time.Duration // when that was
}

// NewMeter goes on from the total that was restored from disk.
func NewMeter(cfg MeterConfig, restored Total) *Meter {
	return &Meter{cfg: cfg, total: restored, saved: restored}
}

// Configure takes over what changed and needs no new line, such as the period of records.
func (m *Meter) Configure(cfg MeterConfig) { m.cfg = cfg }

// Pulse counts one edge, and the missed edges just before it: the kernel numbers them, so the total stays exact.
func (m *Meter) Pulse(e Edge, n uint32) {
	if m.total == m.saved {
		m.dirtyAt = e.At
	}
	m.total.Pulses += 1 + uint64(n)
	m.total.Missed += uint64(n)
	if m.lastEdge != 0 && e.At > m.lastEdge {
		m.interval = (e.At - m.lastEdge) / time.Duration(n+1)
		if m.interval < m.shortest() {
			m.fast, m.fastAt = m.interval, e.At
		}
	}
	m.lastEdge = e.At
}

// shortest is the interval between pulses below which something is wrong with the wiring.
func (m *Meter) shortest() time.Duration {
	if m.cfg.MaxRate > 0 {
		return time.Duration(float64(time.Second) / m.cfg.MaxRate)
	}
	return 3 * m.cfg.Debounce // a pulse and a pause of debounce each are the least that gets through
}

// Total returns the running total, exact while the agent runs.
func (m *Meter) Total() Total { return m.total }

// SaveDue says whether the total must go to disk at the time now, and if not, when (0: nothing unsaved).
func (m *Meter) SaveDue(now time.Duration) (bool, time.Duration) {
	if m.total == m.saved {
		return false, 0
	}
	if m.total.Pulses-m.saved.Pulses >= uint64(m.cfg.Save.Pulses) {
		return true, 0
	}
	due := m.dirtyAt + m.cfg.Save.Every
	return now >= due, due
}

// Saved tells that t, taken at the time at, is on disk.
func (m *Meter) Saved(t Total, at time.Duration) {
	m.saved = t
	m.dirtyAt = at
}

// Unsaved returns the pulses that are only in memory: what a power cut now would lose.
func (m *Meter) Unsaved() uint64 {
	if m.total.Pulses < m.saved.Pulses {
		return 0
	}
	return m.total.Pulses - m.saved.Pulses
}

// Record returns the total as it will be after a billing record at the time at, and the pulses in it.
// It changes nothing: call Commit once the record and the total are on disk together.
func (m *Meter) Record(at time.Time) (after Total, pulses uint64) {
	after = m.total
	pulses = after.Pulses - after.Reported
	after.Reported, after.Since = after.Pulses, at
	return after, pulses
}

// Exchange returns the total as it will be when the meter was exchanged or its total set to pulses.
func (m *Meter) Exchange(pulses uint64, at time.Time) Total {
	t := m.total
	t.Pulses, t.Reported, t.Since = pulses, pulses, at
	t.Exchanges++
	return t
}

// Commit takes over a total from Record or Exchange once it is on disk; pulses counted in between stay counted.
func (m *Meter) Commit(from, to Total, now time.Duration) {
	since := m.total.Pulses - from.Pulses
	missedSince := m.total.Missed - from.Missed
	m.total = to
	m.saved = to
	m.total.Pulses += since
	m.total.Missed += missedSince
	m.dirtyAt = now
}

// Rate returns pulses a second at the time now. It falls while no pulse comes, since the next one is at best now.
func (m *Meter) Rate(now time.Duration) float64 {
	if m.interval == 0 {
		return 0
	}
	d := m.interval
	if idle := now - m.lastEdge; idle > d {
		d = idle
	}
	if d > time.Hour {
		return 0
	}
	return float64(time.Second) / float64(d)
}

// Rate returns pulses a second as people read it: power for energy, else units an hour, or pulses a minute.
func (c MeterConfig) Rate(perSecond float64) Value {
	units := perSecond * 3600 / float64(max(c.PulsesPerUnit, 1)) // an hour
	switch c.Unit {
	case "kwh":
		return Value{Name: "power_watts", Number: units * 1000, Precision: 1}
	case "wh":
		return Value{Name: "power_watts", Number: units, Precision: 1}
	case "":
		return Value{Name: "pulses_per_minute", Number: perSecond * 60, Precision: 2}
	}
	return Value{Name: "flow_" + c.Unit + "_per_hour", Number: units, Precision: 3}
}

// fastFor is how long a pulse that came too soon is reported.
const fastFor = time.Minute

// Fault returns what is wrong with the pulses at the time now, or "".
func (m *Meter) Fault(now, started time.Duration) string {
	if m.fast > 0 && now-m.fastAt < fastFor {
		return fmt.Sprintf("pulses only %v apart: bouncing contact or a rate above max_rate; raise debounce, or check the wiring", m.fast.Round(time.Microsecond))
	}
	if idle := now - max(m.lastEdge, started); m.cfg.StuckAfter > 0 && idle > m.cfg.StuckAfter {
		return fmt.Sprintf("no pulse for %v (stuck_after %v): check the meter and its wire", idle.Round(time.Second), m.cfg.StuckAfter)
	}
	return ""
}

// FormatUnits writes pulses as units with as many decimals as a pulse needs, without floating point.
func FormatUnits(pulses uint64, perUnit int64) string {
	per := uint64(max(perUnit, 1))
	whole, rest := pulses/per, pulses%per
	digits := 0
	for p := uint64(1); p < per; p *= 10 {
		digits++
	}
	if digits == 0 {
		return fmt.Sprintf("%d", whole)
	}
	scale := uint64(1)
	for range digits {
		scale *= 10
	}
	return fmt.Sprintf("%d.%0*d", whole, digits, rest*scale/per)
}
