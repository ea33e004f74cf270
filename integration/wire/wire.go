// Package wire reads and writes raw MQTT 3.1.1 packets for the judges: the verifying consumer and the proxy.
// It is written from the standard and shares no code with the agent or with any client library.
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Packet types, MQTT 3.1.1 section 2.2.1.
const (
	CONNECT byte = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
)

var names = [16]string{"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

// Name is the standard's name of a packet type.
func Name(kind byte) string { return names[kind&15] }

// Packet is one packet as it stood on the wire.
type Packet struct {
	Raw  []byte // all of it, fixed header included
	head int    // length of the fixed header
}

// Read takes one packet of at most max bytes.
func Read(r *bufio.Reader, max int) (Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return Packet{}, err
	}
	raw := []byte{first}
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return Packet{}, noEOF(err)
		}
		raw = append(raw, b)
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return Packet{}, fmt.Errorf("remaining length of %s has more than four bytes", Name(first>>4))
		}
	}
	head := len(raw)
	if head+length > max {
		return Packet{}, fmt.Errorf("%s of %d bytes, limit %d", Name(first>>4), head+length, max)
	}
	raw = append(raw, make([]byte, length)...)
	if _, err := io.ReadFull(r, raw[head:]); err != nil {
		return Packet{}, noEOF(err)
	}
	return Packet{Raw: raw, head: head}, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Type is one of the constants above.
func (p Packet) Type() byte { return p.Raw[0] >> 4 }

// Dup, QoS and Retain are the flags of a PUBLISH.
func (p Packet) Dup() bool    { return p.Raw[0]&8 != 0 }
func (p Packet) QoS() byte    { return p.Raw[0] >> 1 & 3 }
func (p Packet) Retain() bool { return p.Raw[0]&1 != 0 }

func (p Packet) body() []byte { return p.Raw[p.head:] }

// ID is the packet identifier, 0 for packets that have none.
func (p Packet) ID() uint16 {
	body, at := p.body(), 0
	switch p.Type() {
	case PUBLISH:
		if p.QoS() == 0 || len(body) < 2 {
			return 0
		}
		at = 2 + int(binary.BigEndian.Uint16(body))
	case PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK:
	default:
		return 0
	}
	if len(body) < at+2 {
		return 0
	}
	return binary.BigEndian.Uint16(body[at:])
}

// Topic and Payload belong to a PUBLISH.
func (p Packet) Topic() string {
	topic, _ := p.publish()
	return topic
}

// Payload is what follows the header of a PUBLISH.
func (p Packet) Payload() []byte {
	_, payload := p.publish()
	return payload
}

func (p Packet) publish() (topic string, payload []byte) {
	body := p.body()
	if p.Type() != PUBLISH || len(body) < 2 {
		return "", nil
	}
	n := 2 + int(binary.BigEndian.Uint16(body))
	if p.QoS() > 0 {
		n += 2
	}
	if len(body) < n {
		return "", nil
	}
	return string(body[2 : 2+int(binary.BigEndian.Uint16(body))]), body[n:]
}

// SessionPresent and Code belong to a CONNACK.
func (p Packet) SessionPresent() bool {
	return p.Type() == CONNACK && len(p.body()) > 1 && p.body()[0]&1 != 0
}

// Code is the return code of a CONNACK, or the last one of a SUBACK.
func (p Packet) Code() byte {
	body := p.body()
	if len(body) == 0 {
		return 0xff
	}
	return body[len(body)-1]
}

// ClientID is what a CONNECT says it is.
func (p Packet) ClientID() string {
	body := p.body()
	if p.Type() != CONNECT || len(body) < 2 {
		return ""
	}
	at := 2 + int(binary.BigEndian.Uint16(body)) + 4 // protocol name, level, flags, keepalive
	if len(body) > at && body[at-4] == 5 {
		_, n := properties(body[at:])
		at += n
	}
	if len(body) < at+2 {
		return ""
	}
	n := int(binary.BigEndian.Uint16(body[at:]))
	if len(body) < at+2+n {
		return ""
	}
	return string(body[at+2 : at+2+n])
}

// CleanSession is the flag of a CONNECT.
func (p Packet) CleanSession() bool {
	body := p.body()
	return p.Type() == CONNECT && len(body) > 7 && body[7]&2 != 0
}

// String is one line of a wire log: type, flags, packet id, size.
func (p Packet) String() string {
	s := fmt.Sprintf("%s id=%d", Name(p.Type()), p.ID())
	switch p.Type() {
	case PUBLISH:
		s += fmt.Sprintf(" qos=%d dup=%t topic=%s", p.QoS(), p.Dup(), p.Topic())
	case CONNACK:
		s += fmt.Sprintf(" present=%t code=%d", p.SessionPresent(), p.Code())
	case CONNECT:
		s += " client=" + p.ClientID()
	}
	return s
}
