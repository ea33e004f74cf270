package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	smallPacket  = 1024     // every packet but PUBLISH
	maxSkipped   = 16 << 20 // of a PUBLISH that is too long: more than that is no mistake
	maxUnwritten = 1 << 20  // bytes that wait for a slow broker
	maxLive      = 64 << 10 // above this, readings are dropped rather than queued
	maxHeld      = 4 << 20  // payload bytes of QoS 2 messages that the broker did not release
	maxHeldCount = 1024
)

// guard stands between paho and the network. It frames, caps and checks every packet in both directions. What concerns events and subscriptions
// goes to the session and never to paho; paho sees CONNACK, PUBLISH, PUBREL and PINGRESP, each of them legal.
// One goroutine writes: packets of paho, of the engine and readings are whole and share segments.
type guard struct {
	net.Conn
	r        *bufio.Reader
	s        *Session
	five     *five         // nil with MQTT 3.1.1
	max      int           // of a PUBLISH
	silence  time.Duration // longest time without a byte from the broker; 0 for ever
	deadline time.Duration // of one write

	// reader's side, used by paho's reading goroutine only
	buf       []byte
	rest      []byte // of a packet that is being handed to paho
	connected bool
	acks      []Ack
	held      map[uint16]int // QoS 2 messages that are not released, with their size
	heldBytes int

	mu      sync.Mutex
	out     []byte
	spare   []byte
	partial []byte // of a packet that paho writes in pieces
	wake    chan struct{}
	flushed *sync.Cond
	writing bool
	err     error // why the connection ends
	subs    map[uint16]int
	present bool
	code    byte
	lastIn  time.Time
	closed  chan struct{}
	once    sync.Once
}

func newGuard(conn net.Conn, cfg Config) *guard {
	g := &guard{Conn: conn, r: bufio.NewReaderSize(conn, 4096), max: int(cfg.MaxPacket), deadline: 10 * time.Second,
		held: map[uint16]int{}, wake: make(chan struct{}, 1), subs: map[uint16]int{}, closed: make(chan struct{})}
	if cfg.Keepalive > 0 {
		g.silence = cfg.Keepalive * 3 / 2
		g.deadline = min(g.deadline, g.silence)
	}
	g.flushed = sync.NewCond(&g.mu)
	return g
}

func (g *guard) limit(kind byte) int {
	if kind == typePublish && g.connected {
		return g.max
	}
	switch {
	case g.five != nil:
		return smallPacket5
	case !g.connected:
		return 2 // CONNACK
	}
	return smallPacket
}

