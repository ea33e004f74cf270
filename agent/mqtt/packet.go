package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Packet types (MQTT 3.1.1 section 2.2.1).
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

var typeNames = [16]string{"reserved 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}

// ErrProtocol is returned when the broker sends what MQTT forbids. The connection is closed.
var ErrProtocol = errors.New("the broker breaks the MQTT protocol")

func protocol(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// tooLong is the error of readPacket for a packet above its limit; its body is not read yet.
type tooLong struct {
	first       byte
	length, max int
}

func (t tooLong) Error() string {
	remedy := ""
	if t.first>>4 == typePublish {
		remedy = " (mqtt.max_packet)"
	}
	return protocol("%s of %d bytes, the limit is %d%s", typeNames[t.first>>4], t.length, t.max, remedy).Error()
}

func (t tooLong) Is(target error) bool { return target == ErrProtocol }

// shorten reads the body of a PUBLISH that is too long and returns the packet without the end of its payload. Whoever gets it sees at once that it is too
// long, since a payload never fills the limit otherwise; and can confirm it, else the broker would send it again on each connection, for ever.
func (t tooLong) shorten(r *bufio.Reader, buf []byte) (packet []byte, body int, err error) {
	buf = appendLength(append(buf[:0], t.first), t.max)
	body = len(buf)
	if cap(buf) < body+t.max {
		buf = append(make([]byte, 0, body+t.max), buf...)
	}
	buf = buf[:body+t.max]
	if _, err := io.ReadFull(r, buf[body:]); err != nil {
		return nil, 0, unexpected(err)
	}
	if _, err := io.CopyN(io.Discard, r, int64(t.length-t.max)); err != nil {
		return nil, 0, unexpected(err)
	}
	return buf, body, nil
}

// readPacket reads one packet into buf, which grows only as far as limit allows for its type.
func readPacket(r *bufio.Reader, buf []byte, limit func(kind byte) int) (packet []byte, body int, err error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, 0, err
	}
	buf = append(buf[:0], first)
	length, shift := 0, 0
	for {
		b, err := r.ReadByte()
		if err != nil {
			return nil, 0, unexpected(err)
		}
		buf = append(buf, b)
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift += 7; shift > 21 {
			return nil, 0, protocol("the length of a %s has more than four bytes", typeNames[first>>4])
		}
	}
	if max := limit(first >> 4); length > max {
		return buf, 0, tooLong{first, length, max}
	}
	body = len(buf)
	if cap(buf) < body+length {
		buf = append(make([]byte, 0, body+length), buf...)
	}
	buf = buf[:body+length]
	if _, err := io.ReadFull(r, buf[body:]); err != nil {
		return nil, 0, unexpected(err)
	}
	return buf, body, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendLength(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendPublish encodes a PUBLISH (section 3.3).
func appendPublish(b []byte, p Publish) []byte {
	first := byte(typePublish<<4) | p.QoS<<1
	if p.Dup {
		first |= 8
	}
	if p.Retain {
		first |= 1
	}
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		n += 2
	}
	b = appendLength(append(b, first), n)
	b = appendString(b, p.Topic)
	if p.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, p.ID)
	}
	return append(b, p.Payload...)
}

// appendAck encodes PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
func appendAck(b []byte, kind byte, id uint16) []byte {
	flags := byte(0)
	if kind == typePubrel {
		flags = 2
	}
	return binary.BigEndian.AppendUint16(append(b, kind<<4|flags, 2), id)
}

// appendSubscribe encodes a SUBSCRIBE (section 3.8).
func appendSubscribe(b []byte, id uint16, subs []Subscription) []byte {
	n := 2
	for _, s := range subs {
		n += 3 + len(s.Filter)
	}
	b = appendLength(append(b, typeSubscribe<<4|2), n)
	b = binary.BigEndian.AppendUint16(b, id)
	for _, s := range subs {
		b = append(appendString(b, s.Filter), s.QoS)
	}
	return b
}

// legalText says whether s is a string as MQTT allows it (section 1.5.3, in MQTT 5 section 1.5.4).
func legalText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// checkTopic says whether a topic of a received PUBLISH is legal (sections 1.5.3, 3.3.2.1 and 4.7).
func checkTopic(topic string) error {
	switch {
	case topic == "":
		return protocol("PUBLISH with an empty topic")
	case !legalText(topic):
		return protocol("PUBLISH with a topic that is not UTF-8 text")
	case strings.ContainsAny(topic, "#+"):
		return protocol("PUBLISH with wildcards in its topic")
	}
	return nil
}
