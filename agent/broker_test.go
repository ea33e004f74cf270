package agent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// broker is a scripted MQTT 3.1.1 broker on loopback. It keeps one durable session for each client id, as the standard wants it, and misbehaves on demand.
type broker struct {
	t    *testing.T
	ln   net.Listener
	addr string

	mu       sync.Mutex
	sessions map[string]*brokerSession
	got      []message          // in the order of delivery
	retained map[string]message // by topic
	conns    map[net.Conn]string
	connects int
	changed  chan struct{} // closed at each change

	// misbehaviour
	onPublish func(m message) reaction // of QoS 1 and 2; nil: none
	onRelease func() reaction          // of PUBREL; nil: none
	refuse    string                   // filter that is refused
}

type brokerSession struct {
	incoming map[uint16]message
	subs     map[string]byte
	clean    bool
}

type message struct {
	topic   string
	payload string
	qos     byte
	retain  bool
	dup     bool
	id      uint16
}

type reaction int

const (
	obey reaction = iota
	closeIt
	ackAsQoS1
	swallow // no answer, but connected
)

func newBroker(t *testing.T) *broker {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, ln: ln, addr: ln.Addr().String(), sessions: map[string]*brokerSession{}, retained: map[string]message{}, conns: map[net.Conn]string{}, changed: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = b.serve(c)
				b.mu.Lock()
				delete(b.conns, c)
				b.note()
				b.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() { ln.Close(); b.cut(); wg.Wait() })
	return b
}

// note tells those who wait that something changed; the caller holds mu.
func (b *broker) note() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// cut ends all connections.
func (b *broker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
	}
}

// forget loses all sessions.
func (b *broker) forget() {
	b.mu.Lock()
	b.sessions = map[string]*brokerSession{}
	b.mu.Unlock()
	b.cut()
}

// wait returns when cond, called with the broker locked, is true.
func (b *broker) wait(what string, cond func() bool) {
	b.t.Helper()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		ok, ch := cond(), b.changed
		b.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-ch:
		case <-timeout.C:
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf("in vain: %s; %d connects, %d messages, the last %+v", what, b.connects, len(b.got), b.got[max(0, len(b.got)-3):])
		}
	}
}

// topic returns what was delivered on a topic; the broker must be locked.
func (b *broker) topic(suffix string) (out []message) {
	for _, m := range b.got {
		if strings.HasSuffix(m.topic, suffix) {
			out = append(out, m)
		}
	}
	return out
}

func readMQTT(r *bufio.Reader) (first byte, body []byte, err error) {
	if first, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return first, body, err
}

func text(b []byte) (string, []byte) {
	n := int(binary.BigEndian.Uint16(b))
	return string(b[2 : 2+n]), b[2+n:]
}

func (b *broker) serve(c net.Conn) error {
	r := bufio.NewReader(c)
	first, body, err := readMQTT(r)
	if err != nil || first>>4 != 1 {
		return errors.New("no CONNECT")
	}
	_, rest := text(body)
	flags := rest[1]
	id, rest := text(rest[4:])
	var will message
	if flags&4 != 0 {
		will.topic, rest = text(rest)
		will.payload, _ = text(rest)
		will.retain = flags&32 != 0
	}
	b.mu.Lock()
	s, present := b.sessions[id]
	if flags&2 != 0 || !present {
		s, present = &brokerSession{incoming: map[uint16]message{}, subs: map[string]byte{}, clean: flags&2 != 0}, false
	}
	if b.sessions[id] = s; s.clean {
		delete(b.sessions, id)
	}
	b.connects++
	b.conns[c] = id
	b.note()
	b.mu.Unlock()
	ack := []byte{0x20, 2, 0, 0}
	if present {
		ack[2] = 1
	}
	if _, err := c.Write(ack); err != nil {
		return err
	}
	for {
		first, body, err := readMQTT(r)
		if err == nil {
			err = b.packet(c, s, first, body)
		}
		if errors.Is(err, errGoodbye) {
			return nil
		}
		if err != nil {
			b.deliver(will)
			return err
		}
	}
}

