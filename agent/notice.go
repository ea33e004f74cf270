package agent

import (
	"errors"
	"fmt"

	"fieldagent/agent/mqtt"
)

// notice is a retained message at QoS 1, sent again on each connection.
type notice struct {
	topic    string
	payload  []byte
	answered func(refused error) // nil: the broker has it. The function may be nil
}

// announce sends n now and on every later connection, in place of the one before. Whoever waits for the answer to that one gets it for n.
func (d *delivery) announce(n *notice) {
	d.mu.Lock()
	if d.notice != nil && n.answered == nil {
		n.answered = d.notice.answered
	}
	d.notice = n
	d.mu.Unlock()
	d.poke()
}

// sendNotice sends the retained message at QoS 1 that is due, one at a time.
func (c *link) sendNotice() error {
	if !c.noticeDue || c.noticeOut != nil {
		return nil
	}
	c.noticeDue = false
	c.mu.Lock()
	n := c.notice
	c.mu.Unlock()
	if n == nil {
		return nil
	}
	c.noticeOut, c.dirty = n, true
	err := c.s.Send(mqtt.Publish{ID: noticeID, QoS: 1, Retain: true, Topic: n.topic, Payload: n.payload})
	var large *mqtt.ErrTooLarge
	if errors.As(err, &large) {
		c.noticeOut = nil
		c.log.Error("the device's state cannot be reported", "topic", n.topic, "err", err)
		return nil
	}
	return err
}

// noticeAnswered takes the broker's word on the message that is out. MQTT 5 brokers can say no.
func (c *link) noticeAnswered(a mqtt.Ack) {
	n := c.noticeOut
	if n == nil {
		return
	}
	c.noticeOut = nil
	err := refused(c.s.Server(), n.topic, a)
	if err != nil && err.Error() != c.mute {
		c.log.Error("the device's state cannot be reported", "err", err)
	}
	c.mute = ""
	if err != nil {
		c.mute = err.Error()
	}
	c.mu.Lock()
	answered := n.answered
	n.answered = nil // it is told once
	c.noticeDue = c.notice != n
	c.mu.Unlock()
	if answered != nil {
		answered(err)
	}
}

// refused is the error of an acknowledgement that says no.
func refused(server, topic string, a mqtt.Ack) error {
	if a.Reason < 0x80 {
		return nil
	}
	return fmt.Errorf("%s refuses messages on %s: %s; correct its access list for this user", server, topic, mqtt.Reason(a.Reason, a.Text))
}
