package agent

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"sync"
	"time"

	"fieldagent/queue"

	"golang.org/x/sys/unix"
)

// Clock is the one door through which the agent and the queue learn the time. Boards have no clock of their own: a time is
// a lower bound until the kernel says that its clock was set.
type Clock struct {
	read func() queue.Stamp

	mu     sync.Mutex
	floor  queue.Stamp // a time that has surely passed; zero: none known
	set    bool        // the clock was seen set in this boot
	zero   time.Time   // then: the wall time at which this boot's uptime was zero
	behind bool        // the raw clock stood before the floor, or before oldest, at the last look
}

// oldest is older than this program: a clock that stands before it was not set.
var oldest = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// NewClock makes a clock that reads time from read; the kernel's own when nil.
func NewClock(read func() queue.Stamp) *Clock {
	if read == nil {
		read = kernelClock(bootID())
	}
	return &Clock{read: read}
}

// Now returns the time, never before the floor while the clock is not set.
func (c *Clock) Now() queue.Stamp {
	s := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Clock == queue.ClockSynced {
		if !c.set {
			c.set, c.zero = true, s.Wall.Add(-s.Uptime)
		}
		c.behind = false
		return s
	}
	bound := c.bound(s)
	c.behind = s.Wall.Before(bound) || s.Wall.Before(oldest)
	if s.Wall.Before(bound) {
		s.Wall = bound
	}
	return s
}

// bound is the earliest time that it can be at s.
func (c *Clock) bound(s queue.Stamp) time.Time {
	if c.floor.Wall.IsZero() {
		return s.Wall
	}
	since := s.Uptime // the floor is of an earlier boot, so all of this one came after it
	if c.floor.Boot == s.Boot {
		since = max(0, s.Uptime-c.floor.Uptime)
	}
	return c.floor.Wall.Add(since).UTC()
}

// Raise tells the clock of a time that has passed, such as that of the newest record on disk.
func (c *Clock) Raise(s queue.Stamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Wall.After(c.floor.Wall) {
		c.floor = s
	}
}

// Behind says that the board's clock is evidently wrong: it is not set, and stands before a time that has surely passed.
func (c *Clock) Behind() bool {
	c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behind
}

// unset says that nobody has set the clock since the board started.
func (c *Clock) unset() bool { return c.Now().Clock == queue.ClockUnsynced }

// Correct returns s with the true time when s was made before the clock was set, in this boot. Other stamps come back unchanged.
func (c *Clock) Correct(s queue.Stamp) queue.Stamp {
	if s.Clock != queue.ClockUnsynced {
		return s
	}
	return c.correctAt(s, c.Now())
}

// correctAt is Correct for who has just asked for the time: now came from Now.
func (c *Clock) correctAt(s, now queue.Stamp) queue.Stamp {
	if s.Clock != queue.ClockUnsynced {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set && s.Boot == now.Boot && s.Uptime > 0 {
		s.Wall, s.Clock = c.zero.Add(s.Uptime), queue.ClockCorrected
	}
	return s
}

// At returns the stamp of a time that a producer gives for its event. While the clock is not set, a time of this boot by that clock is placed on the
// boot's own clock, so that it can be corrected; any other is the producer's word, and stays as it is.
func (c *Clock) At(t time.Time) queue.Stamp {
	raw := c.read()
	s := queue.Stamp{Wall: t.UTC(), Clock: raw.Clock, Boot: raw.Boot, Uptime: raw.Uptime}
	if raw.Clock == queue.ClockSynced {
		return s
	}
	ago := raw.Wall.Sub(t)
	if ago < 0 || ago >= raw.Uptime {
		s.Uptime = 0
		return s
	}
	s.Uptime -= ago
	c.mu.Lock()
	defer c.mu.Unlock()
	if bound := c.bound(s); s.Wall.Before(bound) {
		s.Wall = bound
	}
	return s
}

// kernelClock reads the kernel's clocks: adjtimex(2) knows whether anybody set the wall clock, CLOCK_BOOTTIME goes on through suspend and cannot be set.
func kernelClock(boot uint32) func() queue.Stamp {
	return func() queue.Stamp {
		s := queue.Stamp{Wall: time.Now().UTC(), Boot: boot}
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
			s.Uptime = time.Duration(ts.Nano())
		}
		var tx unix.Timex
		if state, err := unix.Adjtimex(&tx); err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0 {
			s.Clock = queue.ClockSynced
		}
		return s
	}
}

// bootID returns the first four bytes of the kernel's boot id, 0 when there is none.
func bootID() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(text) < 8 {
		return 0
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text[:8])))
	if err != nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
