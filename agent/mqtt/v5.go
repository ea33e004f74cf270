package mqtt

import (
	"encoding/binary"
	"fmt"
)

// Properties are those of a PUBLISH (MQTT 5.0 section 3.3.2.3). A broker that speaks 3.1.1 does not get them.
type Properties struct {
	PayloadFormat byte // 1: the payload is UTF-8 text
	Expiry        uint32
	ContentType   string
	ResponseTopic string
	Correlation   []byte
	User          [][2]string
}

// Property identifiers (section 2.2.2.2).
const (
	propPayloadFormat   = 1
	propExpiry          = 2
	propContentType     = 3
	propResponseTopic   = 8
	propCorrelation     = 9
	propSubscriptionID  = 11
	propSessionExpiry   = 17
	propAssignedClient  = 18
	propServerKeepalive = 19
	propAuthMethod      = 21
	propAuthData        = 22
	propResponseInfo    = 26
	propServerReference = 28
	propReasonString    = 31
	propReceiveMaximum  = 33
	propAliasMaximum    = 34
	propTopicAlias      = 35
	propMaximumQoS      = 36
	propRetainAvailable = 37
	propUser            = 38
	propMaximumPacket   = 39
	propWildcards       = 40
	propSubscriptionIDs = 41
	propShared          = 42
)

// appendTo encodes the properties of a PUBLISH, without their length.
func (p *Properties) appendTo(b []byte) []byte {
	if p == nil {
		return b
	}
	if p.PayloadFormat != 0 {
		b = append(b, propPayloadFormat, p.PayloadFormat)
	}
	if p.Expiry != 0 {
		b = binary.BigEndian.AppendUint32(append(b, propExpiry), p.Expiry)
	}
	if p.ContentType != "" {
		b = appendString(append(b, propContentType), p.ContentType)
	}
	if p.ResponseTopic != "" {
		b = appendString(append(b, propResponseTopic), p.ResponseTopic)
	}
	if len(p.Correlation) > 0 {
		b = appendString(append(b, propCorrelation), string(p.Correlation))
	}
	for _, u := range p.User {
		b = appendString(appendString(append(b, propUser), u[0]), u[1])
	}
	return b
}

// appendPublish5 encodes a PUBLISH (MQTT 5.0 section 3.3); props are encoded already.
func appendPublish5(b []byte, p Publish, props []byte) []byte {
	first := byte(typePublish<<4) | p.QoS<<1
	if p.Dup {
		first |= 8
	}
	if p.Retain {
		first |= 1
	}
	n := 2 + len(p.Topic) + lengthOf(len(props)) + len(props) + len(p.Payload)
	if p.QoS > 0 {
		n += 2
	}
	b = appendString(appendLength(append(b, first), n), p.Topic)
	if p.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, p.ID)
	}
	b = append(appendLength(b, len(props)), props...)
	return append(b, p.Payload...)
}

// lengthOf is the number of bytes that a variable byte integer takes.
func lengthOf(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

// ErrTooLarge is returned by Send for a message above the broker's Maximum Packet Size. It is not sent; the connection stays.
type ErrTooLarge struct{ Size, Max int }

func (e *ErrTooLarge) Error() string {
	return fmt.Sprintf("too large for the broker: a packet of %d bytes, it takes %d", e.Size, e.Max)
}

// propertyIn says in which packets of a broker a property may stand (section 2.2.2.2), and its shape.
var propertyIn = map[byte]struct {
	kinds uint16
	shape byte // 1, 2, 4 bytes; 's' text; 'b' bytes; 'p' a pair of texts; 'v' a variable byte integer
}{
	propPayloadFormat: {1 << typePublish, 1}, propExpiry: {1 << typePublish, 4}, propContentType: {1 << typePublish, 's'},
	propResponseTopic: {1 << typePublish, 's'}, propCorrelation: {1 << typePublish, 'b'}, propSubscriptionID: {1 << typePublish, 'v'}, propTopicAlias: {1 << typePublish, 2},
	propSessionExpiry: {1 << typeConnack, 4}, propAssignedClient: {1 << typeConnack, 's'}, propServerKeepalive: {1 << typeConnack, 2},
	propAuthMethod: {1<<typeConnack | 1<<typeAuth, 's'}, propAuthData: {1<<typeConnack | 1<<typeAuth, 'b'}, propResponseInfo: {1 << typeConnack, 's'},
	propServerReference: {1<<typeConnack | 1<<typeDisconnect, 's'}, propReceiveMaximum: {1 << typeConnack, 2}, propAliasMaximum: {1 << typeConnack, 2},
	propMaximumQoS: {1 << typeConnack, 1}, propRetainAvailable: {1 << typeConnack, 1}, propMaximumPacket: {1 << typeConnack, 4},
	propWildcards: {1 << typeConnack, 1}, propSubscriptionIDs: {1 << typeConnack, 1}, propShared: {1 << typeConnack, 1},
	propReasonString: {1<<typeConnack | 1<<typePuback | 1<<typePubrec | 1<<typePubrel | 1<<typePubcomp | 1<<typeSuback | 1<<typeUnsuback | 1<<typeDisconnect | 1<<typeAuth, 's'},
	propUser:         {0xffff, 'p'},
}

// cutProperties checks the properties at the start of b and returns them with their length, and what follows. Each is of a known kind, at home in this packet, whole, and
// there only once: what comes behind it can be decoded by anyone.
func cutProperties(kind byte, b []byte) (props, rest []byte, err error) {
	n, size, ok := varint(b)
	if !ok || n > len(b)-size {
		return nil, nil, protocol("%s whose properties are longer than the packet", typeNames[kind])
	}
	props, rest = b[:size+n], b[size+n:]
	seen := uint64(0)
	for p := props[size:]; len(p) > 0; {
		id := p[0]
		rule, known := propertyIn[id]
		switch {
		case !known || rule.kinds>>kind&1 == 0:
			return nil, nil, protocol("%s with property %d", typeNames[kind], id)
		case seen>>id&1 == 1 && id != propUser && id != propSubscriptionID:
			return nil, nil, protocol("%s with property %d twice", typeNames[kind], id)
		}
		seen |= 1 << id
		n := propertyLength(rule.shape, p[1:])
		if n < 0 {
			return nil, nil, protocol("%s with a broken property %d", typeNames[kind], id)
		}
		p = p[1+n:]
	}
	return props, rest, nil
}

// propertyLength is the length of a value, -1 when it is not whole or not legal.
func propertyLength(shape byte, p []byte) int {
	text := func(p []byte, utf8 bool) int {
		if len(p) < 2 {
			return -1
		}
		n := 2 + int(binary.BigEndian.Uint16(p))
		if n > len(p) || utf8 && !legalText(string(p[2:n])) {
			return -1
		}
		return n
	}
	n := int(shape)
	switch shape {
	case 's':
		n = text(p, true)
	case 'b':
		n = text(p, false)
	case 'p':
		if n = text(p, true); n >= 0 {
			if m := text(p[n:], true); m < 0 {
				n = -1
			} else {
				n += m
			}
		}
	case 'v':
		v, size, ok := varint(p)
		if !ok || v == 0 {
			return -1
		}
		n = size
	}
	if n > len(p) {
		return -1
	}
	return n
}

// varint reads a variable byte integer (section 1.5.5).
func varint(b []byte) (n, size int, ok bool) {
	for size < len(b) && size < 4 {
		n |= int(b[size]&0x7f) << (7 * size)
		size++
		if b[size-1] < 0x80 {
			return n, size, true
		}
	}
	return 0, 0, false
}
