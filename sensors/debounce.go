package sensors

import "time"

// Debouncer lets a level through only when it has held for Period: for lines whose kernel or chip cannot do it.
// It has no timer of its own: feed it every edge, and ask Settle when Due is over.
type Debouncer struct {
	Period  time.Duration
	stable  bool
	pending bool
	edge    Edge
}

// NewDebouncer starts from the level that the line has now.
func NewDebouncer(period time.Duration, level bool) *Debouncer {
	return &Debouncer{Period: period, stable: level}
}

// Feed takes one raw edge. What had held long enough before it is returned.
func (d *Debouncer) Feed(e Edge) (Edge, bool) {
	out, ok := d.Settle(e.At)
	d.pending = e.Active != d.stable
	d.edge = e
	return out, ok
}

// Settle returns the pending edge when its level has held for Period at the time now; its time is that of the edge itself.
func (d *Debouncer) Settle(now time.Duration) (Edge, bool) {
	if !d.pending || now-d.edge.At < d.Period {
		return Edge{}, false
	}
	d.pending = false
	d.stable = d.edge.Active
	return d.edge, true
}

// Due says when Settle may have something to return.
func (d *Debouncer) Due() (at time.Duration, ok bool) { return d.edge.At + d.Period, d.pending }
