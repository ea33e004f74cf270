package agent

import (
	"fmt"
	"sync"
	"time"
)

// stallAfter is how long a main loop may take for one turn before the watchdog hears of it.
const stallAfter = time.Minute

// beat shows that a loop turns. The zero value belongs to a loop that does not run.
type beat struct {
	mu sync.Mutex
	at time.Time // of the last turn, on the monotonic clock; zero: not running
}

func (b *beat) start() { b.now() }

func (b *beat) now() {
	b.mu.Lock()
	b.at = time.Now()
	b.mu.Unlock()
}

func (b *beat) stop() {
	b.mu.Lock()
	b.at = time.Time{}
	b.mu.Unlock()
}

// stalled returns an error when the loop runs but has not turned for too long.
func (b *beat) stalled(name string) error {
	b.mu.Lock()
	at := b.at
	b.mu.Unlock()
	if at.IsZero() {
		return nil
	}
	if d := time.Since(at); d > stallAfter {
		return fmt.Errorf("the %s loop has not turned for %v", name, d.Round(time.Second))
	}
	return nil
}