// Read hands paho the next packet that concerns it.
func (g *guard) Read(p []byte) (int, error) {
	for len(g.rest) == 0 {
		if g.r.Buffered() == 0 {
			g.deliver()
			if g.silence > 0 && g.connected {
				_ = g.SetReadDeadline(time.Now().Add(g.silence))
			}
		}
		var packet []byte
		var body int
		err := g.greeting()
		if err == nil {
			packet, body, err = g.packet()
		}
		if err == nil {
			g.buf = packet
			var forward bool
			if forward, err = g.accept(packet, packet[body:]); forward {
				g.rest = packet
			}
		}
		if err != nil {
			return 0, g.fail(g.explainRead(err))
		}
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// packet reads the next one. A message that is too long loses its end, within reason.
func (g *guard) packet() (packet []byte, body int, err error) {
	packet, body, err = readPacket(g.r, g.buf, g.limit)
	var long tooLong
	if errors.As(err, &long) && long.first>>4 == typePublish && g.connected && long.length <= maxSkipped {
		return long.shorten(g.r, packet)
	}
	return packet, body, err
}

// greeting looks at the first byte of the answer to CONNECT: what does not begin like a CONNACK comes from something that is no broker.
func (g *guard) greeting() error {
	if g.connected {
		return nil
	}
	first, err := g.r.Peek(1)
	if err != nil || first[0] == typeConnack<<4 {
		return err
	}
	start, _ := g.r.Peek(min(g.r.Buffered(), 12))
	if len(start) > 1 && start[0] == 0x15 && start[1] == 3 { // a TLS alert, RFC 8446 section 5.1
		return protocol("it answers with TLS: use mqtts:// or wss://, or the broker's port without TLS")
	}
	return protocol("the answer to CONNECT begins with %q: is this an MQTT broker?", start)
}

func (g *guard) explainRead(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() && g.connected {
		return fmt.Errorf("%w for %v (one and a half keepalives): connection given up", ErrSilent, g.silence)
	}
	return err
}

// deliver hands the acknowledgements that came together to the engine.
func (g *guard) deliver() {
	if len(g.acks) == 0 {
		return
	}
	select {
	case g.s.acks <- g.acks:
	case <-g.closed:
	}
	g.acks = nil
}

// accept checks one packet against the state of the connection and says whether paho is to see it.
func (g *guard) accept(packet, body []byte) (forward bool, err error) {
	kind, flags := packet[0]>>4, packet[0]&15
	if g.silence > 0 {
		g.mu.Lock()
		g.lastIn = time.Now()
		g.mu.Unlock()
	}
	if !g.connected {
		return true, g.connack(kind, flags, body)
	}
	if want := map[byte]byte{typePubrel: 2}[kind]; kind != typePublish && flags != want {
		return false, protocol("%s with flags %x", typeNames[kind], flags)
	}
	switch kind {
	case typePublish:
		return true, g.publish(flags, body)
	case typePuback, typePubrec, typePubcomp:
		if len(body) != 2 {
			return false, protocol("%s of %d bytes", typeNames[kind], len(body))
		}
		id := binary.BigEndian.Uint16(body)
		if id == 0 {
			return false, protocol("%s without packet id", typeNames[kind])
		}
		g.acks = append(g.acks, Ack{Kind: AckKind(kind), ID: id})
		return false, nil
	case typePubrel:
		if len(body) != 2 {
			return false, protocol("PUBREL of %d bytes", len(body))
		}
		id := binary.BigEndian.Uint16(body)
		g.heldBytes -= g.held[id]
		delete(g.held, id)
		return true, nil
	case typeSuback:
		return false, g.suback(body)
	case typePingresp:
		if len(body) != 0 {
			return false, protocol("PINGRESP of %d bytes", len(body))
		}
		return true, nil
	}
	return false, protocol("%s from a broker", typeNames[kind])
}

func (g *guard) connack(kind, flags byte, body []byte) error {
	if kind != typeConnack || flags != 0 || len(body) != 2 || body[0] > 1 {
		return protocol("the answer to CONNECT is %s with flags %x and %d bytes: is this an MQTT 3.1.1 broker?", typeNames[kind], flags, len(body))
	}
	if body[1] > 5 || body[1] != 0 && body[0] != 0 {
		return protocol("CONNACK %x %x", body[0], body[1])
	}
	g.mu.Lock()
	g.present, g.code = body[0] == 1, body[1]
	g.mu.Unlock()
	g.connected = true
	return nil
}

func (g *guard) publish(flags byte, body []byte) error {
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
	if err := checkTopic(string(body[2:n])); err != nil {
		return err
	}
	if qos == 0 {
		return nil
	}
	id := binary.BigEndian.Uint16(body[n:])
	if id == 0 {
		return protocol("PUBLISH at QoS %d without packet id", qos)
	}
	if qos == 2 {
		g.heldBytes += len(body) - g.held[id]
		g.held[id] = len(body)
		if g.heldBytes > maxHeld || len(g.held) > maxHeldCount {
			return protocol("%d messages at QoS 2 that are never released", len(g.held))
		}
	}
	return nil
}

func (g *guard) suback(body []byte) error {
	if len(body) < 3 {
		return protocol("SUBACK of %d bytes", len(body))
	}
	id := binary.BigEndian.Uint16(body)
	g.mu.Lock()
	want, ok := g.subs[id]
	delete(g.subs, id)
	g.mu.Unlock()
	if !ok || want != len(body)-2 {
		return protocol("SUBACK with %d codes for packet id %d, which asked for %d", len(body)-2, id, want)
	}
	for _, c := range body[2:] {
		if c > 2 && c != 0x80 {
			return protocol("SUBACK with code %x", c)
		}
	}
	g.s.granted(id, append([]byte(nil), body[2:]...))
	return nil
}

// Write takes packets from paho.
func (g *guard) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.partial = append(g.partial, p...)
	for {
		n, kind, qos, ok := complete(g.partial)
		if !ok {
			return len(p), g.err
		}
		if kind == typePublish && qos > 0 || kind == typeSubscribe || kind == typeUnsubscribe {
			g.failLocked(fmt.Errorf("the MQTT library wrote a %s of its own: that must not be", typeNames[kind]))
			return 0, g.err
		}
		if err := g.put(g.partial[:n], maxUnwritten); err != nil {
			return 0, err
		}
		g.partial = g.partial[n:]
		if len(g.partial) == 0 {
			g.partial = nil
		}
		g.signal()
	}
}

// complete returns the length of the packet at the start of b.
func complete(b []byte) (n int, kind, qos byte, ok bool) {
	if len(b) < 2 {
		return 0, 0, 0, false
	}
	length, i := 0, 1
	for shift := 0; ; shift += 7 {
		if i >= len(b) || shift > 21 {
			return 0, 0, 0, false
		}
		length |= int(b[i]&0x7f) << shift
		i++
		if b[i-1] < 0x80 {
			break
		}
	}
	return i + length, b[0] >> 4, b[0] >> 1 & 3, len(b) >= i+length
}

// put appends to what is to be written; the caller holds mu.
func (g *guard) put(p []byte, limit int) error {
	if g.err != nil {
		return g.err
	}
	if len(g.out)+len(p) > limit && len(g.out) > 0 {
		return errBusy
	}
	g.out = append(g.out, p...)
	return nil
}

var errBusy = errors.New("the broker does not read fast enough")

func (g *guard) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// write is the one goroutine that writes, until the connection ends.
func (g *guard) write() {
	for {
		select {
		case <-g.wake:
		case <-g.closed:
			return
		}
		g.mu.Lock()
		for len(g.out) > 0 && g.err == nil {
			data := g.out
			g.out, g.writing = g.spare[:0], true
			g.mu.Unlock()
			_ = g.SetWriteDeadline(time.Now().Add(g.deadline))
			_, err := g.Conn.Write(data)
			g.mu.Lock()
			g.writing = false
			if cap(data) <= 64<<10 {
				g.spare = data[:0]
			} else {
				g.spare = nil
			}
			if err != nil {
				g.failLocked(fmt.Errorf("write to the broker: %w", err))
			}
		}
		g.flushed.Broadcast()
		g.mu.Unlock()
	}
}

// drain waits until all is written, or the connection ends.
func (g *guard) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for (len(g.out) > 0 || g.writing) && g.err == nil {
		g.flushed.Wait()
	}
}

// fail ends the connection; the first reason counts.
func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failLocked(err)
}

func (g *guard) failLocked(err error) error {
	if g.err == nil {
		g.err = err
	}
	g.once.Do(func() {
		close(g.closed)
		go g.Conn.Close() // TLS waits up to 5 s to say goodbye on a line that is stuck, and readings must not wait for mu
		g.flushed.Broadcast()
	})
	return g.err
}

// Close is called by paho.
func (g *guard) Close() error {
	_ = g.fail(net.ErrClosed)
	return nil
}

// idle is the time since the broker was last heard.
func (g *guard) idle(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Sub(g.lastIn)
}
