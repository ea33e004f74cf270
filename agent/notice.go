package agent

import (
	"errors"

	"fieldagent/agent/mqtt"
)

// notice is a retained message at QoS 1, sent again on each connection.
type notice struct {
	topic     string
	payload   []byte
	confirmed func() // the broker has it; may be nil
}

// announce sends n now and on every later connection, in place of the one before. Whoever waits for a confirmation of that one gets it for n.
func (d *delivery) announce(n *notice) {
	d.mu.Lock()
	if d.notice != nil && n.confirmed == nil {
		n.confirmed = d.notice.confirmed
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

func (c *link) noticeConfirmed() {
	n := c.noticeOut
	if n == nil {
		return
	}
	c.noticeOut = nil
	c.mu.Lock()
	confirmed := n.confirmed
	n.confirmed = nil // it is told once
	c.noticeDue = c.notice != n
	c.mu.Unlock()
	if confirmed != nil {
		confirmed()
	}
}
