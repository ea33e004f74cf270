package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"fieldagent/integration/wire"
)

// MQTT 5: properties in every packet, reasons in every answer.

// props frames properties with their length.
func props(b ...byte) []byte { return append(length(len(b)), b...) }

func length(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// publish5 is a PUBLISH whose body after the topic is rest: a packet id where there is one, properties, payload.
func publish5(flags byte, name string, rest ...byte) []byte {
	return wire.Make(wire.PUBLISH, flags, topic(name, rest...)).Raw
}

// told answers a kind of packet with one for its id.
func told(kind, qos, with, flags byte, more ...byte) func(*peer) error {
	return func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		got, err := p.await(kind, qos)
		if err != nil {
			return err
		}
		return hungUp(p.packet(with, flags, append(binary.BigEndian.AppendUint16(nil, got.ID()), more...)...), p)
	}
}

func connack(props ...byte) func(*peer) error {
	return before(wire.Make(wire.CONNACK, 0, append([]byte{0, 0}, props...)).Raw...)
}

// pair is a user property of n bytes.
func pair(n int) []byte {
	return append([]byte{0x26, 0, 1, 'k'}, append(binary.BigEndian.AppendUint16(nil, uint16(n)), bytes.Repeat([]byte{'v'}, n)...)...)
}

var attacks5 = []attack{
	{name: "a session that is not ours", run: before(0x20, 3, 1, 0, 0)},
	{name: "which is thrown away", run: thrownAway},
	{name: "nothing wrong", run: faithful},
	{name: "CONNACK of 256 MB", run: before(append([]byte{0x20}, huge...)...)},
	{name: "CONNACK of MQTT 3.1.1", run: before(0x20, 2, 0, 0)},
	{name: "CONNACK with properties longer than itself", run: before(0x20, 4, 0, 0, 0xff, 0x7f)},
	{name: "CONNACK with properties of 256 MB", run: then(connected, endless(append([]byte{0x20}, append(huge, append([]byte{0, 0}, huge...)...)...), pair(60000)))},
	{name: "CONNACK full of user properties", run: connack(props(bytes.Repeat(pair(60000), 30)...)...)},
	{name: "CONNACK with a property that is none", run: connack(props(0x7e, 1)...)},
	{name: "CONNACK with a property twice", run: connack(props(0x24, 1, 0x24, 1)...)},
	{name: "CONNACK with half a property", run: connack(props(0x11, 0, 0)...)},
	{name: "CONNACK with a receive maximum of 0", run: connack(props(0x21, 0, 0)...)},
	{name: "CONNACK with a largest packet of 0", run: connack(props(0x27, 0, 0, 0, 0)...)},
	{name: "CONNACK with a maximum QoS of 2", run: connack(props(0x24, 2)...)},
	{name: "CONNACK with retain available 7", run: connack(props(0x25, 7)...)},
	{name: "CONNACK with an unknown reason", run: before(0x20, 3, 0, 0x42, 0)},
	{name: "CONNACK, refused and yet with a session", run: before(0x20, 3, 1, 0x87, 0)},
	{name: "CONNACK with a reason that is no text", run: before(wire.Make(wire.CONNACK, 0, append([]byte{0, 0x87}, props(0x1f, 0, 2, 0xff, 0xfe)...)).Raw...)},
	{name: "CONNACK twice", run: after(0x20, 3, 0, 0, 0)},
	{name: "AUTH in place of CONNACK", run: before(0xf0, 2, 0x18, 0)},
	{name: "AUTH", run: after(0xf0, 0)},
	{name: "sent to another server that is none", run: before(wire.Make(wire.CONNACK, 0, append([]byte{0, 0x9c}, props(append([]byte{0x1c, 0, 9}, "not a url"...)...)...)).Raw...)},
	{name: "moved to a server that is not there", run: before(wire.Make(wire.CONNACK, 0, append([]byte{0, 0x9d}, props(append([]byte{0x1c, 0, 11}, "127.0.0.1:9"...)...)...)).Raw...)},
	{name: "garbage in place of CONNACK", run: before(random(1 << 16)...)},
	{name: "garbage", run: after(random(1 << 16)...)},
	{name: "zeros", run: after(make([]byte, 1<<16)...)},
	{name: "no CONNACK", run: then(connected, func(p *peer) error { return p.gone() })},

	{name: "SUBACK with more codes than asked for", run: told(wire.SUBSCRIBE, 0, wire.SUBACK, 0, 0, 2, 2, 2, 2, 2, 2)},
	{name: "SUBACK without codes", run: told(wire.SUBSCRIBE, 0, wire.SUBACK, 0, 0)},
	{name: "SUBACK without properties", run: told(wire.SUBSCRIBE, 0, wire.SUBACK, 0)},
	{name: "SUBACK with an unknown code", run: told(wire.SUBSCRIBE, 0, wire.SUBACK, 0, 0, 7)},
	{name: "SUBACK that nobody waits for", run: after(0x90, 4, 0x7f, 1, 0, 2)},

	{name: "PUBACK for a QoS 2 event that has its PUBREC", run: lateAck},
	{name: "PUBCOMP without PUBREC", run: told(wire.PUBLISH, 2, wire.PUBCOMP, 0)},
	{name: "PUBCOMP without PUBREC, with a reason", run: told(wire.PUBLISH, 2, wire.PUBCOMP, 0, 0x92, 0)},
	{name: "UNSUBACK for an event", run: told(wire.PUBLISH, 2, wire.UNSUBACK, 0, 0, 0)},
	{name: "SUBACK for an event", run: told(wire.PUBLISH, 2, wire.SUBACK, 0, 0, 2)},
	{name: "PUBREC with flags", run: told(wire.PUBLISH, 2, wire.PUBREC, 2)},
	{name: "PUBREC with properties longer than itself", run: told(wire.PUBLISH, 2, wire.PUBREC, 0, 0, 0x20, 0)},
	{name: "PUBREC with something behind its properties", run: told(wire.PUBLISH, 2, wire.PUBREC, 0, 0, 0, 1)},
	{name: "PUBREC with a property that it cannot have", run: told(wire.PUBLISH, 2, wire.PUBREC, 0, append([]byte{0}, props(0x23, 0, 1)...)...)},
	{name: "PUBREC with a reason of 256 MB", run: then(welcomed, endless(append([]byte{0x50}, huge...), []byte("x")))},
	{name: "PUBACK with packet id 0", run: after(0x40, 2, 0, 0)},
	{name: "PUBREL with wrong flags", run: after(0x60, 2, 0, 1)},

	{name: "PUBLISH of 256 MB", run: then(welcomed, endless(append([]byte{0x30}, huge...), []byte("x")))},
	{name: "PUBLISH above the limit", run: then(welcomed, endless([]byte{0x30, 0x80, 0x80, 0x40}, []byte("y")))},
	{name: "PUBLISH at QoS 3", run: after(publish5(6, command, 0, 1, 0, '{', '}')...)},
	{name: "PUBLISH with packet id 0", run: after(publish5(2, command, 0, 0, 0, '{', '}')...)},
	{name: "PUBLISH without properties", run: after(publish5(0, command)...)},
	{name: "PUBLISH with properties longer than itself", run: after(publish5(0, command, 0xff, 0xff, 0x7f)...)},
	{name: "PUBLISH with a length of properties that never ends", run: after(publish5(0, command, 0x80, 0x80, 0x80, 0x80, 0x80)...)},
	{name: "PUBLISH with a topic alias that was not offered", run: after(publish5(0, command, append(props(0x23, 0, 1), '{', '}')...)...)},
	{name: "PUBLISH with an alias in place of a topic", run: after(publish5(0, "", append(props(0x23, 0, 1), '{', '}')...)...)},
	{name: "PUBLISH with a subscription of 0", run: after(publish5(0, command, append(props(0x0b, 0), '{', '}')...)...)},
	{name: "PUBLISH with a content type twice", run: after(publish5(0, command, append(props(0x03, 0, 1, 'a', 0x03, 0, 1, 'b'), '{', '}')...)...)},
	{name: "a command with a response topic with wildcards", run: func(p *peer) error { // its sender is to blame, not the broker
		if err := p.welcome(); err != nil {
			return err
		}
		_ = p.SetDeadline(time.Now().Add(2 * time.Second))
		if err := p.send(publish5(0, command, append(props(0x08, 0, 3, 'a', '/', '#'), []byte(`{"id":"w"}`)...)...)...); err != nil {
			return err
		}
		for {
			got, err := wire.Read(p.in, 1<<22)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			if err != nil {
				return err
			}
			if got.Type() == wire.PUBLISH && got.Topic() == "a/#" {
				return errors.New("the agent answers on a topic with wildcards")
			}
		}
	}},
	{name: "PUBLISH with a response topic that is no text", run: after(publish5(0, command, append(props(0x08, 0, 2, 0xff, 0xfe), '{', '}')...)...)},
	{name: "PUBLISH with wildcards", run: after(publish5(0, "fieldagent/hostile/cmd/#", 0, '{', '}')...)},
	{name: "CONNECT from a broker", run: after(wire.Connect("x", true, 0).Raw...)},
	{name: "SUBSCRIBE from a broker", run: after(wire.Subscribe(1, "#", 2).Raw...)},
	{name: "DISCONNECT", run: after(0xe0, 2, 0x8e, 0)},
	{name: "DISCONNECT with properties longer than itself", run: after(0xe0, 3, 0x8e, 0x20, 0)},
	{name: "PINGRESP with a body", run: after(0xd0, 2, 0, 0)},

	{name: "flood of PUBACKs", run: flood(50000, func(i int) wire.Packet { return wire.Ack(wire.PUBACK, uint16(40000+i%20000)) })},
	{name: "flood of unknown PUBRECs", run: flood(50000, func(i int) wire.Packet { return wire.Ack(wire.PUBREC, uint16(40000+i%20000)) })},
	{name: "flood of PUBRELs", run: flood(50000, func(i int) wire.Packet { return wire.Ack(wire.PUBREL, uint16(1+i%60000)) })},
	{name: "flood of reasons", run: flood(5000, func(i int) wire.Packet {
		text := append([]byte{0x1f, 0x1d, 0x4c}, bytes.Repeat([]byte{'r'}, 7500)...)
		return wire.Make(wire.PUBACK, 0, append([]byte{0xa0, byte(i), 0x80}, props(text...)...))
	})},
	{name: "flood of commands", run: flood(300, func(i int) wire.Packet {
		return wire.Make(wire.PUBLISH, 2, topic(command, append([]byte{byte((i + 1) >> 8), byte(i + 1), 0}, random(2000)...)...))
	})},
	{name: "flood of large commands", run: flood(60, func(i int) wire.Packet {
		return wire.Make(wire.PUBLISH, 2, topic(command, append([]byte{0, byte(i + 1), 0}, random(100000)...)...))
	})},
	{name: "flood of large properties", run: flood(200, func(i int) wire.Packet {
		return wire.Make(wire.PUBLISH, 0, topic(command, append(props(bytes.Repeat(pair(1000), 90)...), '{', '}')...))
	})},
	{name: "messages that are never finished", run: func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- p.gone() }()
		for i := range 6000 {
			if p.send(publish5(4, "somebody/else", append([]byte{byte((i + 1) >> 8), byte(i + 1), 0}, random(1000)...)...)...) != nil {
				break
			}
		}
		return <-ended
	}},
	{name: "a broker that does not read", run: deaf},
}
