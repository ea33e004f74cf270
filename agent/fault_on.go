//go:build faultpoints

package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// FaultPoint kills this process with SIGKILL when it is called for the n-th time with the point that FIELDAGENT_CRASH_AT=point:n names.
var FaultPoint = faultPoint

var (
	crashAt   string
	crashLeft atomic.Int64
)

func init() {
	point, n, ok := strings.Cut(os.Getenv("FIELDAGENT_CRASH_AT"), ":")
	if !ok {
		return
	}
	left, err := strconv.ParseInt(n, 10, 64)
	if err != nil || left < 1 {
		fmt.Fprintf(os.Stderr, "FIELDAGENT_CRASH_AT: want point:n, such as \"before pubrel:3\"\n")
		os.Exit(2)
	}
	crashAt = point
	crashLeft.Store(left)
}

func faultPoint(point string) {
	if crashAt == point && crashLeft.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
