package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"fieldagent/integration/wire"
)

// attack is what one connection does to the agent. It returns nil when the agent did what it should, which is nearly always to hang up.
type attack struct {
	name string
	only string // scheme; all when empty
	raw  bool   // on the TCP connection, below TLS and WebSocket
	run  func(p *peer) error
}

// before sends bytes in place of CONNACK.
func before(b ...byte) func(*peer) error {
	return func(p *peer) error {
		if _, err := p.await(wire.CONNECT, 0); err != nil {
			return err
		}
		return hungUp(p.send(b...), p)
	}
}

// after lets the agent in and sends bytes.
func after(b ...byte) func(*peer) error {
	return func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		return hungUp(p.send(b...), p)
	}
}

// answer waits for an event at a QoS and answers with a packet for its id.
func answer(qos, kind, flags byte, more ...byte) func(*peer) error {
	return func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		e, err := p.await(wire.PUBLISH, qos)
		if err != nil {
			return err
		}
		return hungUp(p.packet(kind, flags, append(binary.BigEndian.AppendUint16(nil, e.ID()), more...)...), p)
	}
}

// hungUp is nil when the agent has closed the connection, or does so now.
func hungUp(err error, p *peer) error {
	if errors.Is(err, errEnded) {
		return nil
	}
	return errors.Join(err, p.gone())
}

// flood sends packets until the agent hangs up or has taken them all; both are well.
func flood(n int, packet func(i int) wire.Packet) func(*peer) error {
	return func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		go func() { _ = p.gone() }() // what the agent answers must not block it
		for i := range n {
			if err := p.send(packet(i).Raw...); err != nil {
				return nil
			}
		}
		return nil
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(b)
	return b
}

// endless sends a beginning and then the same for as long as the agent takes it, at most 600 MB.
func endless(begin, more []byte) func(*peer) error {
	return func(p *peer) error {
		err := p.send(begin...)
		block := bytes.Repeat(more, 1+(1<<16)/len(more))
		for sent := 0; err == nil && sent < 600<<20; sent += len(block) {
			err = p.send(block...)
		}
		return hungUp(err, p)
	}
}

// slow sends one byte every now and then.
func slow(b []byte) func(*peer) error {
	return func(p *peer) error {
		for _, x := range b {
			if p.send(x) != nil {
				return nil
			}
			<-time.After(150 * time.Millisecond)
		}
		return p.gone()
	}
}

func then(first, second func(*peer) error) func(*peer) error {
	return func(p *peer) error {
		if err := first(p); err != nil {
			return err
		}
		return second(p)
	}
}

func welcomed(p *peer) error { return p.welcome() }

func connected(p *peer) error { _, err := p.await(wire.CONNECT, 0); return err }

func topic(name string, rest ...byte) []byte {
	return append(append(binary.BigEndian.AppendUint16(nil, uint16(len(name))), name...), rest...)
}

func publish(flags byte, body ...byte) []byte { return wire.Make(wire.PUBLISH, flags, body).Raw }

const command = "fieldagent/hostile/cmd/ping"

var huge = []byte{0xff, 0xff, 0xff, 0x7f} // a length of 256 MB

// thrownAway expects that the agent throws the session away.
func thrownAway(p *peer) error {
	c, err := p.await(wire.CONNECT, 0)
	if err == nil && !c.CleanSession() {
		err = errors.New("the agent does not ask for a clean session")
	}
	return errors.Join(err, p.packet(wire.CONNACK, 0, p.plain(0, 0)...), p.gone())
}

// faithful is nothing wrong: else hanging up would prove nothing.
func faithful(p *peer) error {
	if err := p.welcome(); err != nil {
		return err
	}
	_ = p.SetDeadline(time.Now().Add(2 * time.Second))
	if err := p.gone(); !errors.Is(err, errHeld) {
		return errors.New("the agent hangs up on a faithful broker")
	}
	return nil
}

