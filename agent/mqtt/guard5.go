package mqtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

const (
	smallPacket5 = 8 << 10 // every packet of MQTT 5 but PUBLISH: they may carry a reason in words
	goodbyeIn    = 200 * time.Millisecond
	maxPending   = 1024 // inbound messages at QoS 1 and 2 that are not finished, whatever we asked for: mosquitto 2.0 sends all that it held back at once
)

// five is what a connection with MQTT 5 knows besides. There is no paho client on it: the guard reads all packets itself and answers inbound messages.
type five struct {
	connack chan error // CONNACK has come; nil: it welcomes us
	message func(Message)
	receive int           // most inbound messages at QoS 1 and 2 that we asked for at once
	done    chan struct{} // reading has ended

	// written by the reader before connack is sent, read afterwards
	welcome packets.Properties

	// guarded by guard.mu
	pending   map[uint16]byte // inbound messages that are not finished, with their QoS
	maxPacket int             // of a packet to the broker; 0 unlimited
	noRetain  bool
	aliasMax  int
	aliases   map[string]uint16 // topics of readings on this connection; never stored
	saved     int64             // bytes that aliases saved
	scratch   []byte
}

// read5 is the one goroutine that reads, until the connection ends.
func (g *guard) read5() {
	defer close(g.five.done)
	for {
		if g.r.Buffered() == 0 {
			g.deliver()
			if g.silence > 0 && g.connected {
				_ = g.SetReadDeadline(time.Now().Add(g.silence))
			}
		}
		var body int
		var packet []byte
		err := g.greeting()
		if err == nil {
			packet, body, err = readPacket(g.r, g.buf, g.limit)
		}
		if err == nil {
			g.buf = packet
			err = g.accept5(packet[0]>>4, packet[0]&15, packet[body:])
		}
		if err != nil {
			if g.connected && errors.Is(err, ErrProtocol) {
				g.accuse()
			}
			_ = g.fail(g.explainRead(err))
			return
		}
	}
}

// accuse tells the broker that it broke the protocol, if it still reads.
func (g *guard) accuse() {
	g.mu.Lock()
	_ = g.put([]byte{typeDisconnect << 4, 1, reasonProtocol}, maxUnwritten)
	g.mu.Unlock()
	g.signal()
	limit := time.AfterFunc(goodbyeIn, func() { _ = g.fail(ErrProtocol) })
	g.drain()
	limit.Stop()
}

// accept5 checks one packet against the state of the connection and does what it asks for.
func (g *guard) accept5(kind, flags byte, body []byte) error {
	if g.silence > 0 {
		g.mu.Lock()
		g.lastIn = time.Now()
		g.mu.Unlock()
	}
	if !g.connected {
		err := g.connack5(kind, flags, body)
		g.connected = err == nil
		g.five.connack <- err
		return err
	}
	if want := map[byte]byte{typePubrel: 2}[kind]; kind != typePublish && flags != want {
		return protocol("%s with flags %x", typeNames[kind], flags)
	}
	switch kind {
	case typePublish:
		return g.publish5(flags, body)
	case typePuback, typePubrec, typePubcomp, typePubrel:
		a, err := parseAck5(kind, body)
		if err != nil {
			return err
		}
		if kind == typePubrel {
			return g.released(a.ID)
		}
		g.acks = append(g.acks, a)
		return nil
	case typeSuback:
		return g.suback5(body)
	case typePingresp:
		if len(body) != 0 {
			return protocol("PINGRESP of %d bytes", len(body))
		}
		return nil
	case typeDisconnect:
		return disconnected(body)
	}
	return protocol("%s from a broker", typeNames[kind])
}

// decode reads properties that cutProperties has checked.
func decode(kind byte, props []byte) (p packets.Properties, err error) {
	err = p.Unpack(bytes.NewBuffer(props), kind)
	return p, err
}

