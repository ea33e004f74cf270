package agent

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"
)

// flashCounter counts what the process has written to its disk today, as the kernel sees it. Cards wear out by writing: a figure that
// grows while nothing happens is a fault.
type flashCounter struct {
	mu   sync.Mutex
	day  int64
	base int64
}

// today returns the bytes written since midnight UTC, or since the start if that was later.
func (f *flashCounter) today(clock *Clock) int64 {
	n := written()
	day := clock.Now().Wall.Unix() / 86400
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.day != day {
		if f.day != 0 {
			f.base = n
		}
		f.day = day
	}
	return n - f.base
}

// written is write_bytes of /proc/self/io, 0 when the kernel does not count.
func written() int64 {
	file, err := os.Open("/proc/self/io")
	if err != nil {
		return 0
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "write_bytes: "); ok {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}
