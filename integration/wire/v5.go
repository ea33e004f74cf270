package wire

import (
	"encoding/binary"
	"fmt"
)

// Property is one property of an MQTT 5 packet, as its number and its bytes on the wire.
type Property struct {
	ID    byte
	Value []byte    // of a number or a string, without its length
	Pair  [2]string // of a user property
}

// Number is the value of a property that is one.
func (p Property) Number() int {
	n := 0
	for _, b := range p.Value {
		n = n<<8 | int(b)
	}
	return n
}

// sizes of properties by number, MQTT 5.0 section 2.2.2.2: bytes; 0 a string, -1 a pair, -2 a variable byte integer.
var sizes = map[byte]int{1: 1, 2: 4, 3: 0, 8: 0, 9: 0, 11: -2, 17: 4, 18: 0, 19: 2, 21: 0, 22: 0, 23: 1, 24: 4, 25: 1, 26: 0, 28: 0, 31: 0, 33: 2, 34: 2, 35: 2, 36: 1, 37: 1, 38: -1, 39: 4, 40: 1, 41: 1, 42: 1}

// Properties5 are the properties of a packet of an MQTT 5 connection.
func (p Packet) Properties5() []Property {
	body, at := p.body(), 0
	switch p.Type() {
	case CONNECT:
		at = 10
	case CONNACK:
		at = 2
	case PUBLISH:
		if len(body) < 2 {
			return nil
		}
		at = 2 + int(binary.BigEndian.Uint16(body))
		if p.QoS() > 0 {
			at += 2
		}
	case SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK:
		at = 2
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		at = 3
	case DISCONNECT:
		at = 1
	}
	if len(body) < at {
		return nil
	}
	list, _ := properties(body[at:])
	return list
}

// Payload5 is the payload of a PUBLISH of an MQTT 5 connection.
func (p Packet) Payload5() []byte {
	_, rest := p.publish()
	_, n := properties(rest)
	return rest[n:]
}

// Get is the value of the first property with a number, nil when there is none.
func (p Packet) Get(id byte) *Property {
	for _, x := range p.Properties5() {
		if x.ID == id {
			return &x
		}
	}
	return nil
}

// properties reads a property block and says how long it is; what cannot be read ends the list.
func properties(b []byte) (list []Property, n int) {
	length, at := vbi(b)
	n = min(at+length, len(b))
	for b = b[at:n]; len(b) > 1; {
		x := Property{ID: b[0]}
		size, known := sizes[b[0]]
		b = b[1:]
		switch {
		case !known:
			return append(list, Property{ID: x.ID, Value: []byte(fmt.Sprintf("unknown %x", b))}), n
		case size == 0:
			x.Value, b = text(b)
		case size == -1:
			var k, v []byte
			k, b = text(b)
			v, b = text(b)
			x.Pair = [2]string{string(k), string(v)}
		case size == -2:
			v, used := vbi(b)
			x.Value, b = binary.BigEndian.AppendUint32(nil, uint32(v)), b[used:]
		case len(b) < size:
			return list, n
		default:
			x.Value, b = b[:size], b[size:]
		}
		list = append(list, x)
	}
	return list, n
}

func text(b []byte) (s, rest []byte) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil, nil
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:]
}

// vbi reads a variable byte integer, section 1.5.5.
func vbi(b []byte) (v, used int) {
	for used < len(b) && used < 4 {
		v |= int(b[used]&0x7f) << (7 * used)
		used++
		if b[used-1] < 0x80 {
			break
		}
	}
	return v, used
}
