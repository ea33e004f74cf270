package queue

import "encoding/binary"

// Position is what the broker has confirmed.
type Position struct {
	Acked    uint64 // every row up to here is finished
	Released uint64 // every QoS 2 row up to here has its PUBREC on disk; never below Acked
	Last     uint64 // newest row
	Session  string // broker session that Released belongs to; "" none yet
}

// mark is Position on disk, with the highest sequence that rows no longer show.
type mark struct {
	Position
	floor uint64 // rows up to here existed, whatever was purged
	epoch uint64 // rises when Released falls back or changes its session; slots of another epoch do not count
}

var markKey = []byte("mark")

func (m mark) encode() []byte {
	b := binary.AppendUvarint(nil, m.Acked)
	b = binary.AppendUvarint(b, m.Released)
	b = binary.AppendUvarint(b, m.floor)
	b = appendBytes(b, []byte(m.Session))
	return binary.AppendUvarint(b, m.epoch)
}

func parseMark(v []byte) (mark, error) {
	d := decoder{b: v}
	var m mark
	m.Acked = d.uvarint()
	m.Released = d.uvarint()
	m.floor = d.uvarint()
	m.Session = string(d.bytes())
	if len(d.b) > 0 { // as format 1 always has it now; the first states had none
		m.epoch = d.uvarint()
	}
	if d.bad || len(d.b) != 0 || m.Released < m.Acked {
		return mark{}, errDamaged
	}
	return m, nil
}

// mark returns what is committed; the caller holds mu.
func (m *memory) mark() mark { return mark{m.pos, m.floor, m.epoch} }
