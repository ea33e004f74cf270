package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	batchJobs  = 256                    // callers in one transaction
	batchBytes = 512 << 10              // of rows in one transaction, about: the database must not grow with a burst
	ackRows    = 64                     // finished rows that wait for somebody else's commit
	ackIdle    = time.Second            // and for how long
	retryMin   = 200 * time.Millisecond // after a failed commit
	retryMax   = 5 * time.Second
)

type job struct {
	fn   func(*Tx) error
	done chan error
	err  error
}

// pendingMarks is what the delivery engine has said and no commit has taken along yet.
type pendingMarks struct {
	ack      uint64
	receipts []Receipt
	release  uint64
	done     []func(error)
	since    time.Time // of the first finished row

	retryReleases []uint64  // dead letters that were sent again: these have their PUBREC
	retried       []Receipt // and these are delivered
}

func (m *pendingMarks) urgent() bool {
	return len(m.done) > 0 || len(m.retried) > 0 || len(m.receipts) >= ackRows
}

// Run owns the database until ctx ends; then it commits what is pending and returns.
func (q *Queue) Run(ctx context.Context) error {
	defer close(q.stopped)
	if q.opt.ReadOnly {
		<-ctx.Done()
		return nil
	}
	debug.SetPanicOnFault(true) // a page that cannot be read is an error of this goroutine, not the end of the process
	o := owner{Queue: q, retry: retryMin, failing: q.db == nil}
	for {
		jobs, more := o.collect(ctx)
		if err := o.work(ctx, jobs); err != nil {
			return err
		}
		if !more {
			for _, j := range o.drain(o.left) {
				j.done <- ErrClosed
			}
			return nil
		}
	}
}

// owner is the state of the one goroutine that writes.
type owner struct {
	*Queue
	retry   time.Duration
	failing bool
	spill   *spilled
	left    []*job // taken from the channel, but the batch was full
	slack   int64  // bytes of the database that hold nothing
	size    int64  // of the database

	need      int64 // bytes that a full disk refused, and that must be free before it is called well
	full      error // with which it refused them
	unspilled error // why a segment could not be written

	gapSince time.Time // when the count of refused events was last kept
}

// collect waits for work and takes all there is.
func (o *owner) collect(ctx context.Context) (jobs []*job, more bool) {
	jobs, o.left = o.left, nil
	if len(jobs) > 0 || o.spill != nil && !o.failing {
		return o.drain(jobs), ctx.Err() == nil
	}
	timer, stop := o.idle()
	defer stop()
	wake, in := o.wake, o.jobs
	if o.failing {
		wake, in = nil, nil // not before the next try
	}
	for {
		select {
		case <-ctx.Done():
			return o.drain(nil), false
		case j := <-in:
			o.gather()
			return o.drain([]*job{j}), true
		case <-timer:
			return o.drain(nil), true
		case <-wake:
			if o.suspect.Load() {
				return o.drain(nil), true
			}
			stop()
			timer, stop = o.idle()
		}
	}
}

// gather lets callers that were answered just now hand in their next change, so that they share one commit and not two by turns.
// It waits for nobody: a lone caller is taken at once.
func (q *Queue) gather() {
	for n := -1; len(q.jobs) > n && n < batchJobs; {
		n = len(q.jobs)
		runtime.Gosched()
	}
}

