package agent

import (
	"sort"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// A flight is one row between its first PUBLISH on a connection and the broker's last word.
type flight struct {
	seq   uint64
	qos   byte
	state flightState
	bytes int

	reason byte // the broker's first word when it was no plain success (MQTT 5)
}

type flightState byte

const (
	flightSent     flightState = iota // PUBLISH is out
	flightReceived                    // PUBREC is in, its mark not yet on disk
	flightMarked                      // the mark is on disk, PUBREL is out
	flightHeld                        // the broker can only do QoS 1
	flightRefused                     // the broker refused it; it becomes a dead letter
	flightDone
)

// step is what to do with a row that enters the window.
type step byte

const (
	stepPublish step = iota
	stepRepeat       // PUBLISH with DUP
	stepRelease      // PUBREL
	stepDone         // nothing: it is finished
)

// verdict is what an acknowledgement means.
type verdict byte

const (
	ackNothing   verdict = iota // stale; ignore it
	ackProgress                 // a row came forward: look at markable and take
	ackRelease                  // answer PUBREL: the broker waits for one
	ackRefused                  // the broker refuses the row
	ackDowngrade                // PUBACK for QoS 2: the broker delivers at QoS 1
	ackViolation                // the broker breaks the protocol
)

// window is the engine's state for one connection: which rows are at the broker, and how far each has come. It does no I/O and reads no clock.
//
// Rows enter in sequence order and leave in sequence order. All rows in it have the same QoS, since the broker's order holds only among equals.
// A PUBREL is due only for rows up to the mark on disk, and in order.
type window struct {
	size      int    // most rows
	maxBytes  int    // most bytes, but always room for one row
	released  uint64 // durable: QoS 2 rows up to here have their PUBREC
	loaded    uint64 // newest row that entered; older ones that are not in rows are finished
	horizon   uint64 // rows up to here may have been sent before in this session of the broker's
	downgrade bool   // PUBACK finishes a QoS 2 row
	rows      []flight
	bytes     int
}

// newWindow starts a connection at pos. horizon is the newest row that this session of the broker's may know, 0 in a new session.
func newWindow(pos queue.Position, size, maxBytes int, horizon uint64, downgrade bool) *window {
	return &window{size: max(size, 1), maxBytes: maxBytes, released: pos.Released, loaded: pos.Acked, horizon: horizon, downgrade: downgrade}
}

// packetID is a function of the row: a restart gives it the same one, and rows that are in flight together never share one.
func packetID(seq uint64) uint16 { return uint16(mqtt.FirstID + seq%mqtt.IDs) }

// room says whether a row may enter now.
func (w *window) room(seq uint64, qos byte, size int) bool {
	if len(w.rows) == 0 {
		return true
	}
	return len(w.rows) < w.size && w.bytes+size <= w.maxBytes &&
		w.rows[len(w.rows)-1].qos == qos && // else a QoS 1 row would overtake QoS 2 rows
		seq-w.rows[0].seq < mqtt.IDs/2
}

// add takes the next row in and says what to send for it. There must be room.
func (w *window) add(f flight) step {
	w.loaded = f.seq
	s := stepPublish
	switch {
	case f.seq <= w.released && f.qos == 2:
		f.state, s = flightMarked, stepRelease
	case f.seq <= w.released:
		f.state, s = flightDone, stepDone // a QoS 2 row after it has its PUBREC, and was only sent when this one was finished
	case f.seq <= w.horizon:
		s = stepRepeat
	}
	w.rows = append(w.rows, f)
	w.bytes += f.bytes
	return s
}

// find returns the row with a packet id.
func (w *window) find(id uint16) *flight {
	if len(w.rows) == 0 || id < mqtt.FirstID {
		return nil
	}
	seq := nextWithID(w.rows[0].seq, id)
	i := sort.Search(len(w.rows), func(i int) bool { return w.rows[i].seq >= seq })
	if i == len(w.rows) || w.rows[i].seq != seq {
		return nil
	}
	return &w.rows[i]
}

// nextWithID returns the first sequence from seq on that has a packet id.
func nextWithID(seq uint64, id uint16) uint64 {
	return seq + (uint64(id-mqtt.FirstID)+mqtt.IDs-seq%mqtt.IDs)%mqtt.IDs
}

// ack takes an acknowledgement from the wire. seq is the row it is for, 0 when there is none.
func (w *window) ack(a mqtt.Ack) (v verdict, seq uint64) {
	f := w.find(a.ID)
	if f == nil {
		if a.Kind == mqtt.Pubrec && a.Reason < 0x80 && !w.expected(a.ID) {
			return ackRelease, 0
		}
		return ackNothing, 0
	}
	if f.state == flightSent {
		f.reason = a.Reason
	}
	switch a.Kind {
	case mqtt.Puback:
		return w.puback(f, a.Reason), f.seq
	case mqtt.Pubrec:
		return w.pubrec(f, a.Reason), f.seq
	case mqtt.Pubcomp:
		switch f.state {
		case flightMarked:
			f.state = flightDone
			return ackProgress, f.seq
		case flightDone:
			return ackNothing, f.seq
		}
		return ackViolation, f.seq // nothing was released yet
	}
	return ackViolation, f.seq
}

// expected says whether a row that did not enter yet has this packet id and may have been sent before: its PUBREC is not ours to
// answer now. The PUBLISH that is still to come will be confirmed again, and only then the mark and the PUBREL follow.
func (w *window) expected(id uint16) bool {
	return id >= mqtt.FirstID && nextWithID(w.loaded+1, id) <= w.horizon
}

func (w *window) puback(f *flight, reason byte) verdict {
	switch {
	case f.qos == 2 && f.state != flightSent:
		return ackViolation
	case f.qos == 2 && reason >= 0x80, f.qos == 1 && reason >= 0x80 && f.state == flightSent:
		f.state = flightRefused
		return ackRefused
	case f.qos == 2 && !w.downgrade:
		f.state = flightHeld
		return ackDowngrade
	case f.state == flightSent:
		down := f.qos == 2
		f.state = flightDone
		if down {
			return ackDowngrade
		}
		return ackProgress
	}
	return ackNothing
}

func (w *window) pubrec(f *flight, reason byte) verdict {
	switch {
	case f.qos == 1:
		return ackViolation
	case f.state == flightSent && reason >= 0x80:
		f.state = flightRefused
		return ackRefused
	case f.state == flightSent:
		f.state = flightReceived
		return ackProgress
	case f.state == flightMarked, f.state == flightDone:
		return ackRelease
	}
	return ackNothing // its mark is on the way
}

// markable returns the sequence up to which every QoS 2 row has its PUBREC; it is above released when a mark is due.
func (w *window) markable() uint64 {
	through := w.released
	for i := range w.rows {
		f := &w.rows[i]
		if f.qos != 2 || f.state == flightSent || f.state == flightHeld || f.state == flightRefused {
			break
		}
		through = max(through, f.seq)
	}
	return through
}

// marked notes that the mark is on disk and appends to ids the packet ids to release, in order.
func (w *window) marked(through uint64, ids []uint16) []uint16 {
	w.released = max(w.released, through)
	for i := range w.rows {
		f := &w.rows[i]
		if f.seq > through {
			break
		}
		if f.state == flightReceived {
			f.state = flightMarked
			ids = append(ids, packetID(f.seq))
		}
	}
	return ids
}

// finish ends a row without the broker: it is a dead letter now.
func (w *window) finish(seq uint64) {
	for i := range w.rows {
		if w.rows[i].seq == seq {
			w.rows[i].state = flightDone
		}
	}
}

// take removes the finished rows at the front and returns them. They are valid until the next add.
func (w *window) take() []flight {
	n := 0
	for n < len(w.rows) && w.rows[n].state == flightDone {
		w.bytes -= w.rows[n].bytes
		n++
	}
	done := w.rows[:n:n]
	w.rows = w.rows[n:]
	return done
}

// first returns the oldest row that is not finished, 0 when there is none.
func (w *window) first() uint64 {
	for i := range w.rows {
		if w.rows[i].state != flightDone {
			return w.rows[i].seq
		}
	}
	return 0
}
