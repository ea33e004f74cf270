package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sort"
)

// States of an event's life.
const (
	StateQueued = "queued"
	StateSent   = "sent"
	StateAcked  = "acknowledged"
	StateDead   = "dead"
)

// Life is what became of an event.
type Life struct {
	ID           ID
	State        string
	Type         string // "" when only the audit trail knows it
	QoS          byte
	Accepted     Stamp
	FirstSent    Stamp // zero: not sent, or not by this run
	Sent         int
	Acknowledged Stamp
	Server       string
	Reason       string // why it is dead
}

// Wait returns when the event is acknowledged or dead, or ctx ends.
func (q *Queue) Wait(ctx context.Context, id ID) (Life, error) {
	q.mu.Lock()
	q.waiting++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.waiting--
		q.mu.Unlock()
	}()
	for {
		q.mu.Lock()
		ended := id.Sequence <= max(q.pos.Acked, q.marks.ack) || q.buried[id.Sequence]
		moved := q.moved
		q.mu.Unlock()
		if ended {
			return q.Life(id)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			l, err := q.Life(id)
			return l, errors.Join(err, context.Cause(ctx))
		case <-q.stopped:
			return Life{}, ErrClosed
		}
	}
}

// Life returns what became of an event. Delivered ones are known as long as KeepDelivered says.
func (q *Queue) Life(id ID) (Life, error) {
	l := Life{ID: id}
	q.mu.Lock()
	last, acked, pendingAck := q.pos.Last, q.pos.Acked, q.marks.ack
	s := q.sent[id.Sequence]
	for _, r := range q.marks.receipts {
		if r.id() == id && !q.buried[id.Sequence] {
			q.mu.Unlock()
			return r.life(), nil
		}
	}
	q.mu.Unlock()
	if id.Sequence == 0 || id.Sequence > last {
		return l, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if d, err := q.deadLetter(id.Sequence); err == nil && d.ID == id {
		return d.life(), nil
	} else if err != nil && !errors.Is(err, ErrNotFound) {
		return l, err
	}
	if id.Sequence > acked {
		r, err := q.find(id.Sequence)
		if err != nil || r.ID != id {
			return l, fmt.Errorf("%s: %w", id, ErrNotFound)
		}
		l.State, l.Accepted, l.Type, l.QoS = StateQueued, r.Accepted, r.Type, r.QoS
		if s.times > 0 {
			l.State, l.FirstSent, l.Sent, l.Server = StateSent, s.first, s.times, s.server
		}
		if id.Sequence <= pendingAck {
			l.State = StateAcked
		}
		return l, nil
	}
	r, err := q.receipt(id)
	if err != nil {
		return l, err
	}
	return r.life(), nil
}

// Record returns an event that is queued or dead.
func (q *Queue) Record(id ID) (Record, error) {
	if d, err := q.deadLetter(id.Sequence); err == nil && d.ID == id {
		return d.Record, nil
	}
	r, err := q.find(id.Sequence)
	if err == nil && (r.ID != id || id.Sequence <= q.Position().Acked) {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", id, err)
	}
	return r, nil
}

// List returns up to limit events above after that are in one of the states queued, sent or dead ("" for all of these), oldest first.
func (q *Queue) List(after uint64, limit int, state string) ([]Life, error) {
	if limit < 1 {
		return nil, nil
	}
	var out []Life
	if state == "" || state == StateDead {
		if err := q.eachDead(after, func(d deadLetter) bool { out = append(out, d.life()); return len(out) < limit }); err != nil {
			return nil, err
		}
	}
	dead := len(out)
	if state != StateDead {
		sent, buried, acked := q.inFlight()
		err := q.each(max(after, acked), func(r Record) bool {
			s, gone := sent[r.ID.Sequence], buried[r.ID.Sequence]
			l := Life{ID: r.ID, State: StateQueued, Type: r.Type, QoS: r.QoS, Accepted: r.Accepted}
			if s.times > 0 {
				l.State, l.FirstSent, l.Sent, l.Server = StateSent, s.first, s.times, s.server
			}
			if !gone && (state == "" || state == l.State) {
				out = append(out, l)
			}
			return len(out)-dead < limit
		})
		if err != nil {
			return nil, err
		}
	}
	sort.Slice(out, func(a, b int) bool { return out[a].ID.Sequence < out[b].ID.Sequence })
	return out[:min(len(out), limit)], nil
}

// inFlight copies what the sender knows.
func (q *Queue) inFlight() (sent map[uint64]sentInfo, buried map[uint64]bool, acked uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.sent), maps.Clone(q.buried), max(q.pos.Acked, q.marks.ack)
}

// Export writes all events that are queued or dead to w, one JSON object a line, oldest first.
func (q *Queue) Export(w io.Writer) (int, error) {
	n := 0
	var err error
	line := func(r Record, state, reason string) bool {
		var b []byte
		b, err = json.Marshal(map[string]any{"id": r.ID.String(), "sequence": fmt.Sprintf("%016d", r.ID.Sequence), "type": r.Type, "topic": r.Topic, "qos": r.QoS, "time": r.At.Wall,
			"clock": r.At.Clock.String(), "accepted_at": r.Accepted.Wall, "data": r.Data, "properties": r.Properties, "state": state, "reason": reason})
		if err == nil {
			_, err = w.Write(append(b, '\n'))
		}
		n++
		return err == nil
	}
	if derr := q.eachDead(0, func(d deadLetter) bool { return line(d.Record, StateDead, d.Reason) }); derr != nil || err != nil {
		return n, errors.Join(derr, err)
	}
	_, buried, acked := q.inFlight()
	if serr := q.each(acked, func(r Record) bool { return buried[r.ID.Sequence] || line(r, StateQueued, "") }); serr != nil {
		return n, serr
	}
	return n, err
}
