// Package verify is the consumer that judges: a subscriber of its own making, which shares no code with the agent, logs every
// packet with its packet id, and reports what was lost, doubled, out of order or missing.
package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"fieldagent/integration/wire"
)

// Consumer holds one durable session with QoS 2 and hands each message to a judge exactly once per broker's delivery.
type Consumer struct {
	Addr     string
	ClientID string
	Filter   string
	QoS      byte      // to ask for; 2 when 0
	Log      *wire.Log // may be nil
	Judge    *Judge
	Message  func(topic string, payload []byte, qos byte) // takes the messages instead of the judge

	once  sync.Once
	ready chan struct{}
	held  map[uint16]bool // QoS 2 packet ids that were delivered and not yet released, section 4.3.3
	conns int
}

// Ready is closed when the broker has granted the subscription for the first time.
func (c *Consumer) Ready() <-chan struct{} {
	c.init()
	return c.ready
}

func (c *Consumer) init() {
	c.once.Do(func() { c.ready, c.held = make(chan struct{}), map[uint16]bool{} })
}

// Run consumes until ctx ends; it connects again as long as the broker is away.
func (c *Consumer) Run(ctx context.Context) error {
	c.init()
	for ctx.Err() == nil {
		err := c.connection(ctx)
		if errors.Is(err, errRefused) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

var errRefused = errors.New("the broker refuses the judge")

func (c *Consumer) connection(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c.conns++
	in, out := bufio.NewReaderSize(conn, 1<<16), bufio.NewWriterSize(conn, 1<<15)
	send := func(p wire.Packet) {
		c.Log.Packet(c.conns, ">", p, "")
		out.Write(p.Raw)
	}
	send(wire.Connect(c.ClientID, false, 0))
	out.Flush()
	for first := true; ; first = false {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Minute))
		p, err := wire.Read(in, 1<<22)
		if err != nil {
			return err
		}
		c.Log.Packet(c.conns, "<", p, "")
		if first != (p.Type() == wire.CONNACK) {
			return fmt.Errorf("%w: %v out of place", errRefused, p)
		}
		switch p.Type() {
		case wire.CONNACK:
			if p.Code() != 0 {
				return fmt.Errorf("%w: CONNACK %d", errRefused, p.Code())
			}
			if !p.SessionPresent() {
				clear(c.held)
				if c.conns > 1 && c.granted() && c.Judge != nil {
					c.Judge.sessionLost()
				}
				send(wire.Subscribe(1, c.Filter, c.asks()))
			}
		case wire.SUBACK:
			if p.Code() != c.asks() {
				return fmt.Errorf("%w: asked for QoS %d on %s, got %#x", errRefused, c.asks(), c.Filter, p.Code())
			}
			if !c.granted() {
				close(c.ready)
			}
		case wire.PUBLISH:
			c.publish(p, send)
		case wire.PUBREL:
			delete(c.held, p.ID())
			send(wire.Ack(wire.PUBCOMP, p.ID()))
		}
	}
}

func (c *Consumer) asks() byte {
	if c.QoS == 0 {
		return 2
	}
	return c.QoS
}

func (c *Consumer) granted() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

func (c *Consumer) publish(p wire.Packet, send func(wire.Packet)) {
	switch p.QoS() {
	case 0:
		c.deliver(p)
	case 1:
		c.deliver(p)
		send(wire.Ack(wire.PUBACK, p.ID()))
	case 2:
		if !c.held[p.ID()] || !p.Dup() { // NATS uses an id again that it never released (MQTT 3.1.1 section 2.3.1 forbids that): without DUP it is a new message
			c.held[p.ID()] = true
			c.deliver(p)
		}
		send(wire.Ack(wire.PUBREC, p.ID()))
	}
}

func (c *Consumer) deliver(p wire.Packet) {
	if c.Message != nil {
		c.Message(p.Topic(), p.Payload(), p.QoS())
		return
	}
	c.Judge.Deliver(p.Topic(), p.Payload(), p.QoS())
}
