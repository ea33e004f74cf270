package queue

import (
	"context"
	"time"
)

// Receipt tells of a finished row.
type Receipt struct {
	Sequence        uint64
	Server          string
	FirstSent       Stamp
	LastSent        Stamp
	Sent            int    // how often it was sent
	Reason          string // of the broker's acknowledgement, when it gave one (MQTT 5)
	accepted, acked Stamp
	store           uint32
}

// sentInfo is what is known of a row that was handed out.
type sentInfo struct {
	store    uint32
	accepted Stamp
	first    Stamp
	times    int
	server   string
}

// Begin starts a broker session and is durable when it returns. When the broker has lost the session (present is false), or it is another one,
// Released falls back to Acked; ambiguous is the number of QoS 2 rows that the broker may have had completely.
func (q *Queue) Begin(ctx context.Context, session string, present bool) (pos Position, ambiguous int, err error) {
	unsure := 0 // not the result: the transaction may outlive this call
	err = q.Update(ctx, func(tx *Tx) error {
		if !present || tx.mark.Session != session {
			unsure = int(tx.mark.Released - tx.mark.Acked)
			tx.mark.Released = tx.mark.Acked
		}
		if unsure > 0 || tx.mark.Session != session {
			tx.mark.epoch++
		}
		tx.mark.Session = session
		return nil
	})
	if err != nil { // the transaction may still run
		return q.Position(), 0, err
	}
	return q.Position(), unsure, nil
}

// Sent notes that a row was sent, and when, for Life.
func (q *Queue) Sent(seq uint64, server string, now Stamp) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.sent[seq]
	if s.times == 0 {
		s.first = now
	}
	s.times++
	s.server = server
	q.sent[seq] = s
}

// Release makes it durable that every QoS 2 row up to through has its PUBREC. done is called after the commit, on the owner's goroutine, and must not block.
func (q *Queue) Release(through uint64, done func(error)) {
	q.mu.Lock()
	q.marks.release = max(q.marks.release, through)
	q.marks.done = append(q.marks.done, done)
	q.mu.Unlock()
	q.poke()
}

// Complete notes that every row up to through is finished. It goes to disk with the next commit, after 64 rows, or after a second.
func (q *Queue) Complete(through uint64, receipts []Receipt) {
	now := q.opt.Now()
	q.mu.Lock()
	q.marks.ack = max(q.marks.ack, through)
	for _, r := range receipts {
		q.marks.receipts = append(q.marks.receipts, q.sign(r, now))
	}
	first := q.marks.since.IsZero()
	if first {
		q.marks.since = time.Now()
	}
	due := first || q.marks.urgent()
	q.tellMoved()
	q.mu.Unlock()
	if due { // else the owner knows when to look
		q.poke()
	}
}

// sign adds to a receipt what only the store knows; the caller holds mu.
func (q *Queue) sign(r Receipt, now Stamp) Receipt {
	s := q.sent[r.Sequence]
	r.acked, r.store, r.accepted = now, s.store, s.accepted
	if r.store == 0 {
		r.store = q.store
	}
	return r
}

// delivered leaves out the receipts of dead letters: they have a life of their own.
func (o *owner) delivered(receipts []Receipt) []Receipt {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buried) == 0 {
		return receipts
	}
	var out []Receipt
	for _, r := range receipts {
		if !o.buried[r.Sequence] {
			out = append(out, r)
		}
	}
	return out
}
