package queue

import (
	"cmp"
	"os"
)

type counters struct {
	commits, refused, lost uint64
}

// oldest is the stamp of the first row above a mark, so that it need not be looked up each time.
type oldest struct {
	above uint64
	store uint32
	stamp Stamp
}

// Stats is the state of the store at one moment.
type Stats struct {
	Depth    int    // events that are not finished
	Oldest   Stamp  // when the oldest of them was accepted; zero when there is none
	Bytes    int64  // on disk, all files
	Limit    int64  // max_size
	Full     bool   // the next event of usual size would be refused, or larger ones are
	Refused  uint64 // events refused since start because the outbox was full
	Dead     int    // dead letters
	Retrying int    // of these, waiting to be sent again
	Lost     uint64 // rows lost to damaged files since start
	Commits  uint64 // since start
	Segments int
	Err      error // why not all, or nothing, can be stored now
}

// Stats returns the state now.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	acked := max(q.pos.Acked, q.marks.ack)
	s := Stats{Limit: q.opt.MaxSize, Refused: q.stats.refused, Dead: q.dead, Retrying: len(q.retries), Lost: q.stats.lost, Commits: q.stats.commits,
		Segments: len(q.segs), Err: cmp.Or(q.err, q.lack), Full: q.room() < 4096 || q.gap.Refused > 0, Depth: q.depth(acked)}
	for _, g := range q.segs {
		s.Bytes += g.bytes
	}
	old := q.oldest
	store := q.store
	if first, ok := q.sent[acked+1]; ok && first.store != 0 && !q.buried[acked+1] { // it is on its way: reading it again would take a whole segment
		old = oldest{acked, store, first.accepted}
	}
	q.mu.Unlock()
	if info, err := os.Stat(q.path()); err == nil {
		s.Bytes += info.Size()
	}
	switch {
	case s.Depth == 0:
	case old.above == acked && old.store == store:
		s.Oldest = old.stamp
	default:
		err := q.each(acked, func(r Record) bool { s.Oldest = r.Accepted; return false })
		if err == nil && !s.Oldest.Wall.IsZero() {
			q.mu.Lock()
			q.oldest = oldest{acked, store, s.Oldest}
			q.mu.Unlock()
		}
	}
	return s
}
