package agent

import "time"

const (
	closeSoon    = 5 * time.Second // a connection that the broker ends this soon after a row was sent is held against the row
	closeTimes   = 5               // so often in a row: the row goes alone from then on
	closeAlone   = 3               // so often alone, on a connection that had stood still before: the session is thrown away; so often once more: the row is to blame
	isolateAfter = 2 * time.Second // how long the connection must stand before the row goes alone
)

// escape is the way out when a broker closes the connection each time the same row is sent: some brokers do that for a message they
// cannot take, and the whole outbox would stand still for ever. A bad line looks the same, so nothing is thrown away before the row
// went alone over connections that lived until it was sent: first the broker's session, which may be what is in the way, then the row.
type escape struct {
	seq      uint64
	strikes  int
	isolated bool
	fresh    bool // the session was thrown away for it
	condemn  bool
}

// ending is how a connection ended for its oldest unfinished row.
type ending struct {
	first    uint64        // the row; 0 none
	sent     bool          // it went out on this connection
	after    time.Duration // from then to the end
	progress bool          // the broker confirmed something
	hungUp   bool          // the other end closed; not ourselves, for lack of a sign of life or because we were asked to
}

// ended takes the end of a connection. forget says that the broker's session should be thrown away before the next one.
func (e *escape) ended(c ending) (forget bool) {
	switch {
	case c.progress:
		*e = escape{}
		return false
	case !c.hungUp:
		return false
	case e.isolated && !c.sent:
		e.strikes = 0 // it ends without the row, too
		return false
	case !c.sent || c.after > closeSoon: // no evidence
		return false
	case c.first != e.seq:
		*e = escape{seq: c.first}
	}
	e.strikes++
	switch {
	case !e.isolated && e.strikes >= closeTimes:
		e.isolated, e.strikes = true, 0
	case e.isolated && !e.fresh && e.strikes >= closeAlone:
		e.fresh, e.strikes = true, 0
		return true
	case e.fresh && e.strikes >= closeAlone:
		e.condemn = true
	}
	return false
}
