package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// Whoever reads rows looks, in one transaction, which segment has them, or takes them from the database. So a row that is being moved to a
// segment is neither missed nor met twice.

const (
	pageRows  = 256
	pageBytes = 256 << 10
)

// page returns the next rows above after, at most limit of them and about maxBytes; none when there are none. r keeps the place in a segment.
func (q *Queue) page(after uint64, limit, maxBytes int, r *segmentReader) ([]Record, *segmentReader, error) {
	for try := 0; ; {
		var rows []Record
		var seg segment
		err := q.view(func(b *bolt.Tx) (err error) {
			rows = nil
			if seg, err = segmentAfter(b, after); err == nil && seg.first == 0 {
				rows, err = rowsAfter(b, after, limit, maxBytes)
			}
			return err
		})
		if err != nil || seg.first == 0 {
			return rows, nil, err
		}
		if r == nil || r.seg.first != seg.first || r.at > after {
			r, err = openSegment(filepath.Join(q.dir, segmentDir), seg)
			if errors.Is(err, fs.ErrNotExist) && try < 3 {
				try++ // finished or purged in the meantime, perhaps
				continue
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, nil, err
			}
			if err != nil {
				r = &segmentReader{seg: seg}
			}
		}
		rows = r.take(after, limit, maxBytes)
		if len(rows) > 0 && r.at < seg.last {
			return rows, r, nil
		}
		q.noteSegment(r)
		if len(rows) > 0 {
			return rows, nil, nil
		}
		after, r = seg.last, nil
	}
}

// segmentAfter returns the first segment with rows above after; its first is 0 when there is none.
func segmentAfter(b *bolt.Tx, after uint64) (segment, error) {
	c := b.Bucket(bucketName[inSegments]).Cursor()
	k, v := c.Seek(seqKey(after + 1))
	at := func(k, v []byte) (segment, error) {
		f, err := open(inSegments, k, v)
		if err != nil {
			return segment{}, err
		}
		return parseSegment(f.value)
	}
	pk, pv := c.Prev() // the one that begins before, and may still go on
	if k == nil {
		pk, pv = c.Last()
	}
	if pk != nil && !bytes.Equal(pk, k) {
		if s, err := at(pk, pv); err != nil || s.last > after {
			return s, err
		}
	}
	if k == nil {
		return segment{}, nil
	}
	return at(k, v)
}

func rowsAfter(b *bolt.Tx, after uint64, limit, maxBytes int) (rows []Record, err error) {
	c := b.Bucket(bucketName[inRows]).Cursor()
	size := 0
	for k, v := c.Seek(seqKey(after + 1)); k != nil && len(rows) < limit && size < maxBytes; k, v = c.Next() {
		r, err := rowOf(k, v)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
		size += len(v)
	}
	return rows, nil
}

func rowOf(k, v []byte) (Record, error) {
	f, err := open(inRows, k, v)
	if err != nil {
		return Record{}, err
	}
	return parseRow(f)
}

// noteSegment tells, once, what a segment does not have any more. The caller has read it to its end.
func (q *Queue) noteSegment(r *segmentReader) {
	lost := r.seg.rows - r.whole
	if lost <= 0 || q.opt.ReadOnly {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.segs {
		if s := &q.segs[i]; s.first == r.seg.first && !s.reported {
			q.loseRows(s, lost)
		}
	}
}

// loseRows tells of rows of a segment that are lost; the caller holds mu.
func (q *Queue) loseRows(s *segment, lost int) {
	q.log.Error("a segment of the outbox is damaged: some of its events are lost", "file", s.name(), "events", lost)
	q.addDamage(Damage{Cause: "damaged segment " + s.name(), Lost: []string{fmt.Sprintf("%d of the %d events from %d to %d", lost, s.rows, s.first, s.last)}})
	q.stats.lost += uint64(lost)
	s.rows -= lost
	s.reported = true
}

// each hands rows above after to fn, in order, until it returns false. fn runs outside of every transaction.
func (q *Queue) each(after uint64, fn func(Record) bool) error {
	var r *segmentReader
	for {
		rows, next, err := q.page(after, pageRows, pageBytes, r)
		if err != nil || len(rows) == 0 {
			return err
		}
		r, after = next, rows[len(rows)-1].ID.Sequence
		for _, row := range rows {
			if !fn(row) {
				return nil
			}
		}
	}
}

// Next returns rows above after, in order, at most limit of them and about maxBytes. It returns none when there are none.
// Sequences can have holes where rows were purged, buried or damaged. While the disk refuses commits it returns ErrDisk: nothing new must be sent then.
func (q *Queue) Next(after uint64, limit, maxBytes int) ([]Record, error) {
	q.readMu.Lock()
	defer q.readMu.Unlock()
	for {
		rows, all, err := q.recentRows(&after, limit, maxBytes)
		if err != nil {
			return nil, err
		}
		if !all {
			if rows, q.reader, err = q.page(after, limit, maxBytes, q.reader); err != nil {
				return nil, err
			}
		}
		if len(rows) == 0 {
			return nil, nil
		}
		after = rows[len(rows)-1].ID.Sequence
		if rows = q.hand(rows); len(rows) > 0 {
			return rows, nil
		}
	}
}

// recentRows takes rows from memory; all says that they need not be looked for on disk.
func (q *Queue) recentRows(after *uint64, limit, maxBytes int) (rows []Record, all bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	*after = max(*after, q.pos.Acked)
	switch {
	case q.err != nil:
		return nil, false, fmt.Errorf("%w: %w", ErrDisk, q.err)
	case *after >= q.pos.Last, q.held > 0 && *after+1 >= q.held:
		return nil, true, nil
	case len(q.recent) == 0 || q.recent[0].ID.Sequence > *after+1:
		return nil, false, nil
	}
	size := 0
	from := min(int(*after+1-q.recent[0].ID.Sequence), len(q.recent))
	for _, r := range q.recent[from:] {
		if len(rows) == limit || size >= maxBytes {
			break
		}
		rows = append(rows, r)
		size += len(r.Data)
	}
	return rows, true, nil
}

// hand notes that rows go to the sender, and leaves out those that must not.
func (q *Queue) hand(rows []Record) []Record {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := rows[:0]
	for _, r := range rows {
		seq := r.ID.Sequence
		if q.held > 0 && seq >= q.held {
			break
		}
		if q.buried[seq] || seq <= q.pos.Acked {
			continue
		}
		out = append(out, r)
		s := q.sent[seq]
		s.store, s.accepted = r.ID.Store, r.Accepted
		q.sent[seq] = s
		q.handed = max(q.handed, seq)
	}
	return out
}

// find returns the row with a sequence, wherever it lies.
func (q *Queue) find(seq uint64) (Record, error) {
	var r Record
	var seg segment
	err := q.view(func(b *bolt.Tx) (err error) {
		if v := b.Bucket(bucketName[inRows]).Get(seqKey(seq)); v != nil {
			r, err = rowOf(seqKey(seq), v)
			return err
		}
		seg, err = segmentAfter(b, seq-1)
		return err
	})
	if err != nil || r.ID.Sequence != 0 {
		return r, err
	}
	if seg.first == 0 || seg.first > seq {
		return Record{}, ErrNotFound
	}
	sr, err := openSegment(filepath.Join(q.dir, segmentDir), seg)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Record{}, err
	}
	if err == nil {
		if rows := sr.take(seq-1, 1, 1); len(rows) == 1 && rows[0].ID.Sequence == seq {
			return rows[0], nil
		}
	}
	return Record{}, ErrNotFound
}

func sequenceOf(key []byte) (uint64, bool) {
	if len(key) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key), true
}
