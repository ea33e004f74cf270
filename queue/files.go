package queue

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// firstSize is written at creation, so that a young database does not change its size, and with it the directory's metadata, at every commit.
const firstSize = 1 << 20

func (q *Queue) path() string { return filepath.Join(q.dir, dbName) }

func (q *Queue) boltOptions() *bolt.Options {
	return &bolt.Options{Timeout: 2 * time.Second, PageSize: 4096, FreelistType: bolt.FreelistMapType, ReadOnly: q.opt.ReadOnly, MaxSize: int(min(q.opt.MaxSize, 1<<30)), PreLoadFreelist: !q.opt.ReadOnly}
}

// open opens the database, makes it, or salvages it, and reads what is kept in memory.
func (q *Queue) open() (salvaged bool, err error) {
	if !q.opt.ReadOnly {
		if err := q.prepare(); err != nil {
			return false, err
		}
	}
	cause := q.openExisting()
	if cause != nil && isDamage(cause) && !q.opt.ReadOnly {
		salvaged, cause = true, q.salvage(cause)
	}
	return salvaged && cause == nil, cause
}

// prepare makes sure that the folders and the database are there, that nobody else has them, and that what a killed process left in the page
// cache is on disk: it might be gone after the next power cut, and its ids would be used twice.
func (q *Queue) prepare() error {
	if err := makeDir(q.dir); err != nil {
		return err
	}
	if err := makeDir(filepath.Join(q.dir, segmentDir)); err != nil {
		return err
	}
	if q.lock == nil {
		lock, err := takeLock(filepath.Join(q.dir, lockName))
		if err != nil {
			return err
		}
		q.lock = lock
	}
	for _, tmp := range []string{".new", ".tmp"} {
		_ = os.Remove(q.path() + tmp)
	}
	if err := q.adopt(); err != nil {
		return err
	}
	return errors.Join(syncFile(q.path()), syncDir(q.dir))
}

// makeDir makes a folder that survives a power cut, also when another process made it and was killed.
func makeDir(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = syncDir(filepath.Dir(dir))
	}
	if errors.Is(err, fs.ErrPermission) { // the folder above is not ours: whoever made this one has seen to it
		err = syncDir(dir)
	}
	return err
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// adopt makes the database when there is none; a salvage that was cut between its two renames is finished.
func (q *Queue) adopt() error {
	_, err := os.Stat(q.path())
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(q.path() + ".salvaged"); err == nil {
		return errors.Join(os.Rename(q.path()+".salvaged", q.path()), syncDir(q.dir))
	}
	store, err := newStore()
	if err != nil {
		return err
	}
	return q.create(q.path(), store, nil)
}

// newStore draws the id of a database.
func newStore() (uint32, error) {
	var id [4]byte
	for {
		if _, err := rand.Read(id[:]); err != nil {
			return 0, err
		}
		if v := binary.LittleEndian.Uint32(id[:]); v != 0 {
			return v, nil
		}
	}
}

// create makes a database under a temporary name, and gives it its name once it is whole on disk: a power cut leaves all or nothing.
func (q *Queue) create(name string, store uint32, frames []frame) error {
	tmp := q.path() + ".new"
	opt := q.boltOptions()
	opt.NoSync = true // one sync at the end
	db, err := bolt.Open(tmp, 0o600, opt)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	err = db.Update(func(b *bolt.Tx) error {
		for i := inMeta; i < bucketEnd; i++ {
			if _, err := b.CreateBucket(bucketName[i]); err != nil {
				return err
			}
		}
		return putMeta(b, store, Format)
	})
	for len(frames) > 0 && err == nil { // in pieces, so that memory does not grow with them
		err = db.Update(func(b *bolt.Tx) error {
			for size := 0; len(frames) > 0 && size < batchBytes; frames = frames[1:] {
				f := frames[0]
				if f.store == 0 {
					f.store = store
				}
				f.peers = 0 // not all that its commit wrote may be here
				whole := f.append(nil)
				if err := b.Bucket(bucketName[f.bucket]).Put(f.key, whole); err != nil {
					return err
				}
				size += len(whole)
			}
			return nil
		})
	}
	if err = errors.Join(err, db.Close()); err == nil {
		err = pad(tmp)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("make %s: %w", name, err)
	}
	return errors.Join(os.Rename(tmp, name), syncDir(q.dir))
}

