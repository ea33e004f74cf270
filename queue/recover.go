package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

const (
	pageSize     = 4096
	compactSlack = 8 << 20  // bytes of free pages that are worth a new file
	spareBytes   = 64 << 10 // that a commit writes beside its rows, at most about
)

// fail handles a commit that failed, which means "unknown": the database is opened again and looked at before anybody is answered.
// It returns nil when the batch is on disk after all.
func (o *owner) fail(ctx context.Context, b *batch, cause error) error {
	o.failed(cause)
	if errors.Is(cause, unix.ENOSPC) {
		o.need, o.full = max(o.need, b.tx.size+max(0, b.tx.kept)+spareBytes), cause
	}
	unknown := fmt.Errorf("%w: %w", ErrUnknown, cause)
	for _, done := range b.marks.done { // the engine closes its connection at once, and asks again what the mark is
		done(unknown)
	}
	b.marks.done = nil
	for {
		there, err := o.reopen(b)
		switch {
		case err == nil && there:
			o.after(b)
			return nil
		case err == nil && errors.Is(cause, berrors.ErrMaxSizeReached):
			return fmt.Errorf("%w: %w", ErrFull, cause)
		case err == nil, !errors.Is(err, errUnsure) && o.absent(b):
			return fmt.Errorf("%w: %w", ErrDisk, cause)
		case errors.Is(err, errUnsure):
			return unknown
		}
		o.failed(err)
		for _, j := range o.drain(o.left) {
			j.done <- fmt.Errorf("%w: %w", ErrDisk, err)
		}
		o.left = nil
		select {
		case <-ctx.Done():
			return unknown
		case <-time.After(o.retry):
		}
	}
}

// errUnsure is returned when a batch was salvaged in part: nobody can say what its callers are to be told.
var errUnsure = errors.New("the change was saved from a damaged file in part")

// reopen opens the database anew and says whether the batch is in it. What only the page cache may have is written again, elsewhere, before it counts.
func (o *owner) reopen(b *batch) (there bool, err error) {
	_ = o.closeDB()
	o.spill = nil // opening removes its file
	salvaged, err := o.open()
	if err != nil {
		return false, err
	}
	if salvaged {
		there, err = o.salvagedBatch(b)
	} else {
		err = o.view(func(t *bolt.Tx) error { there = b.txid > 0 && t.ID() >= b.txid; return nil })
		if err == nil && there {
			err = o.rewrite()
		}
	}
	if err == nil && there { // memory has what the batch changed already
		b.tx.rows, b.tx.then, b.tx.kept, b.tx.auditAdded, b.tx.auditTrimmed = nil, nil, 0, nil, 0
		b.spill, b.wrote = nil, true
		o.mu.Lock()
		b.mark = o.mark()
		b.tx.last, b.tx.gen = o.pos.Last, o.gen
		o.mu.Unlock()
		o.tellAdded()
	}
	return there, err
}

// salvagedBatch says whether all rows of the batch were saved from a damaged file.
func (o *owner) salvagedBatch(b *batch) (there bool, err error) {
	found := 0
	for _, r := range b.tx.rows {
		if got, err := o.find(r.ID.Sequence); err == nil && got.ID == r.ID {
			found++
		}
	}
	if len(b.tx.puts) > 0 && (found == 0 || found < len(b.tx.rows)) {
		return false, errUnsure
	}
	return found > 0, nil
}

// absent looks into a database that cannot be opened for writing and says whether the batch is surely not in it.
func (o *owner) absent(b *batch) bool {
	opt := o.boltOptions()
	opt.ReadOnly, opt.PreLoadFreelist = true, false
	db, err := openDB(o.path(), opt)
	if err != nil {
		return false
	}
	defer closeDB(db)
	id := 0
	err = db.View(func(t *bolt.Tx) error { id = t.ID(); return nil })
	return err == nil && (b.txid == 0 || id < b.txid)
}

// rewrite copies the database to a new, synced file: after a failed sync the kernel may say that pages are clean which the disk never had.
func (q *Queue) rewrite() error {
	err := q.replace(func(tmp string) error {
		return q.db.View(func(b *bolt.Tx) error { return b.CopyFile(tmp, 0o600) })
	})
	if err != nil {
		return fmt.Errorf("write the database anew: %w", err)
	}
	return nil
}

// compact gives back the space of what is no more: bbolt's file never shrinks, and a long list of free pages is written with every commit.
func (o *owner) compact() {
	o.slack = 0
	err := o.replace(func(tmp string) error {
		opt := o.boltOptions()
		opt.NoSync = true
		dst, err := bolt.Open(tmp, 0o600, opt)
		if err != nil {
			return err
		}
		return errors.Join(bolt.Compact(dst, o.db, 1<<20), dst.Close())
	})
	if err != nil && o.db == nil {
		o.failed(err)
	} else if err != nil {
		o.log.Error("the database keeps its size", "err", err)
	}
}

// replace puts a copy that write makes in the database's place. On an error the old one stays open, or none is.
func (q *Queue) replace(write func(tmp string) error) (err error) {
	q.dbMu.Lock()
	defer q.dbMu.Unlock()
	tmp := q.path() + ".tmp"
	if err = guarded(func() error { return write(tmp) }); err == nil {
		err = pad(tmp)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	err = closeDB(q.db)
	q.db = nil
	if err = errors.Join(err, os.Rename(tmp, q.path()), syncDir(q.dir)); err != nil {
		return err
	}
	q.db, err = openDB(q.path(), q.boltOptions())
	return err
}

func guarded(fn func() error) (err error) {
	defer guard(&err)()
	return fn()
}
