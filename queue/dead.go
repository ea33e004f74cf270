package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// deadLetter is a row that is not sent any more. It keeps its id and sequence for ever.
type deadLetter struct {
	Record
	Reason string
	Buried Stamp
	First  Stamp
	Sent   int
	Server string
}

func (d deadLetter) life() Life {
	return Life{ID: d.ID, State: StateDead, Type: d.Type, QoS: d.QoS, Accepted: d.Accepted, FirstSent: d.First, Sent: d.Sent, Server: d.Server, Reason: d.Reason}
}

func appendDead(v []byte, d deadLetter) ([]byte, error) {
	row, err := appendRow(nil, d.Record)
	if err != nil {
		return nil, err
	}
	v = binary.LittleEndian.AppendUint32(v, d.ID.Store)
	v = appendBytes(v, row)
	v = appendBytes(v, []byte(d.Reason))
	v = appendStamp(v, d.Buried)
	v = appendStamp(v, d.First)
	v = binary.AppendUvarint(v, uint64(d.Sent))
	return appendBytes(v, []byte(d.Server)), nil
}

func parseDead(f frame) (deadLetter, error) {
	d := decoder{b: f.value}
	store := d.uint32()
	r, err := parseRow(frame{store: store, bucket: inRows, key: f.key, value: d.bytes()})
	if err != nil {
		return deadLetter{}, err
	}
	l := deadLetter{Record: r, Reason: string(d.bytes()), Buried: d.stamp(), First: d.stamp(), Sent: int(d.uvarint()), Server: string(d.bytes())}
	if d.bad || len(d.b) != 0 {
		return deadLetter{}, fmt.Errorf("%w: dead letter %x", errDamaged, f.key)
	}
	return l, nil
}

// Bury makes a dead letter of a row: it is not sent any more, but kept with the reason, and can be retried.
func (q *Queue) Bury(ctx context.Context, seq uint64, reason string) error {
	r, err := q.find(seq)
	if err != nil {
		return fmt.Errorf("bury %d: %w", seq, err)
	}
	q.mu.Lock()
	s := q.sent[seq]
	q.mu.Unlock()
	err = q.Update(ctx, func(tx *Tx) error {
		if seq <= tx.mark.Acked {
			return ErrNotFound
		}
		v, err := appendDead(nil, deadLetter{r, reason, tx.now, s.first, s.times, s.server})
		if err != nil {
			return err
		}
		old, err := tx.get(inDead, seqKey(seq))
		if err != nil {
			return err
		}
		tx.then = append(tx.then, func() {
			if old == nil {
				q.dead++
			}
			q.buried[seq] = true
		})
		return tx.put(inDead, seqKey(seq), v)
	})
	if err != nil {
		return fmt.Errorf("bury %d: %w", seq, err)
	}
	return nil
}

func (q *Queue) deadLetter(seq uint64) (d deadLetter, err error) {
	err = q.view(func(b *bolt.Tx) error {
		v := b.Bucket(bucketName[inDead]).Get(seqKey(seq))
		if v == nil {
			return ErrNotFound
		}
		f, err := open(inDead, seqKey(seq), v)
		if err == nil {
			d, err = parseDead(f)
		}
		return err
	})
	return d, err
}

// deadAfter returns the next dead letters above a sequence; none when there are none.
func (q *Queue) deadAfter(after uint64) (out []deadLetter, err error) {
	err = q.view(func(b *bolt.Tx) error {
		c := b.Bucket(bucketName[inDead]).Cursor()
		size := 0
		for k, v := c.Seek(seqKey(after + 1)); k != nil && len(out) < pageRows && size < pageBytes; k, v = c.Next() {
			f, err := open(inDead, k, v)
			if err != nil {
				return err
			}
			d, err := parseDead(f)
			if err != nil {
				return err
			}
			out = append(out, d)
			size += len(v)
		}
		return nil
	})
	return out, err
}

// eachDead hands all dead letters above after to fn, in order, until it returns false.
func (q *Queue) eachDead(after uint64, fn func(deadLetter) bool) error {
	for {
		some, err := q.deadAfter(after)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, d := range some {
			if !fn(d) {
				return nil
			}
			after = d.ID.Sequence
		}
	}
}

// Retry puts a dead letter on the list of those that are sent again, alone, when nothing else is under way.
func (q *Queue) Retry(ctx context.Context, id ID) error {
	d, err := q.deadLetter(id.Sequence)
	if err == nil && d.ID != id {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("retry %s: %w among the dead letters", id, err)
	}
	err = q.Update(ctx, func(tx *Tx) error {
		if v, err := tx.get(inRetry, seqKey(id.Sequence)); v != nil || err != nil {
			return err // it is on the list, perhaps under way
		}
		tx.then = append(tx.then, func() { q.retries = append(q.retries, id.Sequence) })
		return tx.put(inRetry, seqKey(id.Sequence), []byte{0})
	})
	if err != nil {
		return fmt.Errorf("retry %s: %w", id, err)
	}
	q.tellAdded()
	return nil
}

