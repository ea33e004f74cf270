package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// PurgeDead removes the dead letters that no earlier event is under way for, and returns how many there were: the row of a later one is still
// there, and would come to life again. Consumers see their sequences as gaps for ever.
func (q *Queue) PurgeDead(ctx context.Context) (int, error) {
	if err := q.Update(ctx, func(*Tx) error { return nil }); err != nil { // takes along the marks that wait
		return 0, err
	}
	n := 0
	err := q.Update(ctx, func(tx *Tx) error {
		keys, err := tx.Keys(Kind(inDead))
		for _, k := range keys {
			if seq, _ := sequenceOf([]byte(k)); seq > tx.mark.Acked {
				break
			}
			n++
			err = errors.Join(err, tx.remove(inDead, []byte(k)), tx.dropRetry(binary.BigEndian.Uint64([]byte(k))))
		}
		tx.then = append(tx.then, func() { q.dead -= n })
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// PurgeQueued removes all events that were not handed to the sender yet, and appends a gap event that says so. It returns how many there were.
// What the sender has may be on its way at any moment, and the sender takes more than it sends at once: those events stay.
func (q *Queue) PurgeQueued(ctx context.Context) (int, error) {
	var p purge
	err := q.Update(ctx, func(tx *Tx) error {
		q.mu.Lock()
		p = purge{from: max(q.handed, q.pos.Released) + 1}
		q.held = p.from // the sender gets none of them meanwhile
		segs := q.segs
		q.mu.Unlock()
		for _, s := range segs {
			if s.first >= p.from {
				p.segs = append(p.segs, s)
			}
		}
		return p.run(tx)
	})
	q.mu.Lock()
	q.held = 0
	q.mu.Unlock()
	q.tellAdded()
	if err != nil {
		return 0, err
	}
	for _, s := range p.segs {
		q.removeSegment(s)
	}
	return p.rows, nil
}

type purge struct {
	from        uint64
	segs        []segment
	rows        int
	first, last uint64
}

func (p *purge) run(tx *Tx) error {
	for _, s := range p.segs {
		p.count(s.first, 0)
		p.count(s.last, s.rows)
		if err := tx.remove(inSegments, seqKey(s.first)); err != nil {
			return err
		}
	}
	err := tx.look(func(b *bolt.Tx) error {
		c := b.Bucket(bucketName[inRows]).Cursor()
		for k, _ := c.Seek(seqKey(p.from)); k != nil; k, _ = c.Next() {
			p.count(binary.BigEndian.Uint64(k), 1)
			tx.puts = append(tx.puts, put{bucket: inRows, key: bytes.Clone(k)})
		}
		return nil
	})
	if err != nil || p.rows == 0 {
		return err
	}
	q, from := tx.q, p.from
	tx.purged = true
	tx.mark.floor = max(tx.mark.floor, p.last)
	tx.then = append(tx.then, func() {
		q.cutHot(from)
		for _, s := range p.segs {
			q.segs = deleteSegment(q.segs, s)
		}
	})
	data, err := json.Marshal(map[string]any{"refused": p.rows, "first_sequence": fmt.Sprintf("%016d", p.first), "last_sequence": fmt.Sprintf("%016d", p.last), "reason": "purged by hand"})
	if err != nil {
		return err
	}
	_, err = tx.add(Event{Type: "gap", QoS: 1, Data: data, At: tx.now})
	return err
}

func (p *purge) count(seq uint64, rows int) {
	if p.first == 0 {
		p.first = seq
	}
	p.last = seq
	p.rows += rows
}
