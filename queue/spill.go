package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// spilled is a segment that is on disk and waits for the commit that takes its rows out of the database.
type spilled struct {
	seg  segment
	seqs []uint64
}

// spillAt says how much the database may hold, and how long a segment is; both fit into max_size.
func (o *Options) spillAt() (hot, seg int64) {
	return min(hotBytes, o.MaxSize/8), min(spillBytes, o.MaxSize/16)
}

// makeSpill writes the oldest rows to a segment when the database holds too many. An error leaves them where they are.
func (o *owner) makeSpill() *spilled {
	hot, size := o.opt.spillAt()
	o.mu.Lock()
	over := o.hot.rows > hotRows || o.hot.bytes > hot
	from := max(o.hotFirst, o.pos.Acked+1)
	o.mu.Unlock()
	if !over {
		o.unspilled = nil
		return nil
	}
	s := &spilled{}
	var data []byte
	err := o.view(func(b *bolt.Tx) error {
		c := b.Bucket(bucketName[inRows]).Cursor()
		for k, v := c.Seek(seqKey(from)); k != nil && int64(len(data)) < size; k, v = c.Next() {
			r, err := rowOf(k, v)
			if err != nil {
				return err
			}
			s.seqs = append(s.seqs, r.ID.Sequence)
			data = append(data, v...)
		}
		return nil
	})
	if err != nil || len(s.seqs) == 0 {
		return nil
	}
	s.seg = segment{first: s.seqs[0], last: s.seqs[len(s.seqs)-1], rows: len(s.seqs), bytes: int64(len(data))}
	o.crash("before segment")
	if err := writeSegment(filepath.Join(o.dir, segmentDir), s.seg, data); err != nil {
		o.dropSpill(s)
		o.unspilled = fmt.Errorf("move older events out of the database: %w", err)
		return nil
	}
	o.unspilled = nil
	o.crash("after segment")
	return s
}

// dropSpill removes a segment that no commit will know.
func (o *owner) dropSpill(s *spilled) {
	if err := os.Remove(filepath.Join(o.dir, segmentDir, s.seg.name())); err != nil && !errors.Is(err, os.ErrNotExist) {
		o.log.Error("segment not removed", "file", s.seg.name(), "err", err)
	}
}

// tidySegments removes files that no transaction knows: a cut came between the file and its commit, or between a commit and the removal.
// It returns the segments that are missing.
func (q *Queue) tidySegments(m *memory) (missing []segment, err error) {
	found, err := segmentFiles(filepath.Join(q.dir, segmentDir))
	if err != nil {
		return nil, err
	}
	for _, s := range m.segs {
		if _, ok := found[s.name()]; !ok {
			missing = append(missing, s)
		}
		delete(found, s.name())
	}
	for _, s := range found {
		q.removeSegment(s)
	}
	return missing, nil
}

func (q *Queue) removeSegment(s segment) {
	if err := os.Remove(filepath.Join(q.dir, segmentDir, s.name())); err != nil && !errors.Is(err, os.ErrNotExist) {
		q.log.Error("segment not removed", "file", s.name(), "err", err)
	}
}

func deleteSegment(segs []segment, g segment) []segment {
	var out []segment // a copy: readers may hold the old one
	for _, s := range segs {
		if s.first != g.first {
			out = append(out, s)
		}
	}
	return out
}