// idle says when there is something to do even if nobody asks.
func (o *owner) idle() (<-chan time.Time, func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var d time.Duration
	switch {
	case o.failing:
		d = o.retry
	case o.marks.urgent(), len(o.alarms) > 0:
	case !o.marks.since.IsZero():
		d = max(0, ackIdle-time.Since(o.marks.since))
	case o.gap.dirty, o.gap.Refused > 0 && o.room() >= o.opt.MaxSize/20: // there is room again: say what was refused, even if nothing else happens
		d = ackIdle
	case o.lack != nil: // the disk is looked at
		d = retryMax
	default:
		return nil, func() {}
	}
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

func (q *Queue) drain(jobs []*job) []*job {
	for len(jobs) < batchJobs {
		select {
		case j := <-q.jobs:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// work commits one batch and answers everybody in it. Its error ends the owner: the state belongs to somebody else.
func (o *owner) work(ctx context.Context, jobs []*job) error {
	o.step.begin()
	defer o.step.end()
	if err := o.ready(); err != nil {
		for _, j := range jobs {
			j.done <- fmt.Errorf("%w: %w", ErrDisk, err)
		}
		if errors.Is(err, ErrLocked) || errors.Is(err, ErrNewer) {
			return err
		}
		return nil
	}
	if o.quick(jobs) {
		return nil
	}
	b := o.begin()
	n, err := o.commit(b, jobs)
	jobs, o.left = jobs[:n], jobs[n:]
	switch {
	case err == nil && b.wrote:
		o.settled()
		o.after(b)
	case err == nil:
		o.after(b)
	default:
		err = o.fail(ctx, b, err)
	}
	for _, j := range jobs {
		if err != nil && j.err == nil {
			j.err = err
		}
		j.done <- j.err
	}
	for _, done := range b.marks.done {
		done(err)
	}
	if err != nil {
		o.restore(b)
		return nil
	}
	if o.spill == nil {
		o.spill = o.makeSpill()
	}
	if o.lack != nil || o.unspilled != nil { // only this goroutine changes them
		o.look()
	}
	if o.spill == nil && o.slack > compactSlack && o.slack > o.size/4*3 {
		o.compact()
	}
	return nil
}

// ready opens the database when it is closed.
func (o *owner) ready() error {
	if o.db != nil { // only this goroutine changes it
		return nil
	}
	o.spill = nil
	if _, err := o.open(); err != nil {
		o.failed(err)
		return err
	}
	return nil
}

// failed notes why nothing can be stored now, and waits longer for the next try.
func (o *owner) failed(cause error) {
	if o.failing {
		o.retry = min(2*o.retry, retryMax)
	}
	o.failing = true
	o.setErr(cause)
}

// setErr notes why nothing can be stored, and logs it when it is news.
func (q *Queue) setErr(cause error) {
	err := fmt.Errorf("%w; %s", cause, remedy(cause))
	q.mu.Lock()
	news := q.err == nil || q.err.Error() != err.Error()
	q.err = err
	q.mu.Unlock()
	if news {
		q.log.Error("the state cannot be written: nothing is accepted, and no event is sent, until the disk takes it", "err", cause, "remedy", remedy(cause))
	}
}

// settled notes that the disk takes commits again.
func (o *owner) settled() {
	if !o.failing {
		return
	}
	o.failing, o.retry = false, retryMin
	o.look()
	o.tellAdded()
}

// look sees what the disk lacks though it takes commits: a full one takes this commit and refuses the next, larger one.
func (o *owner) look() {
	lack := o.unspilled
	if o.need > 0 && o.free() < o.need {
		lack = fmt.Errorf("%w: %d KiB at once were refused, less is stored", o.full, (o.need+1023)>>10)
	} else {
		o.need = 0
	}
	o.mu.Lock()
	failed, lacked := o.err != nil, o.lack != nil
	if o.err, o.lack = nil, nil; lack != nil {
		o.lack = fmt.Errorf("%w; %s", lack, remedy(lack))
	}
	o.mu.Unlock()
	switch {
	case lack != nil && (failed || !lacked):
		o.log.Warn("the disk takes commits, but not all", "err", lack, "remedy", remedy(lack))
	case lack == nil && (failed || lacked):
		o.log.Info("the disk takes commits again")
	}
}

// forget drops what is known of rows that the mark has passed.
func (q *Queue) forget(from, to uint64) {
	if to-from > uint64(len(q.sent)+len(q.buried)) {
		for seq := range q.sent {
			if seq <= to {
				delete(q.sent, seq)
			}
		}
		for seq := range q.buried {
			if seq <= to {
				delete(q.buried, seq)
			}
		}
		return
	}
	for seq := from + 1; seq <= to; seq++ {
		delete(q.sent, seq)
		delete(q.buried, seq)
	}
}

// tellMoved wakes those who wait for a row's end; the caller holds mu.
func (q *Queue) tellMoved() {
	if q.waiting > 0 {
		close(q.moved)
		q.moved = make(chan struct{})
	}
}

func (q *Queue) tellAdded() {
	select {
	case q.added <- struct{}{}:
	default:
	}
}

func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) crash(point string) {
	if q.opt.Crash != nil {
		q.opt.Crash(point)
	}
}

// room is what rows may still take. The rest of max_size is for the database around them; the caller holds mu.
func (q *Queue) room() int64 { return q.opt.MaxSize - min(8<<20, q.opt.MaxSize/2) - q.used() }
