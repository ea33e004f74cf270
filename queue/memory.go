package queue

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// memory is what is kept of the database in memory. It does not grow with the backlog.
type memory struct {
	store     uint32
	gen       uint64   // commits, ever
	pos       Position // as committed
	floor     uint64   // rows up to here existed, whatever was purged
	epoch     uint64   // of the slots that count
	hot       rowCount
	hotFirst  uint64 // of the rows in the database; 0 none
	hotSizes  []int32
	kept      int64 // bytes of all that is no row
	segs      []segment
	recent    []Record // the newest rows, without holes
	recentLen int64
	gap       gapCount
	retries   []uint64
	blocks    []auditBlock
	buried    map[uint64]bool // dead letters that the mark has not passed yet
	dead      int
	report    []byte // damage that no alarm event tells of yet
}

type rowCount struct {
	rows  int
	bytes int64
}

// load reads what is kept of it. Every record's checksum is read once at each start: the file is small.
func load(db *bolt.DB) (m memory, err error) {
	err = db.View(func(b *bolt.Tx) error {
		f, err := metaOf(b)
		if err != nil {
			return err
		}
		m.store = f.store
		return m.load(b)
	})
	return m, err
}

func (m *memory) load(b *bolt.Tx) error {
	m.buried = map[uint64]bool{}
	l := loader{memory: m}
	for bucket := inMeta; bucket < bucketEnd; bucket++ {
		bb := b.Bucket(bucketName[bucket])
		if bb == nil {
			return fmt.Errorf("%w: no bucket %s", errDamaged, bucketName[bucket])
		}
		err := bb.ForEach(func(k, v []byte) error {
			f, err := open(bucket, k, v)
			if err != nil {
				return err
			}
			m.gen = max(m.gen, f.gen)
			if bucket != inRows {
				m.kept += int64(len(v))
			}
			return l.take(f, len(v))
		})
		if err != nil {
			return err
		}
	}
	return l.end()
}

type loader struct {
	*memory
	mark mark
	last uint64
	dead []uint64
}

func (l *loader) take(f frame, size int) (err error) {
	seq, ok := sequenceOf(f.key)
	switch f.bucket {
	case inRows, inSegments, inAudit, inDead, inRetry:
		if !ok {
			return fmt.Errorf("%w in %s", errDamaged, bucketName[f.bucket])
		}
	}
	switch f.bucket {
	case inRows:
		if seq <= l.last {
			return fmt.Errorf("%w: row %d", errDamaged, seq)
		}
		l.last = seq
		l.countRow(seq, int32(size))
	case inState:
		switch string(f.key) {
		case string(markKey):
			l.mark, err = parseMark(f.value)
		case string(gapKey):
			l.gap, err = parseGap(f.value)
		case string(damageKey):
			l.report = append([]byte(nil), f.value...)
		}
	case inSegments:
		var s segment
		if s, err = parseSegment(f.value); err == nil {
			l.segs = append(l.segs, s)
		}
	case inAudit:
		var e []auditEntry
		if e, err = parseAudit(f.value); err == nil {
			l.blocks = append(l.blocks, auditBlock{seq, len(e)})
		}
	case inDead:
		l.memory.dead++
		l.dead = append(l.dead, seq)
	case inRetry:
		l.retries = append(l.retries, seq)
	}
	return err
}

func (l *loader) end() error {
	last := max(l.mark.Acked, l.mark.floor, l.last)
	if n := len(l.segs); n > 0 {
		last = max(last, l.segs[n-1].last)
	}
	for _, seq := range l.dead {
		if seq > l.mark.Acked {
			l.buried[seq] = true
		}
	}
	l.mark.Last = last
	l.pos, l.floor, l.epoch = l.mark.Position, l.mark.floor, l.mark.epoch
	return nil
}
