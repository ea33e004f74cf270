// Package queue is the durable state of a device: the outbox of events, the inbox of commands, meter totals and configuration.
//
// One folder holds it. fieldagent.db (bbolt) has the newest rows and everything small; older rows of a long backlog lie beside it in
// segments/, files that are written once, read in order and deleted whole. So the database stays small whatever the backlog, a
// transaction can change a total and add the event made from it, and the disk is given back.
//
// Run owns the database. Callers hand it functions (Update); it runs what has come together in one bbolt transaction, syncs, and
// answers all of them. While it syncs, the next batch collects: there is no timer, and a lone caller waits for one commit.
//
// What the broker has confirmed is a Position: two sequence numbers and the name of a session. See ARCHITECTURE.md for what must be on disk before what.
package queue

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Format is the version of the files that this package writes.
const Format = 1

const (
	dbName     = "fieldagent.db"
	segmentDir = "segments"
	lockName   = "fieldagent.lock"

	hotRows     = 4096      // above this many rows in the database, the oldest go to a segment
	hotBytes    = 2 << 20   // and above this many bytes
	spillBytes  = 1 << 20   // size of a segment
	recentBytes = 512 << 10 // newest rows in memory, for a sender that keeps up
	maxFrame    = 8 << 20
	openLimit   = 20 * time.Second // bbolt can hang on a damaged file
)

// Options of a state folder.
type Options struct {
	MaxSize       int64         // bytes that all files together may take, 4 MiB at least; 256 MiB when 0
	KeepDelivered int           // how many delivered events Life remembers; 1000 when 0, none when negative
	MaxRecord     int           // bytes of an event's data; 256 KiB when 0
	KeepJobs      int           // how many finished commands are remembered; 1000 when 0
	KeepJobsFor   time.Duration // and for how long; 7 days when 0
	ReadOnly      bool          // open beside nobody, change nothing
	KeepTrying    bool          // a disk that refuses is no error of Open: Run tries until it has the state, and Stats says why it has not
	Now           func() Stamp
	Log           *slog.Logger
	Crash         func(point string) // fault points of the campaign; nil in the product
}

// Queue is an open state folder.
type Queue struct {
	dir  string
	opt  Options
	log  *slog.Logger
	lock *os.File

	dbMu sync.RWMutex // held for writing only while the database is replaced; taken before mu
	db   *bolt.DB     // nil while it is closed

	marker *slots // of the owner; opened with the database

	jobs    chan *job
	wake    chan struct{}
	added   chan struct{}
	stopped chan struct{}
	suspect atomic.Bool // a reader met a damaged record
	step    step        // of the owner

	readMu sync.Mutex // of Next; taken before mu
	reader *segmentReader

	mu sync.Mutex // everything below; never held while a file is read
	memory
	marks   pendingMarks
	sent    map[uint64]sentInfo // rows that were handed out and are not finished
	retried map[uint64]bool     // dead letters that were delivered, on their way to disk
	handed  uint64              // newest row that was handed out
	held    uint64              // rows from here on are being purged; 0 none
	moved   chan struct{}       // closed when a row has come to its end
	waiting int                 // callers who look at moved
	damage  *Damage
	alarms  []Damage // that no event tells of yet
	oldest  oldest
	stats   counters
	err     error // why nothing can be stored
	lack    error // why not all can be stored
}

// Open opens the state in dir, and makes it when it is not there. A damaged database is set aside and what can be read of it is kept; see Damage.
func Open(dir string, opt Options) (*Queue, error) {
	opt = opt.withDefaults()
	q := &Queue{dir: dir, opt: opt, log: opt.Log, jobs: make(chan *job, 1024), wake: make(chan struct{}, 1), added: make(chan struct{}, 1), stopped: make(chan struct{}),
		sent: map[uint64]sentInfo{}, retried: map[uint64]bool{}, moved: make(chan struct{})}
	_, err := q.open()
	if err == nil {
		return q, nil
	}
	err = fmt.Errorf("open state %s: %w", dir, err)
	if opt.KeepTrying && !opt.ReadOnly && refused(err) {
		q.setErr(err)
		return q, nil
	}
	q.unlock()
	return nil, err
}

func (o Options) withDefaults() Options {
	if o.MaxSize == 0 {
		o.MaxSize = 256 << 20
	}
	o.MaxSize = max(o.MaxSize, 4<<20)
	if math.MaxInt == math.MaxInt32 {
		o.MaxSize = min(o.MaxSize, 512<<20) // address space for the map
	}
	if o.KeepDelivered == 0 {
		o.KeepDelivered = 1000
	}
	if o.MaxRecord == 0 {
		o.MaxRecord = 256 << 10
	}
	if o.KeepJobs == 0 {
		o.KeepJobs = 1000
	}
	if o.KeepJobsFor == 0 {
		o.KeepJobsFor = 7 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = func() Stamp { return Stamp{Wall: time.Now().UTC()} }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Store returns the random id that was made with the database and stands in every id; 0 while there is none.
func (q *Queue) Store() uint32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.store
}

// Ready returns why nothing can be stored now, nil when all is well.
func (q *Queue) Ready() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, q.err)
	}
	return nil
}

// Position returns what is committed.
func (q *Queue) Position() Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pos
}

// Added has a token when rows were committed since it was last read.
func (q *Queue) Added() <-chan struct{} { return q.added }

// Close releases the files. Run must have returned.
func (q *Queue) Close() error {
	err := q.closeDB()
	q.unlock()
	return err
}

func (q *Queue) unlock() {
	if q.lock != nil {
		_ = unix.Flock(int(q.lock.Fd()), unix.LOCK_UN) // a child that is just being started has the file open too
		_ = q.lock.Close()
		q.lock = nil
	}
}

// View runs fn on what is committed. The Tx must not be used after it, nor changed.
func (q *Queue) View(fn func(*Tx) error) error {
	return q.view(func(b *bolt.Tx) error { return (&Tx{q: q, b: b, readOnly: true}).call(fn) })
}

// view runs fn on what is committed; the caller must not hold mu. Damage that it meets has the owner look at the whole database.
func (q *Queue) view(fn func(*bolt.Tx) error) error {
	err := q.viewDB(fn)
	if isDamage(err) && !q.opt.ReadOnly {
		q.suspect.Store(true)
		q.poke()
	}
	return err
}

func (q *Queue) viewDB(fn func(*bolt.Tx) error) (err error) {
	q.dbMu.RLock()
	defer q.dbMu.RUnlock()
	if q.db == nil {
		return q.closedErr()
	}
	defer guard(&err)()
	return q.db.View(fn)
}

// closedErr says why there is no database.
func (q *Queue) closedErr() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, q.err)
	}
	return ErrClosed
}

// Update runs fn in a transaction and returns nil once its changes are on disk. Changes of several callers share one sync.
// An error from fn undoes its changes only. fn runs once, on another goroutine; it must not call the queue.
// ErrUnknown means that ctx ended first, or that the disk failed for good: the change may still come.
func (q *Queue) Update(ctx context.Context, fn func(*Tx) error) error {
	if q.opt.ReadOnly {
		return ErrReadOnly
	}
	j := &job{fn: fn, done: make(chan error, 1)}
	select {
	case q.jobs <- j:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrDisk, context.Cause(ctx)) // it was not even tried
	case <-q.stopped:
		return ErrClosed
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w; ask for it later", ErrUnknown, context.Cause(ctx))
	case <-q.stopped:
		select {
		case err := <-j.done:
			return err
		default:
			return ErrClosed
		}
	}
}