// NextRetry returns the next dead letter to send again. released says that its PUBREC is on disk.
func (q *Queue) NextRetry() (r Record, released, ok bool) {
	q.mu.Lock()
	var due []uint64
	for _, seq := range q.retries {
		if !q.retried[seq] && q.err == nil && seq <= max(q.pos.Acked, q.marks.ack) { // its row must be gone first
			due = append(due, seq)
		}
	}
	q.mu.Unlock()
	for _, seq := range due {
		d, err := q.deadLetter(seq)
		if err == nil {
			err = q.View(func(tx *Tx) error {
				v, err := tx.get(inRetry, seqKey(seq))
				released = len(v) == 1 && v[0] == 1
				return known(v != nil, err)
			})
		}
		if err == nil {
			return d.Record, released, true
		}
	}
	return Record{}, false, false
}

// ReleaseRetry makes it durable that the retried row has its PUBREC. done is called after the commit, on the owner's goroutine, and must not block.
func (q *Queue) ReleaseRetry(seq uint64, done func(error)) {
	q.mu.Lock()
	q.marks.retryReleases = append(q.marks.retryReleases, seq)
	q.marks.done = append(q.marks.done, done)
	q.mu.Unlock()
	q.poke()
}

// ForgetRetryMarks makes retried rows start over: the broker has lost its session.
func (q *Queue) ForgetRetryMarks(ctx context.Context) error {
	q.mu.Lock()
	n := len(q.retries)
	q.mu.Unlock()
	if n == 0 {
		return nil
	}
	return q.Update(ctx, func(tx *Tx) error {
		keys, err := tx.Keys(Kind(inRetry))
		for _, k := range keys {
			err = errors.Join(err, tx.put(inRetry, []byte(k), []byte{0}))
		}
		return err
	})
}

// CompleteRetry ends a retry: the row is delivered, and no dead letter any more. It is not handed out again, and goes to disk with the next commit.
func (q *Queue) CompleteRetry(seq uint64, r Receipt) {
	r.Sequence, r.acked = seq, q.opt.Now()
	q.mu.Lock()
	q.retried[seq] = true
	q.marks.retried = append(q.marks.retried, r)
	q.mu.Unlock()
	q.poke()
}

// retries adds to a batch what became of dead letters that were sent again.
func (tx *Tx) retries(m *pendingMarks) error {
	for _, seq := range m.retryReleases {
		if v, err := tx.get(inRetry, seqKey(seq)); err != nil {
			return err
		} else if v == nil {
			continue // purged
		}
		if err := tx.put(inRetry, seqKey(seq), []byte{1}); err != nil {
			return err
		}
	}
	for _, r := range m.retried {
		if err := tx.completeRetry(r); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) completeRetry(r Receipt) error {
	q := tx.q
	v, err := tx.get(inDead, seqKey(r.Sequence))
	if err != nil {
		return err
	}
	tx.then = append(tx.then, func() { delete(q.retried, r.Sequence) })
	if v == nil { // purged in the meantime
		return nil
	}
	d, err := parseDead(frame{bucket: inDead, key: seqKey(r.Sequence), value: v})
	if err != nil {
		return err
	}
	r.store, r.accepted = d.ID.Store, d.Accepted
	if d.Sent > 0 {
		r.FirstSent = d.First
	}
	r.Sent += d.Sent
	tx.receipts = append(tx.receipts, r)
	if err := tx.remove(inDead, seqKey(r.Sequence)); err != nil {
		return err
	}
	tx.then = append(tx.then, func() { q.dead-- })
	return tx.dropRetry(r.Sequence)
}

// FailRetry takes a row off the list; it stays a dead letter, for the new reason.
func (q *Queue) FailRetry(ctx context.Context, seq uint64, reason string) error {
	return q.Update(ctx, func(tx *Tx) error {
		v, err := tx.get(inDead, seqKey(seq))
		if v == nil || err != nil {
			return err
		}
		d, err := parseDead(frame{bucket: inDead, key: seqKey(seq), value: v})
		if err != nil {
			return err
		}
		d.Reason = reason
		if v, err = appendDead(nil, d); err != nil {
			return err
		}
		if err := tx.put(inDead, seqKey(seq), v); err != nil {
			return err
		}
		return tx.dropRetry(seq)
	})
}

func (tx *Tx) dropRetry(seq uint64) error {
	q := tx.q
	tx.then = append(tx.then, func() {
		if i := slices.Index(q.retries, seq); i >= 0 {
			q.retries = slices.Delete(slices.Clone(q.retries), i, i+1)
		}
	})
	return tx.remove(inRetry, seqKey(seq))
}
