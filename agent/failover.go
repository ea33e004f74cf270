package agent

import (
	"context"
	"encoding/json"
	"fmt"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

const failoverKey = "failover" // in queue.Misc

// failover is what must be known when the device goes from one broker to another. The marks of one broker mean nothing to the next.
type failover struct {
	// Left are the sessions at other brokers. true: QoS 2 events may be stuck in it, so it cannot be used again: a packet id that comes back would be taken for a repetition.
	Left map[string]bool `json:"left,omitempty"`
	// Events with these sequences may have been delivered by a broker that was left, or has lost its session. They say so when they are sent again.
	From    uint64 `json:"from,omitempty"`
	Through uint64 `json:"through,omitempty"`
}

func (f failover) doubtful(seq uint64) bool { return seq >= f.From && seq <= f.Through }

func (d *delivery) loadFailover() (f failover, err error) {
	err = d.queue.View(func(tx *queue.Tx) error {
		b, err := tx.Get(queue.Misc, failoverKey)
		if b != nil && err == nil {
			err = json.Unmarshal(b, &f)
		}
		return err
	})
	if f.Left == nil {
		f.Left = map[string]bool{}
	}
	return f, err
}

// key names the session of a connection, for this store.
func (d *delivery) key(s session) string { return fmt.Sprintf("%s %08x", s.Key(), d.queue.Store()) }

// change goes to the session key, durably before anything is sent in it. usable says that the broker has a session in which nothing of ours is stuck, or none;
// handed is the number of events that another broker may have delivered.
func (d *delivery) change(ctx context.Context, key string, present bool) (usable bool, handed uint64, err error) {
	pos := d.queue.Position()
	f, err := d.loadFailover()
	if err != nil {
		return false, 0, err
	}
	switched := pos.Session != "" && pos.Session != key
	stuck, known := f.Left[key]
	usable = !present || pos.Session == key || known && !stuck
	if switched {
		if f.Left[pos.Session], err = d.stuckAt(pos); err != nil {
			return false, 0, err
		}
	}
	if usable {
		delete(f.Left, key)
	}
	lost := pos.Session != "" && (switched || !present)
	if n := pos.Released - pos.Acked; usable && lost && n > 0 {
		f.From, f.Through = pos.Acked+1, max(f.Through, pos.Released)
		if switched {
			handed = n
		}
	}
	if switched || lost {
		for len(f.Left) > 16 { // more brokers than anyone has
			for k := range f.Left {
				delete(f.Left, k)
				break
			}
		}
		if err := d.queue.Update(ctx, func(tx *queue.Tx) error { return tx.Put(queue.Misc, failoverKey, mustJSON(f)) }); err != nil {
			return false, 0, err
		}
	}
	d.failover = f
	return usable, handed, nil
}

// stuckAt says whether a QoS 2 event may be in flight in the session of pos.
func (d *delivery) stuckAt(pos queue.Position) (bool, error) {
	through := d.sentThrough
	if d.session != pos.Session {
		through = min(pos.Acked+knownRows, pos.Last)
	}
	for after := pos.Acked; after < through; {
		rows, err := d.queue.Next(after, readRows, readBytes)
		if err != nil || len(rows) == 0 {
			return false, err
		}
		for _, r := range rows {
			if r.ID.Sequence <= through && r.QoS == 2 {
				return true, nil
			}
		}
		after = rows[len(rows)-1].ID.Sequence
	}
	return false, nil
}

// waits says why nothing goes to another broker than before: events whose handshake only the other one can end, and the owner wants them to wait for it.
func (d *delivery) waits(s session, hold bool) string {
	pos := d.queue.Position()
	if n := pos.Released - pos.Acked; hold && pos.Session != "" && pos.Session != d.key(s) && n > 0 {
		return fmt.Sprintf("%d events at QoS 2 may have been delivered by another broker already; they wait for it, and %s gets none (mqtt.failover.events: hold)", n, s.Server())
	}
	return ""
}

// leaving is the wish of the connection to go back to the first server, nil when it has none.
func leaving(s session) <-chan struct{} {
	if l, ok := s.(interface{ Leave() <-chan struct{} }); ok {
		return l.Leave()
	}
	return nil
}

// left says that nothing is in flight any more, so that the connection can be changed without a doubt about any event.
func (c *link) left() error {
	if !c.going || len(c.w.rows) > 0 || c.retry != nil || c.noticeOut != nil {
		return nil
	}
	return mqtt.ErrReturn
}