func (g *guard) connack5(kind, flags byte, body []byte) error {
	switch {
	case kind == typeConnack && flags == 0 && len(body) == 2 && body[1] != 0: // a broker that knows 3.1.1 only answers in its own way
		return &ReasonError{Refused: true, Code: reasonBadVersion}
	case kind != typeConnack || flags != 0 || len(body) < 3 || body[0] > 1 || body[1] != 0 && (body[0] != 0 || body[1] < firstFailure):
		return protocol("the answer to CONNECT is %s with flags %x and %d bytes: is this an MQTT 5 broker? (mqtt.version)", typeNames[kind], flags, len(body))
	}
	props, rest, err := cutProperties(kind, body[2:])
	if err != nil {
		return err
	}
	p, err := decode(kind, props)
	switch {
	case err != nil || len(rest) > 0:
		return protocol("CONNACK with %d bytes too many: %v", len(rest), err)
	case p.ReceiveMaximum != nil && *p.ReceiveMaximum == 0, p.MaximumPacketSize != nil && *p.MaximumPacketSize == 0,
		p.MaximumQOS != nil && *p.MaximumQOS > 1, p.RetainAvailable != nil && *p.RetainAvailable > 1:
		return protocol("CONNACK with a limit that is none")
	case body[1] != 0:
		return &ReasonError{Refused: true, Code: body[1], Text: p.ReasonString, Reference: p.ServerReference}
	}
	g.five.welcome = p
	g.mu.Lock()
	defer g.mu.Unlock()
	g.present = body[0] == 1
	if p.ServerKeepAlive != nil {
		g.silence = time.Duration(*p.ServerKeepAlive) * time.Second * 3 / 2
	}
	if p.MaximumPacketSize != nil {
		g.five.maxPacket = int(min(*p.MaximumPacketSize, 1<<30))
	}
	if p.TopicAliasMaximum != nil {
		g.five.aliasMax = int(*p.TopicAliasMaximum)
	}
	g.five.noRetain = p.RetainAvailable != nil && *p.RetainAvailable == 0
	return nil
}

// parseAck5 reads PUBACK, PUBREC, PUBREL and PUBCOMP (sections 3.4 to 3.7).
func parseAck5(kind byte, body []byte) (Ack, error) {
	if len(body) < 2 {
		return Ack{}, protocol("%s of %d bytes", typeNames[kind], len(body))
	}
	a := Ack{Kind: AckKind(kind), ID: binary.BigEndian.Uint16(body)}
	if a.ID == 0 {
		return Ack{}, protocol("%s without packet id", typeNames[kind])
	}
	if len(body) > 2 {
		a.Reason = body[2]
	}
	if len(body) > 3 {
		props, rest, err := cutProperties(kind, body[3:])
		if err != nil {
			return Ack{}, err
		}
		p, err := decode(kind, props)
		if err != nil || len(rest) > 0 {
			return Ack{}, protocol("%s with %d bytes too many: %v", typeNames[kind], len(rest), err)
		}
		a.Text = p.ReasonString
	}
	return a, nil
}

// publish5 hands a message on. The broker keeps within the number that we take at once, or we do not believe it any more.
func (g *guard) publish5(flags byte, body []byte) error {
	qos := flags >> 1 & 3
	if qos == 3 || qos == 0 && flags&8 != 0 {
		return protocol("PUBLISH with flags %x", flags)
	}
	n := 2
	if len(body) >= 2 {
		n += int(binary.BigEndian.Uint16(body))
	}
	end := n
	if qos > 0 {
		end += 2
	}
	if len(body) < end {
		return protocol("PUBLISH of %d bytes with a topic of %d", len(body), n-2)
	}
	topic := string(body[2:n])
	if err := checkTopic(topic); err != nil { // an alias cannot stand for it: we announced none
		return err
	}
	props, payload, err := cutProperties(typePublish, body[end:])
	if err != nil {
		return err
	}
	p, err := decode(typePublish, props)
	if err != nil || p.TopicAlias != nil {
		return protocol("PUBLISH with a topic alias, which was not offered: %v", err)
	}
	m := Message{Topic: topic, Payload: bytes.Clone(payload), QoS: qos, Retained: flags&1 != 0, Dup: flags&8 != 0, ResponseTopic: p.ResponseTopic,
		Correlation: p.CorrelationData, Ack: func() {}}
	if p.SubscriptionIdentifier != nil {
		m.Subscription = *p.SubscriptionIdentifier
	}
	if qos == 0 {
		g.five.message(m)
		return nil
	}
	id := binary.BigEndian.Uint16(body[n:])
	if id == 0 {
		return protocol("PUBLISH at QoS %d without packet id", qos)
	}
	g.mu.Lock()
	g.five.pending[id] = qos
	many := len(g.five.pending)
	g.mu.Unlock()
	if many > maxPending {
		return protocol("%d messages at once, %d were asked for (mqtt.receive_maximum)", many, g.five.receive)
	}
	m.Ack = func() { g.confirm(id, qos) }
	g.five.message(m)
	return nil
}

