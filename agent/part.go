package agent

import (
	"context"
	"time"
)

// part is something that runs until it is stopped, and can be replaced by another one.
type part struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func startPart(ctx context.Context, run func(context.Context)) *part {
	ctx, cancel := context.WithCancel(ctx)
	p := &part{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		run(ctx)
	}()
	return p
}

// stop ends the part and waits, but not for ever: a driver can hang in the kernel. It says whether the part has ended.
func (p *part) stop(patience time.Duration) bool {
	if p == nil {
		return true
	}
	p.cancel()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}