// pad fills the file with zeros up to firstSize and syncs it. What is there is written too: bbolt leaves a hole at its end, and a full disk cannot fill that.
func pad(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < firstSize {
		data := make([]byte, firstSize)
		if _, err = f.ReadAt(data[:info.Size()], 0); err == nil {
			_, err = f.WriteAt(data, 0)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// free is how many bytes of its disk the state may still take.
func (q *Queue) free() int64 {
	var st unix.Statfs_t
	if unix.Statfs(q.dir, &st) != nil {
		return math.MaxInt64 // not known: the next write tells
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// limited runs fn and gives up on it after openLimit: bbolt can hang on a damaged file. A panic becomes an error.
func limited[T any](what string, fn func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ch := make(chan result, 1)
	go func() {
		debug.SetPanicOnFault(true)
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%w: %s: %v", errDamaged, what, p)
			}
			ch <- r
		}()
		r.v, r.err = fn()
	}()
	select {
	case r := <-ch:
		return r.v, r.err
	case <-time.After(openLimit):
		var zero T
		return zero, fmt.Errorf("%w: %s does not end", errDamaged, what)
	}
}

func (q *Queue) openExisting() error {
	if info, err := os.Stat(q.path()); err == nil && info.Size() < 4*4096 {
		return fmt.Errorf("%w: only %d bytes long", errDamaged, info.Size())
	}
	if !q.opt.ReadOnly { // else another process may be writing
		if err := checkFile(q.path()); err != nil {
			return err
		}
	}
	db, err := openDB(q.path(), q.boltOptions())
	if err != nil {
		return err
	}
	m, err := limited("load", func() (memory, error) {
		if !q.opt.ReadOnly {
			if err := migrate(db, migrations); err != nil {
				return memory{}, err
			}
		}
		return load(db)
	})
	if err == nil && !q.opt.ReadOnly {
		var newest uint64
		newest, err = newestGen(q.path())
		m.gen = max(m.gen, newest)
	}
	var missing []segment
	if err == nil && !q.opt.ReadOnly {
		missing, err = q.tidySegments(&m)
	}
	var marker *slots
	if err == nil {
		marker, err = openSlots(q.dir, q.opt.ReadOnly)
	}
	if err != nil {
		_ = closeDB(db)
		return err
	}
	if through := marker.released(m.store, m.epoch); through <= m.pos.Last {
		m.pos.Released = max(m.pos.Released, through)
	}
	if marker.broken {
		q.log.Warn("a delivery mark is torn or damaged: if it was not cut while it was written, an event may come again, with the id it had", "file", slotName)
	}
	q.marker.close()
	q.marker = marker
	q.install(db, m, missing)
	return nil
}

// openDB opens a bbolt file. What is wrong with its content is errDamaged.
func openDB(name string, opt *bolt.Options) (*bolt.DB, error) {
	db, err := limited("open", func() (*bolt.DB, error) { return bolt.Open(name, 0o600, opt) })
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s is open in another process", ErrLocked, name)
	case !isDamage(err) && isStructure(err):
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil, err
}

// isStructure tells errors of bbolt about the file from errors of the operating system.
func isStructure(err error) bool {
	var pe *fs.PathError
	var errno unix.Errno
	return !errors.As(err, &pe) && !errors.As(err, &errno)
}

// install puts an opened database in its place.
func (q *Queue) install(db *bolt.DB, m memory, missing []segment) {
	q.dbMu.Lock()
	defer q.dbMu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.db = db
	for i := range m.segs { // what was told once is not told again
		s := &m.segs[i]
		for _, old := range q.segs {
			if old.first == s.first && old.reported {
				s.reported, s.rows = true, old.rows
			}
		}
		for _, gone := range missing {
			if gone.first == s.first && !s.reported {
				s.bytes = 0
				q.loseRows(s, s.rows)
			}
		}
	}
	if q.gap.Refused > m.gap.Refused { // not on disk yet
		m.gap = q.gap
	}
	q.memory = m
	var d Damage
	if m.report != nil && json.Unmarshal(m.report, &d) == nil && !slices.ContainsFunc(q.alarms, func(a Damage) bool { return a.SetAside == d.SetAside }) {
		q.addDamage(d)
	}
}

// closeDB closes with a time limit: after a panic inside bbolt a lock can stay held for ever.
func closeDB(db *bolt.DB) error {
	if db == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- db.Close() }()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * time.Second):
		return errors.New("close database: does not end; given up")
	}
}

// closeDB closes the database; readers get an error from then on.
func (q *Queue) closeDB() error {
	q.dbMu.Lock()
	defer q.dbMu.Unlock()
	err := closeDB(q.db)
	q.db = nil
	q.marker.close()
	q.marker = nil
	return err
}

// guard turns a panic of bbolt, or of a page that cannot be read, into errDamaged. Use: defer guard(&err)().
func guard(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			*err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}
}

func isDamage(err error) bool { return errors.Is(err, errDamaged) }

// refused tells whether the operating system could not do it: the disk is full, read-only, or fails.
func refused(err error) bool {
	for _, e := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.ENODEV, unix.ENXIO, unix.EUCLEAN, unix.ESHUTDOWN, unix.ETIMEDOUT, unix.EREMOTEIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func remedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, berrors.ErrMaxSizeReached):
		return "free disk space, or lower outbox.max_size"
	case errors.Is(err, unix.EROFS):
		return "the file system is read-only: check dmesg, then remount or replace the card"
	case errors.Is(err, unix.EIO):
		return "the disk fails: check dmesg and replace the card"
	}
	return "check dmesg and the disk"
}