// lateAck sends PUBACK for an event that has its PUBREC.
func lateAck(p *peer) error {
	if err := p.welcome(); err != nil {
		return err
	}
	e, err := p.await(wire.PUBLISH, 2)
	if err != nil {
		return err
	}
	return hungUp(p.send(append(wire.Ack(wire.PUBREC, e.ID()).Raw, wire.Ack(wire.PUBACK, e.ID()).Raw...)...), p)
}

// deaf does not read.
func deaf(p *peer) error {
	if err := p.welcome(); err != nil {
		return err
	}
	<-time.After(1200 * time.Millisecond)
	return nil
}

// attacks are all that we know of. The second group killed or bloated the client library that the agent is built on.
var attacks = []attack{
	{name: "a session that is not ours", run: before(0x20, 2, 1, 0)},
	{name: "which is thrown away", run: thrownAway},
	{name: "SUBACK with more codes than asked for", run: func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		s, err := p.await(wire.SUBSCRIBE, 0)
		if err != nil {
			return err
		}
		return hungUp(p.packet(wire.SUBACK, 0, append(binary.BigEndian.AppendUint16(nil, s.ID()), 2, 2, 2, 2, 2, 2, 2, 2, 2)...), p)
	}},
	{name: "SUBACK without codes", run: after(0x90, 2, 0, 1)},
	{name: "SUBACK that nobody waits for", run: after(0x90, 3, 0x7f, 1, 2)},
	{name: "SUBACK with an unknown code", run: func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		s, err := p.await(wire.SUBSCRIBE, 0)
		if err != nil {
			return err
		}
		return hungUp(p.packet(wire.SUBACK, 0, append(binary.BigEndian.AppendUint16(nil, s.ID()), bytes.Repeat([]byte{7}, p.codes(s))...)...), p)
	}},
	{name: "CONNACK of 256 MB", run: before(append([]byte{0x20}, huge...)...)},
	{name: "PUBLISH of 256 MB before CONNACK", run: then(connected, endless(append([]byte{0x30}, huge...), []byte("x")))},
	{name: "PUBLISH of 256 MB", run: then(welcomed, endless(append([]byte{0x30}, huge...), []byte("x")))},
	{name: "PUBACK of 256 MB", run: then(welcomed, endless(append([]byte{0x40}, huge...), []byte("x")))},
	{name: "a length of five bytes", run: after(0x30, 0xff, 0xff, 0xff, 0xff, 1)},
	{name: "PUBACK for a QoS 2 event that has its PUBREC", run: lateAck},
	{name: "PUBCOMP without PUBREC", run: answer(2, wire.PUBCOMP, 0)},
	{name: "UNSUBACK for an event", run: answer(2, wire.UNSUBACK, 0)},
	{name: "SUBACK for an event", run: answer(2, wire.SUBACK, 0, 2)},
	{name: "PUBREC with a byte too many", run: answer(2, wire.PUBREC, 0, 0, 0)},
	{name: "PUBREC with flags", run: answer(2, wire.PUBREC, 2)},

	{name: "CONNACK with flags", run: before(0x21, 2, 0, 0)},
	{name: "CONNACK with reserved bits", run: before(0x20, 2, 2, 0)},
	{name: "CONNACK of three bytes", run: before(0x20, 3, 0, 0, 0)},
	{name: "CONNACK with an unknown code", run: before(0x20, 2, 0, 99)},
	{name: "CONNACK, refused and yet with a session", run: before(0x20, 2, 1, 5)},
	{name: "CONNACK twice", run: after(0x20, 2, 0, 0)},
	{name: "SUBACK in place of CONNACK", run: before(0x90, 3, 0, 1, 0)},
	{name: "HTTP in place of CONNACK", run: before([]byte("HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n")...)},
	{name: "garbage in place of CONNACK", run: before(random(1 << 16)...)},
	{name: "garbage", run: after(random(1 << 16)...)},
	{name: "zeros", run: after(make([]byte, 1<<16)...)},
	{name: "half a CONNACK", run: func(p *peer) error {
		if err := connected(p); err != nil {
			return err
		}
		return p.send(0x20, 2, 0) // and closes
	}},
	{name: "CONNACK byte by byte, never whole", run: then(connected, slow([]byte{0x20, 0x80, 0x80, 0x80, 0x00}))},
	{name: "no CONNACK", run: then(connected, func(p *peer) error { return p.gone() })},
	{name: "nothing wrong", run: faithful},
	{name: "a packet that never ends", run: then(welcomed, func(p *peer) error { // keepalive ends it, not before
		_ = p.send(append([]byte{0x30, 0x7f}, topic(command)...)...)
		return nil
	})},
	{name: "half a PUBLISH", run: func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		return p.send(publish(2, topic(command, 0, 1, '{')...)[:20]...)
	}},

	{name: "PUBLISH above the limit", run: then(welcomed, endless([]byte{0x30, 0x80, 0x80, 0x40}, []byte("y")))},
	{name: "PUBLISH at QoS 3", run: after(publish(6, topic(command, 0, 1, '{', '}')...)...)},
	{name: "PUBLISH at QoS 0 with DUP", run: after(publish(8, topic(command, '{', '}')...)...)},
	{name: "PUBLISH with packet id 0", run: after(publish(2, topic(command, 0, 0, '{', '}')...)...)},
	{name: "PUBLISH without a topic", run: after(publish(0, topic("", '{', '}')...)...)},
	{name: "PUBLISH with wildcards", run: after(publish(0, topic("fieldagent/hostile/cmd/#", '{', '}')...)...)},
	{name: "PUBLISH with a topic longer than itself", run: after(publish(0, 0xff, 0xff, 'a')...)},
	{name: "PUBLISH with a topic that is no text", run: after(publish(0, topic("fieldagent/\xff\xfe")...)...)},
	{name: "PUBLISH with a zero in its topic", run: after(publish(0, topic("fieldagent/\x00")...)...)},
	{name: "PUBLISH of one byte", run: after(0x30, 1, 0)},
	{name: "CONNECT from a broker", run: after(wire.Connect("x", true, 0).Raw...)},
	{name: "SUBSCRIBE from a broker", run: after(wire.Subscribe(1, "#", 2).Raw...)},
	{name: "PINGREQ from a broker", run: after(0xc0, 0)},
	{name: "DISCONNECT from a broker", run: after(0xe0, 0)},
	{name: "packet type 0", run: after(0, 0)},
	{name: "packet type 15", run: after(0xf0, 0)},
	{name: "PINGRESP with a body", run: after(0xd0, 2, 0, 0)},
	{name: "PUBREL with wrong flags", run: after(0x60, 2, 0, 1)},
	{name: "PUBACK with packet id 0", run: after(0x40, 2, 0, 0)},
	{name: "PUBREC of one byte", run: after(0x50, 1, 0)},

	{name: "flood of PUBACKs", run: flood(50000, func(i int) wire.Packet { return wire.Ack(wire.PUBACK, uint16(40000+i%20000)) })},
	{name: "flood of unknown PUBRECs", run: flood(50000, func(i int) wire.Packet { return wire.Ack(wire.PUBREC, uint16(40000+i%20000)) })},
	{name: "flood of PUBRELs", run: flood(50000, func(i int) wire.Packet { return wire.Ack(wire.PUBREL, uint16(1+i%60000)) })},
	{name: "flood of PINGRESPs", run: flood(50000, func(int) wire.Packet { return wire.Make(wire.PINGRESP, 0, nil) })},
	{name: "flood of strange topics", run: flood(5000, func(int) wire.Packet { return wire.Publish(0, "somebody/else", random(1000), 0, false) })},
	{name: "flood of commands", run: flood(300, func(i int) wire.Packet { return wire.Publish(uint16(1+i), command, random(2000), 1, false) })},
	{name: "flood of large commands", run: flood(60, func(i int) wire.Packet { return wire.Publish(uint16(1+i), command, random(100000), 1, false) })},
	{name: "QoS 2 messages that are never released", run: func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- p.gone() }()
		for i := range 3000 {
			if p.send(wire.Publish(uint16(1+i), "somebody/else", random(4000), 2, false).Raw...) != nil {
				break
			}
		}
		return <-ended
	}},
	{name: "a broker that does not read", run: deaf},

	{name: "a handshake header that never ends", only: "ws", raw: true, run: endless([]byte("HTTP/1.1 101 Switching Protocols\r\nX: "), []byte("x"))},
	{name: "handshake headers that never end", only: "ws", raw: true, run: endless([]byte("HTTP/1.1 101 Switching Protocols\r\n"), []byte("X-Header: and so on\r\n"))},
	{name: "a page in place of a handshake, without end", only: "ws", raw: true, run: endless([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"), []byte("<p>no</p>"))},
	{name: "a redirection", only: "ws", raw: true, run: func(p *peer) error {
		return hungUp(p.send([]byte("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")...), p)
	}},
	{name: "a handshake without its proof", only: "ws", raw: true, run: func(p *peer) error {
		return hungUp(p.send([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")...), p)
	}},
	{name: "text frames", only: "ws", run: frame(1, []byte{0x20, 2, 0, 0})},
	{name: "reserved frames", only: "ws", run: frame(0x47, []byte("x"))},
	{name: "a frame of 2^63 bytes", only: "ws", run: func(p *peer) error {
		if err := connected(p); err != nil {
			return err
		}
		_, err := p.Conn.(*socket).Conn.Write([]byte{0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x30, 0xff, 0xff, 0xff, 0x7f})
		return errors.Join(err, p.gone())
	}},
	{name: "frames of one byte", only: "ws", run: func(p *peer) error {
		if err := connected(p); err != nil {
			return err
		}
		for _, b := range []byte{0x20, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f} {
			if err := p.send(b); err != nil {
				return err
			}
		}
		return p.gone()
	}},
	{name: "flood of WebSocket pings", only: "ws", run: func(p *peer) error {
		if err := p.welcome(); err != nil {
			return err
		}
		go func() { _ = p.gone() }()
		for range 20000 {
			if p.Conn.(*socket).frame(9, random(125)) != nil {
				return nil
			}
		}
		return nil
	}},

	{name: "no TLS", only: "mqtts", raw: true, run: func(p *peer) error { return hungUp(p.send([]byte("220 smtp ready\r\n")...), p) }},
	{name: "TLS garbage without end", only: "mqtts", raw: true, run: endless([]byte{0x16, 3, 3, 0x40, 0}, random(1000))},
	{name: "TLS handshake that never goes on", only: "mqtts", raw: true, run: slow([]byte{0x16, 3, 3, 0x40, 0, 2, 0, 0, 0, 0, 0, 0})},
}

func frame(kind byte, body []byte) func(*peer) error {
	return func(p *peer) error {
		if err := connected(p); err != nil {
			return err
		}
		return errors.Join(p.Conn.(*socket).frame(kind, body), p.gone())
	}
}

// payload is that of a PUBLISH.
func (p *peer) payload(got wire.Packet) []byte {
	if p.five {
		return got.Payload5()
	}
	return got.Payload()
}

// codes is how many filters a SUBSCRIBE has.
func (p *peer) codes(got wire.Packet) int {
	if p.five {
		return 1 // the agent asks for one at a time
	}
	n, rest := 0, got.Raw[4:]
	if got.Raw[1] >= 0x80 {
		rest = got.Raw[5:]
	}
	for len(rest) > 2 {
		rest = rest[3+int(binary.BigEndian.Uint16(rest)):]
		n++
	}
	return n
}