// confirm sends PUBACK or PUBREC, once.
func (g *guard) confirm(id uint16, qos byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.five.pending[id] != qos {
		return
	}
	kind := byte(typePubrec)
	if qos == 1 {
		kind = typePuback
		delete(g.five.pending, id)
	} else {
		g.five.pending[id] = confirmed
	}
	if g.put(appendAck(nil, kind, id), maxUnwritten) == errBusy {
		_ = g.failLocked(errBusy)
	}
	g.signal()
}

// confirmed marks an inbound QoS 2 message whose PUBREC is out.
const confirmed = 3

// released answers PUBREL. One that this connection knows nothing of belongs to the one before it, and is answered all the same.
func (g *guard) released(id uint16) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if q, ok := g.five.pending[id]; ok && q != confirmed {
		return protocol("PUBREL for a message without PUBREC")
	}
	delete(g.five.pending, id)
	if err := g.put(appendAck(nil, typePubcomp, id), maxUnwritten); err != nil {
		return g.failLocked(err)
	}
	g.signal()
	return nil
}

func (g *guard) suback5(body []byte) error {
	if len(body) < 3 {
		return protocol("SUBACK of %d bytes", len(body))
	}
	id := binary.BigEndian.Uint16(body)
	_, codes, err := cutProperties(typeSuback, body[2:])
	if err != nil {
		return err
	}
	g.mu.Lock()
	want, ok := g.subs[id]
	delete(g.subs, id)
	g.mu.Unlock()
	if !ok || want != len(codes) {
		return protocol("SUBACK with %d codes for packet id %d, which asked for %d", len(codes), id, want)
	}
	for _, c := range codes {
		if c > 2 && c < firstFailure {
			return protocol("SUBACK with code %x", c)
		}
	}
	g.s.granted(id, bytes.Clone(codes))
	return nil
}

// disconnected turns DISCONNECT into the reason why the connection ends (section 3.14).
func disconnected(body []byte) error {
	e := &ReasonError{}
	if len(body) > 0 {
		e.Code = body[0]
	}
	if len(body) > 1 {
		props, rest, err := cutProperties(typeDisconnect, body[1:])
		if err != nil {
			return err
		}
		p, err := decode(typeDisconnect, props)
		if err != nil || len(rest) > 0 {
			return protocol("DISCONNECT with %d bytes too many: %v", len(rest), err)
		}
		e.Text, e.Reference = p.ReasonString, p.ServerReference
	}
	return e
}

// encode appends a PUBLISH to what is to be written; the caller holds mu. alias: its topic may be replaced by a number.
func (g *guard) encode(p Publish, alias bool) error {
	f := g.five
	if f == nil {
		g.out = appendPublish(g.out, p)
		return nil
	}
	p.Retain = p.Retain && !f.noRetain
	topic, props := p.Topic, p.Properties.appendTo(f.scratch[:0])
	number, known := uint16(0), false
	if alias && !p.Retain && f.aliasMax > 0 {
		if number, known = f.aliases[topic]; !known && len(f.aliases) < f.aliasMax {
			number = uint16(len(f.aliases) + 1)
		}
		if number != 0 {
			props = binary.BigEndian.AppendUint16(append(props, propTopicAlias), number)
		}
		if known {
			p.Topic = ""
		}
	}
	f.scratch = props
	before := len(g.out)
	g.out = appendPublish5(g.out, p, props)
	if n := len(g.out) - before; f.maxPacket > 0 && n > f.maxPacket {
		g.out = g.out[:before]
		return &ErrTooLarge{n, f.maxPacket}
	}
	switch {
	case known:
		f.saved += int64(len(topic) - 3)
	case number != 0:
		f.aliases[topic] = number
		f.saved -= 3
	}
	return nil
}

// appendSubscribe5 encodes a SUBSCRIBE for one filter; number 0 gives it no identifier (section 3.8).
func appendSubscribe5(b []byte, id uint16, sub Subscription, number int) []byte {
	p := packets.Subscribe{PacketID: id, Properties: &packets.Properties{}, Subscriptions: []packets.SubOptions{{Topic: sub.Filter, QoS: sub.QoS, RetainAsPublished: sub.Flag}}}
	if number > 0 {
		p.Properties.SubscriptionIdentifier = &number
	}
	var buf bytes.Buffer
	_, _ = p.WriteTo(&buf) // a buffer takes everything
	return append(b, buf.Bytes()...)
}
