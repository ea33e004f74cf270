package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// link is the engine on one connection.
type link struct {
	*delivery
	s      session
	limits mqtt.Limits
	allow  bool
	size   int
	w      *window

	rows    []queue.Record // read, not yet in the window
	last    uint64         // newest row read
	more    bool           // the store may have rows above last
	asked   uint64         // mark that was asked for
	stuck   bool           // no further row on this connection
	going   bool           // back to the first server, once nothing is in flight
	open    time.Time      // rows may go from then on
	retry   *retried
	payload []byte
	dress   *dresser        // nil: no properties
	props   mqtt.Properties // used again for each row
	ids     []uint16
	dirty   bool

	firstSeq uint64 // first row sent on this connection that is not finished
	firstAt  time.Time
	progress bool

	noticeDue bool
	noticeOut *notice

	ready  chan struct{} // a mark is on disk, or failed
	markMu sync.Mutex
	mark   uint64
	failed error
}

func (c *link) run(ctx context.Context) error {
	if c.escape.isolated {
		c.open, c.w.size = time.Now().Add(isolateAfter), 1
	}
	timer := time.NewTimer(turnEvery)
	defer timer.Stop()
	for {
		c.turn.now()
		for moved := true; moved; moved = c.settle() { // rows that are finished at once make room for more
			if err := c.fill(ctx); err != nil {
				return err
			}
		}
		if err := c.sendNotice(); err != nil {
			return nil // the connection has ended; whoever ended it knows why
		}
		if c.dirty {
			c.dirty = false
			if c.s.Flush() != nil {
				return nil
			}
		}
		if err := c.left(); err != nil {
			return err
		}
		leave := leaving(c.s)
		if c.going {
			leave = nil
		}
		timer.Reset(c.wait())
		select {
		case <-leave:
			c.going, c.stuck = true, true
		case <-ctx.Done():
			return nil
		case acks, ok := <-c.s.Acks():
			if !ok {
				return nil
			}
			if err := c.take(ctx, acks); err != nil {
				return err
			}
		case <-c.ready:
			if err := c.releaseMarked(); err != nil {
				return err
			}
		case <-c.queue.Added():
			c.more = true
		case <-c.changed:
			c.noticeDue = true
		case <-timer.C:
		}
		c.settle()
	}
}

func (c *link) wait() time.Duration {
	if d := time.Until(c.open); d > 0 && !c.open.IsZero() {
		return d
	}
	return turnEvery
}

// fill sends rows as long as there is room.
func (c *link) fill(ctx context.Context) error {
	if c.stuck || c.retry != nil || time.Now().Before(c.open) {
		return nil
	}
	if !c.escape.isolated {
		if busy, err := c.fillRetry(); busy || err != nil {
			return err
		}
	}
	var now queue.Stamp
	for {
		if len(c.rows) == 0 {
			if !c.more || !c.w.room(c.last+1, c.lastQoS(), 0) {
				break
			}
			rows, err := c.queue.Next(c.last, readRows, readBytes)
			if err != nil {
				return fmt.Errorf("%w: %w", errStore, err)
			}
			if len(rows) == 0 {
				c.more = false
				break
			}
			c.rows, c.last = rows, rows[len(rows)-1].ID.Sequence
		}
		r := c.rows[0]
		qos, ok := c.qos(r)
		size := len(r.Data) + 300
		if !ok || !c.w.room(r.ID.Sequence, qos, size) {
			break
		}
		c.rows = c.rows[1:]
		if now.Wall.IsZero() {
			now = c.clock.Now()
		}
		if sent, err := c.send(ctx, r, qos, size, now); err != nil || !sent {
			return err
		}
	}
	c.mu.Lock()
	c.inFlight = len(c.w.rows)
	c.mu.Unlock()
	return nil
}

// lastQoS is only there so that room can be asked before the next row is known.
func (c *link) lastQoS() byte {
	if n := len(c.w.rows); n > 0 {
		return c.w.rows[n-1].qos
	}
	return 1
}

// take handles acknowledgements that came together, and all that wait behind them.
func (c *link) take(ctx context.Context, acks []mqtt.Ack) error {
	for {
		for _, a := range acks {
			if err := c.ack(ctx, a); err != nil {
				return err
			}
		}
		select {
		case acks = <-c.s.Acks():
		default:
			return nil
		}
	}
}

