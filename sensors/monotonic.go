package sensors

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic returns CLOCK_MONOTONIC, the clock of edge time stamps.
func Monotonic() time.Duration {
	var ts unix.Timespec
	// Cannot fail with this clock and a valid pointer.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
