package queue

import (
	"fmt"
)

// batch is one transaction in the making.
type batch struct {
	tx      *Tx
	mark    mark
	before  mark
	marks   pendingMarks
	alarms  []Damage
	gapDone bool      // the gap event is in this batch
	gapKept bool      // the count is
	gone    []segment // finished segments
	spill   *spilled
	txid    int
	wrote   bool
}

// begin takes what is pending.
func (o *owner) begin() *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := &batch{marks: o.marks, alarms: o.alarms, spill: o.spill, before: o.mark()}
	o.marks = pendingMarks{}
	b.mark = b.before
	b.tx = &Tx{q: o.Queue, store: o.store, gen: o.gen + 1, last: o.pos.Last, room: o.room(), now: o.opt.Now(), mark: &b.mark}
	return b
}

// restore gives back what a failed batch had taken, so that the next one tries again. Release callers were told, and start again.
func (o *owner) restore(b *batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.marks.ack = max(o.marks.ack, b.marks.ack)
	o.marks.receipts = append(b.marks.receipts, o.marks.receipts...)
	o.marks.retried = append(b.marks.retried, o.marks.retried...)
	if o.marks.since.IsZero() {
		o.marks.since = b.marks.since
	}
}

// commit runs the functions, as many as fit, and writes all of it in one bbolt transaction. It returns how many it has run.
func (o *owner) commit(b *batch, jobs []*job) (n int, err error) {
	if o.suspect.Swap(false) {
		return len(jobs), fmt.Errorf("%w: met by a reader", errDamaged)
	}
	o.dbMu.RLock()
	defer o.dbMu.RUnlock()
	defer guard(&err)()
	n = len(jobs)
	btx, err := o.db.Begin(true)
	if err != nil {
		return n, err
	}
	defer func() {
		if btx.DB() != nil {
			_ = btx.Rollback()
		}
	}()
	tx := b.tx
	tx.b, b.txid, o.size = btx, btx.ID(), btx.Size()
	for i, j := range jobs {
		if tx.size > batchBytes {
			n = i
			break
		}
		j.err = tx.run(j.fn)
	}
	if o.suspect.Load() { // a function met damage: look first
		return n, fmt.Errorf("%w: met by a transaction", errDamaged)
	}
	if err := o.policy(b, jobs[:n]); err != nil {
		return n, err
	}
	if len(tx.puts) == 0 {
		return n, nil
	}
	o.crash("before commit")
	if err := tx.apply(); err != nil {
		return n, err
	}
	if err := btx.Commit(); err != nil {
		return n, err
	}
	b.wrote = true
	s := o.db.Stats()
	o.slack = int64(s.FreePageN+s.PendingPageN) * int64(pageSize)
	o.crash("after commit")
	return n, nil
}

// policy adds what the queue itself has to write: marks, the audit trail, finished rows and segments, spilled rows, gaps, alarms.
func (o *owner) policy(b *batch, jobs []*job) error {
	tx := b.tx
	if tx.purged && b.spill != nil { // its rows are gone
		o.dropSpill(b.spill)
		o.spill, b.spill = nil, nil
	}
	if b.spill != nil {
		if err := tx.put(inSegments, seqKey(b.spill.seg.first), b.spill.seg.encode()); err != nil {
			return err
		}
		for _, seq := range b.spill.seqs {
			tx.puts = append(tx.puts, put{bucket: inRows, key: seqKey(seq)})
		}
	}
	if b.marks.release > b.mark.Released && b.marks.release <= tx.last {
		b.mark.Released = b.marks.release
	}
	if b.marks.ack > b.mark.Acked {
		b.mark.Acked = min(b.marks.ack, tx.last)
		b.mark.Released = max(b.mark.Released, b.mark.Acked)
		o.finish(b)
		tx.receipts = append(tx.receipts, o.delivered(b.marks.receipts)...)
	}
	if err := tx.retries(&b.marks); err != nil {
		return err
	}
	if err := tx.audit(); err != nil {
		return err
	}
	if err := o.alarmEvents(b); err != nil {
		return err
	}
	if err := o.gapEvent(b, jobs); err != nil {
		return err
	}
	if b.mark != b.before {
		return tx.put(inState, markKey, b.mark.encode())
	}
	if o.failing && len(tx.puts) == 0 { // find out whether the disk takes commits again
		return tx.put(inState, probeKey, nil)
	}
	return nil
}

var probeKey = []byte("probe")

// finish removes what is acked: rows in the database, and whole segments.
func (o *owner) finish(b *batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hotFirst > 0 {
		for seq := o.hotFirst; seq <= b.mark.Acked && seq < o.hotFirst+uint64(len(o.hotSizes)); seq++ {
			b.tx.puts = append(b.tx.puts, put{bucket: inRows, key: seqKey(seq)})
		}
	}
	segs := o.segs
	if b.spill != nil {
		segs = append(segs[:len(segs):len(segs)], b.spill.seg)
	}
	for _, s := range segs {
		if s.last > b.mark.Acked {
			break
		}
		b.tx.puts = append(b.tx.puts, put{bucket: inSegments, key: seqKey(s.first)})
		b.gone = append(b.gone, s)
	}
}

// after brings memory up to what is committed, and tells those who wait.
func (o *owner) after(b *batch) {
	o.mu.Lock()
	if b.wrote {
		o.gen = b.tx.gen
		o.stats.commits++
		o.kept += b.tx.kept
	}
	o.pos, o.floor, o.epoch = b.mark.Position, b.mark.floor, b.mark.epoch
	o.pos.Last = max(b.tx.last, o.floor)
	if b.spill != nil {
		o.segs = append(o.segs[:len(o.segs):len(o.segs)], b.spill.seg)
		o.dropHot(b.spill.seg.last)
		o.spill = nil
	}
	for _, fn := range b.tx.then {
		fn()
	}
	for i, r := range b.tx.rows {
		o.addHot(r, b.tx.sizes[i])
	}
	if o.pos.Acked > b.before.Acked {
		o.dropHot(o.pos.Acked)
		o.dropRecent(o.pos.Acked)
		o.forget(b.before.Acked, o.pos.Acked)
	}
	for _, g := range b.gone {
		o.segs = deleteSegment(o.segs, g)
	}
	o.blocks = append(o.blocks[b.tx.auditTrimmed:], b.tx.auditAdded...)
	o.alarms = o.alarms[len(b.alarms):]
	refused := o.gap.Refused
	if b.gapDone {
		o.gap = gapCount{}
	} else if b.gapKept {
		o.gap.dirty = false
	}
	o.tellMoved()
	o.mu.Unlock()
	if b.gapDone {
		o.log.Info("the outbox has room again", "refused", refused)
	}
	for _, g := range b.gone {
		o.removeSegment(g)
	}
	if len(b.tx.rows) > 0 {
		o.tellAdded()
	}
}