func (c *link) ack(ctx context.Context, a mqtt.Ack) error {
	if a.ID == noticeID && a.Kind == mqtt.Puback {
		c.noticeAnswered(a)
		return nil
	}
	if c.retry != nil && a.ID == packetID(c.retry.rec.ID.Sequence) {
		return c.ackRetry(ctx, a)
	}
	v, seq := c.w.ack(a)
	switch v {
	case ackProgress:
		c.progress = true
	case ackRelease:
		c.dirty = true
		_ = c.s.Release(a.ID)
	case ackRefused:
		if mqtt.Transient(a.Reason) {
			return fmt.Errorf("%s does not take event %016d now: %s", c.s.Server(), seq, mqtt.Reason(a.Reason, a.Text))
		}
		c.progress = true
		return c.bury(ctx, seq, fmt.Sprintf("refused by %s: %s", c.s.Server(), mqtt.Reason(a.Reason, a.Text)))
	case ackDowngrade:
		c.progress = true
		c.downgraded(seq)
	case ackViolation:
		return fmt.Errorf("%w: %v for event %016d, which has not come that far", mqtt.ErrProtocol, a.Kind, seq)
	}
	return nil
}

func (c *link) downgraded(seq uint64) {
	server := c.s.Server()
	c.noQoS2[server] = time.Now()
	if c.allow {
		c.limit(server, atQoS1(server))
		return
	}
	c.stuck = true
	c.limit(server, noQoS2(server))
	c.hold(noQoS2(server))
}

// bury makes a dead letter of a row in the window. The row is gone only when that is on disk.
func (c *link) bury(ctx context.Context, seq uint64, reason string) error {
	if err := c.queue.Bury(ctx, seq, reason); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	c.log.Error("event set aside as a dead letter", "sequence", seq, "reason", reason)
	c.w.finish(seq)
	return nil
}

// settle passes on to the store what came forward: marks to make durable, and finished rows. moved says that there is new room.
func (c *link) settle() (moved bool) {
	if through := c.w.markable(); through > max(c.asked, c.w.released) {
		c.asked = through
		c.askMark(through)
	}
	done := c.w.take()
	if len(done) == 0 {
		return false
	}
	if c.escape.isolated { // whatever it was, it is over
		c.escape, c.w.size, c.open = escape{}, c.size, time.Time{}
	}
	if d, _ := c.status(); d != "" {
		c.hold("")
	}
	receipts := make([]queue.Receipt, len(done))
	for i, f := range done {
		t := c.tries[f.seq]
		delete(c.tries, f.seq)
		receipts[i] = queue.Receipt{Sequence: f.seq, Server: c.s.Server(), FirstSent: t.first, LastSent: t.last, Sent: t.times}
		if f.reason != 0 {
			receipts[i].Reason = mqtt.Reason(f.reason, "")
		}
	}
	last := done[len(done)-1].seq
	if c.firstSeq <= last {
		c.firstSeq, c.firstAt = c.w.first(), time.Now()
	}
	c.acked.Add(uint64(len(done)))
	faultPoint("before complete")
	c.queue.Complete(last, receipts)
	faultPoint("after complete")
	return true
}

// askMark makes a mark durable; its PUBRELs follow when it is.
func (c *link) askMark(through uint64) {
	c.marks.Add(1)
	faultPoint("before mark")
	c.queue.Release(through, func(err error) {
		faultPoint("after mark")
		c.markMu.Lock()
		if err != nil {
			c.failed = err
		} else {
			c.mark = max(c.mark, through)
		}
		c.markMu.Unlock()
		c.marks.Done()
		select {
		case c.ready <- struct{}{}:
		default:
		}
	})
}

// releaseMarked sends the PUBRELs for which the mark is on disk.
func (c *link) releaseMarked() error {
	c.markMu.Lock()
	through, err := c.mark, c.failed
	c.markMu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	c.ids = c.w.marked(through, c.ids[:0])
	for _, id := range c.ids {
		faultPoint("before pubrel")
		if c.s.Release(id) != nil {
			return nil
		}
		c.dirty = true
		faultPoint("after pubrel")
	}
	return nil
}
