package queue

import (
	"sync/atomic"
	"time"
)

// step is when the owner began what it is doing; nil while it waits for work.
type step struct{ began atomic.Pointer[time.Time] }

func (s *step) begin() {
	now := time.Now()
	s.began.Store(&now)
}

func (s *step) end() { s.began.Store(nil) }

// Stalled returns how long the owner has been in one step, such as a sync that the disk does not answer; 0 while it waits for work.
// A disk that fails is not stalled: it answers, with an error, and each new attempt is a step of its own.
func (q *Queue) Stalled() time.Duration {
	if began := q.step.began.Load(); began != nil {
		return time.Since(*began)
	}
	return 0
}
