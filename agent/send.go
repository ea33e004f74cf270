package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// qos returns the QoS at which a row goes to this broker; ok is false while it is held back.
func (c *link) qos(r queue.Record) (qos byte, ok bool) {
	server := c.s.Server()
	switch {
	case r.QoS > c.limits.MaxQoS && c.limits.MaxQoS == 0:
		c.hold(server + " takes no messages above QoS 0; use another broker")
		return 0, false
	case r.QoS <= 1:
	case c.limits.MaxQoS == 1 && c.allow:
		c.limit(server, atQoS1(server))
		return 1, true
	case c.limits.MaxQoS == 1, !c.allow && !c.noQoS2[server].IsZero() && time.Since(c.noQoS2[server]) < downgradeHold:
		c.limit(server, noQoS2(server))
		c.hold(noQoS2(server))
		return 0, false
	}
	return r.QoS, true
}

func atQoS1(server string) string {
	return server + " cannot do QoS 2: such events go out at QoS 1 (mqtt.allow_downgrade), and may come twice"
}

func noQoS2(server string) string {
	return server + " cannot do QoS 2: it confirms with PUBACK, and may deliver an event twice. QoS 2 events wait; use another broker, or set mqtt.allow_downgrade"
}

// send takes a row into the window and writes what is due for it. sent is false when the connection has ended.
func (c *link) send(ctx context.Context, r queue.Record, qos byte, size int, now queue.Stamp) (sent bool, err error) {
	seq := r.ID.Sequence
	f := flight{seq: seq, qos: qos, bytes: size}
	step := c.w.add(f)
	switch step {
	case stepDone:
		return true, nil
	case stepRelease:
		if c.s.Release(packetID(seq)) != nil {
			return false, nil
		}
	default:
		left, mortal := c.lifetime(r, now)
		if mortal && left <= 0 && step == stepPublish {
			return true, c.bury(ctx, seq, fmt.Sprintf("expired: it waited for %v", age(now, c.clock.correctAt(r.Accepted, now)).Round(time.Second)))
		}
		p := c.render(r, qos, left, now)
		p.Dup = step == stepRepeat
		if reply := c.reply(r, p); reply != nil { // before it in the stream: the broker has it when it confirms the row
			_ = c.s.Send(*reply)
		}
		faultPoint("before publish")
		var large *mqtt.ErrTooLarge
		if err := c.s.Send(p); errors.As(err, &large) {
			return true, c.bury(ctx, seq, fmt.Sprintf("%v (%s)", large, c.s.Server()))
		} else if err != nil {
			return false, nil
		}
		faultPoint("after publish")
		c.note(r, p.Dup, now)
	}
	c.dirty = true
	if c.firstSeq == 0 {
		c.firstSeq, c.firstAt = seq, time.Now()
	}
	return true, nil
}

// note counts a row that was sent.
func (c *link) note(r queue.Record, again bool, now queue.Stamp) {
	seq := r.ID.Sequence
	t := c.tries[seq]
	if t.times == 0 {
		t.first = now
	} else {
		again = true
	}
	t.times++
	t.last = now
	c.tries[seq] = t
	c.sent.Add(1)
	if again {
		c.repeated.Add(1)
	}
	c.sentThrough = max(c.sentThrough, seq)
	c.queue.Sent(seq, c.s.Server(), now)
}

// render makes the message of a row. Its buffers are used again for the next one.
func (c *link) render(r queue.Record, qos byte, left time.Duration, now queue.Stamp) mqtt.Publish {
	at := r.At
	if at.Wall.IsZero() {
		at = r.Accepted
	}
	at = c.clock.correctAt(at, now)
	p := mqtt.Publish{ID: packetID(r.ID.Sequence), QoS: qos, Topic: eventTopic(c.source, r.Event)}
	binary := false
	if c.dress != nil && c.limits.Properties {
		binary = c.dress.event(&c.props, c.source, r, at, left)
		if binary && c.failover.doubtful(r.ID.Sequence) {
			c.props.User = append(c.props.User, [2]string{"duplicate", "possible"})
		}
		p.Properties = &c.props
	}
	switch {
	case isReading(r):
		c.payload = appendKept(c.payload[:0], c.source, r, at, c.failover.doubtful(r.ID.Sequence))
		p.Payload = c.payload
	case binary:
		p.Payload = r.Data
	default:
		c.payload = appendEvent(c.payload[:0], c.source, r, at, c.failover.doubtful(r.ID.Sequence))
		p.Payload = c.payload
	}
	return p
}

// lifetime returns how long a row may still live, if it may not live for ever.
func (c *link) lifetime(r queue.Record, now queue.Stamp) (left time.Duration, mortal bool) {
	if c.dress == nil {
		return 0, false
	}
	return c.dress.lifetime(r, now, c.clock.correctAt(r.Accepted, now))
}

// reply is the copy of a command's result for whoever asked for it in the way of MQTT 5, nil when nobody did.
func (c *link) reply(r queue.Record, p mqtt.Publish) *mqtt.Publish {
	if r.Properties == nil || r.Properties.ReplyTopic == "" {
		return nil
	}
	p.ID, p.QoS, p.Dup, p.Topic = 0, 0, false, r.Properties.ReplyTopic
	if p.Properties != nil {
		props := *p.Properties
		props.Correlation = r.Properties.ReplyData
		p.Properties = &props
	}
	return &p
}
