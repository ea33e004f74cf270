package wire

import "encoding/binary"

// Make builds a packet from its type, its four flag bits and its body.
func Make(kind, flags byte, body []byte) Packet {
	raw := []byte{kind<<4 | flags}
	for n := len(body); ; n >>= 7 {
		if n < 0x80 {
			raw = append(raw, byte(n))
			break
		}
		raw = append(raw, byte(n)|0x80)
	}
	return Packet{Raw: append(raw, body...), head: len(raw)}
}

// Connect opens a session. KeepAlive is in seconds.
func Connect(clientID string, clean bool, keepAlive uint16) Packet {
	flags := byte(0)
	if clean {
		flags = 2
	}
	body := append(str("MQTT"), 4, flags)
	body = binary.BigEndian.AppendUint16(body, keepAlive)
	return Make(CONNECT, 0, append(body, str(clientID)...))
}

// Subscribe asks for one filter.
func Subscribe(id uint16, filter string, qos byte) Packet {
	body := binary.BigEndian.AppendUint16(nil, id)
	return Make(SUBSCRIBE, 2, append(append(body, str(filter)...), qos))
}

// Publish sends a message; id counts only above QoS 0.
func Publish(id uint16, topic string, payload []byte, qos byte, retain bool) Packet {
	body := str(topic)
	flags := qos << 1
	if retain {
		flags |= 1
	}
	if qos > 0 {
		body = binary.BigEndian.AppendUint16(body, id)
	}
	return Make(PUBLISH, flags, append(body, payload...))
}

// Ack makes PUBACK, PUBREC, PUBREL or PUBCOMP.
func Ack(kind byte, id uint16) Packet {
	flags := byte(0)
	if kind == PUBREL {
		flags = 2 // MQTT 3.1.1 section 3.6.1
	}
	return Make(kind, flags, binary.BigEndian.AppendUint16(nil, id))
}

// Ping and Disconnect have no body.
func Ping() Packet       { return Make(PINGREQ, 0, nil) }
func Disconnect() Packet { return Make(DISCONNECT, 0, nil) }

func str(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}