var errGoodbye = errors.New("DISCONNECT")

func (b *broker) packet(c net.Conn, s *brokerSession, first byte, body []byte) error {
	reply := func(p ...byte) error { _, err := c.Write(p); return err }
	switch first >> 4 {
	case 3:
		m := message{qos: first >> 1 & 3, retain: first&1 != 0, dup: first&8 != 0}
		var rest []byte
		m.topic, rest = text(body)
		if m.qos == 0 {
			m.payload = string(rest)
			b.deliver(m)
			return nil
		}
		m.id, m.payload = binary.BigEndian.Uint16(rest), string(rest[2:])
		b.mu.Lock()
		react := obey
		if b.onPublish != nil {
			react = b.onPublish(m)
		}
		b.mu.Unlock()
		switch {
		case react == closeIt:
			return errors.New("closed on purpose")
		case react == swallow:
			return nil
		case m.qos == 1 || react == ackAsQoS1:
			b.deliver(m)
			return reply(0x40, 2, rest[0], rest[1])
		}
		b.mu.Lock()
		s.incoming[m.id] = m
		b.mu.Unlock()
		return reply(0x50, 2, rest[0], rest[1])
	case 4, 5, 7:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.note()
		if first>>4 == 5 {
			return reply(0x62, 2, body[0], body[1])
		}
		return nil
	case 6:
		id := binary.BigEndian.Uint16(body)
		b.mu.Lock()
		if b.onRelease != nil && b.onRelease() == closeIt {
			b.mu.Unlock()
			return errors.New("closed on purpose")
		}
		m, ok := s.incoming[id]
		delete(s.incoming, id)
		b.mu.Unlock()
		if ok {
			b.deliver(m)
		}
		return reply(0x70, 2, body[0], body[1])
	case 8:
		codes := []byte{0x90, 2, body[0], body[1]}
		for rest := body[2:]; len(rest) > 0; {
			var f string
			f, rest = text(rest)
			code := rest[0]
			b.mu.Lock()
			if b.refuse != "" && strings.HasSuffix(f, b.refuse) {
				code = 0x80
			} else {
				s.subs[f] = code
			}
			b.mu.Unlock()
			rest = rest[1:]
			codes = append(codes, code)
			codes[1]++
		}
		err := reply(codes...)
		b.mu.Lock()
		b.note()
		b.mu.Unlock()
		return err
	case 12:
		return reply(0xd0, 0)
	case 14:
		return errGoodbye
	}
	return nil
}

func (b *broker) deliver(m message) {
	if m.topic == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m)
	if m.retain {
		b.retained[m.topic] = m
	}
	b.note()
}

// publish sends a message at QoS 1 to every connected client that subscribed to something.
func (b *broker) publish(topic, payload string, retained bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := binary.BigEndian.AppendUint16(nil, uint16(len(topic)))
	p = append(p, topic...)
	p = append(p, 0, 77)
	p = append(p, payload...)
	first := byte(0x32)
	if retained {
		first |= 1
	}
	packet := append(binary.AppendUvarint([]byte{first}, uint64(len(p))), p...)
	for c := range b.conns {
		if _, err := c.Write(packet); err != nil {
			b.t.Logf("publish: %v", err)
		}
	}
}

// subscribed says whether a client asked for a topic; the broker must be locked.
func (b *broker) subscribed(suffix string) bool {
	for _, s := range b.sessions {
		for f := range s.subs {
			if strings.HasSuffix(f, suffix) {
				return true
			}
		}
	}
	return false
}

func sequences(ms []message) (out []string) {
	for _, m := range ms {
		if i := strings.Index(m.payload, `"sequence":"`); i >= 0 {
			out = append(out, strings.TrimLeft(m.payload[i+12:i+28], "0"))
		}
	}
	return out
}

func doubled(in []string) bool {
	s := slices.Clone(in)
	slices.Sort(s)
	return len(slices.Compact(s)) != len(in)
}
