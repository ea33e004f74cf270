package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a condition may take on a slow machine before a test gives up.
const patience = 60 * time.Second

// changes lets tests wait for conditions instead of sleeping.
type changes struct {
	mu sync.Mutex
	ch chan struct{}
}

// note tells all who wait; the caller holds mu.
func (c *changes) note() {
	if c.ch != nil {
		close(c.ch)
		c.ch = nil
	}
}

// await returns true when cond, called with the lock held, is true, or false after patience.
func (c *changes) await(cond func() bool) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		if cond() {
			c.mu.Unlock()
			return true
		}
		if c.ch == nil {
			c.ch = make(chan struct{})
		}
		ch := c.ch
		c.mu.Unlock()
		select {
		case <-ch:
		case <-timeout.C:
			return false
		}
	}
}

// output keeps what a process writes.
type output struct {
	changes
	b strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// line waits until a line holds all of words, and returns it.
func (o *output) line(t *testing.T, words ...string) string {
	t.Helper()
	found := ""
	if !o.await(func() bool { found = find(o.b.String(), words...); return found != "" }) {
		t.Fatalf("no line with %q in\n%s", words, o)
	}
	return found
}

// find returns the first line that holds all of words, or "".
func find(text string, words ...string) string {
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}
