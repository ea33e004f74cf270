package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// retried is a dead letter on its second way, alone: it fills the hole in the consumer's sequence and has the packet id it always had.
type retried struct {
	rec      queue.Record
	released bool // its PUBREC is on disk
	progress bool
	at       time.Time // when it was sent
	first    queue.Stamp
}

// fillRetry sends the next dead letter of the retry list once the window is empty. busy says that no other row may go.
func (c *link) fillRetry() (busy bool, err error) {
	rec, released, ok := c.queue.NextRetry()
	if !ok {
		return false, nil
	}
	qos, ok := c.qos(rec)
	seq := rec.ID.Sequence
	if !ok || c.w.expected(packetID(seq)) { // its id may be in use at the broker, until the rows of the last connection are through
		return false, nil
	}
	if len(c.w.rows) > 0 {
		return true, nil
	}
	if c.failing[seq] >= closeAlone {
		delete(c.failing, seq)
		c.log.Error("retried event set aside again: the broker closes the connection", "sequence", seq)
		return false, c.failRetry(seq, "the broker closes the connection")
	}
	rec.QoS = qos
	now := c.clock.Now()
	c.retry = &retried{rec: rec, released: released, at: time.Now(), first: now}
	c.dirty = true
	if released {
		_ = c.s.Release(packetID(seq))
		return true, nil
	}
	p := c.render(rec, qos, 0, now)
	p.Dup = c.s.Present()
	var large *mqtt.ErrTooLarge
	if errors.As(c.s.Send(p), &large) {
		c.retry = nil
		return false, c.failRetry(seq, fmt.Sprintf("%v (%s)", large, c.s.Server()))
	}
	c.sent.Add(1)
	return true, nil
}

func (c *link) failRetry(seq uint64, reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return store(c.queue.FailRetry(ctx, seq, reason))
}

// ackRetry takes the broker's answer to a retried row. Its steps are rare, so each waits for the disk.
func (c *link) ackRetry(ctx context.Context, a mqtt.Ack) error {
	r := c.retry
	seq := r.rec.ID.Sequence
	r.progress = true
	switch {
	case a.Reason >= 0x80 && a.Kind != mqtt.Pubcomp:
		c.retry = nil
		reason := mqtt.Reason(a.Reason, a.Text)
		c.log.Error("retried event refused again", "sequence", seq, "reason", reason)
		return store(c.queue.FailRetry(ctx, seq, fmt.Sprintf("refused by %s: %s", c.s.Server(), reason)))
	case a.Kind == mqtt.Pubrec && r.rec.QoS == 2:
		if !r.released {
			if err := c.markRetry(ctx, seq); err != nil {
				return store(err)
			}
			r.released = true
		}
		c.dirty = true
		_ = c.s.Release(packetID(seq))
		return nil
	case a.Kind == mqtt.Pubcomp && r.released, a.Kind == mqtt.Puback && (r.rec.QoS == 1 || c.allow):
		c.retry = nil
		delete(c.failing, seq)
		c.acked.Add(1)
		c.queue.CompleteRetry(seq, queue.Receipt{Sequence: seq, Server: c.s.Server(), FirstSent: r.first, LastSent: r.first, Sent: 1})
		return nil
	case a.Kind == mqtt.Puback && !r.released:
		c.downgraded(seq)
		return nil
	}
	return fmt.Errorf("%w: %v for retried event %016d, which has not come that far", mqtt.ErrProtocol, a.Kind, seq)
}

// markRetry waits until the PUBREC of a retried row is on disk.
func (c *link) markRetry(ctx context.Context, seq uint64) error {
	done := make(chan error, 1)
	c.queue.ReleaseRetry(seq, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func store(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errStore, err)
}
