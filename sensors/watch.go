package sensors

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// LineReport is what Watch tells of a line: that it is held, an edge, or a fault.
type LineReport struct {
	Opened bool   // the line is held (again); Level is its level
	Level  bool   //
	Polled bool   // with Opened: the chip has no interrupts
	Edge   Edge   // an edge, when neither Opened nor Err is set
	Missed uint32 // edges just before Edge that the kernel saw and nobody read in time
	Err    error  // the line failed; it is opened again by itself
}

// Watch holds an input line until ctx ends. When the line cannot be held, or its chip goes away, it says so and tries again, after 1 s at first and 60 s at last.
// report is called from one goroutine at a time and must not block for long: the kernel keeps a bounded number of edges.
func Watch(ctx context.Context, name string, spec LineSpec, want Edges, lines Lines, log *slog.Logger, report func(LineReport)) error {
	const slow = 60 * time.Second
	wait := time.Second
	last := ""
	for {
		began := time.Now()
		err := watchOnce(ctx, spec, want, lines, func(r LineReport) {
			if r.Opened {
				last = "" // the next fault is news, whatever it is
			}
			report(r)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err.Error() != last {
			log.Error("line failed, will be opened again", "name", name, "err", err)
			last = err.Error()
			report(LineReport{Err: err})
		}
		if time.Since(began) > slow {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, slow)
	}
}

// watchOnce returns when ctx ends or the line fails.
func watchOnce(ctx context.Context, spec LineSpec, want Edges, lines Lines, report func(LineReport)) error {
	var (
		mu   sync.Mutex // the level found at opening is reported before any edge
		last uint32     // the kernel counts the edges of a request from 1
	)
	gone := make(chan error, 1)
	mu.Lock()
	in, err := lines.Input(spec, want, func(e Edge) {
		mu.Lock()
		defer mu.Unlock()
		r := LineReport{Edge: e}
		if e.Seq != 0 {
			r.Missed = e.Seq - last - 1
			last = e.Seq
		}
		report(r)
	}, func(err error) { gone <- err })
	if err != nil {
		mu.Unlock()
		return err
	}
	defer in.Close()
	level, err := in.Active()
	if err != nil {
		mu.Unlock()
		return err
	}
	report(LineReport{Opened: true, Level: level, Polled: in.Polled()})
	mu.Unlock()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return err
		case <-tick.C:
			if _, err := in.Active(); err != nil {
				return err
			}
		}
	}
}

// lookEvery is how often a held line is looked at: some kernels wake nobody when a chip goes away.
const lookEvery = 10 * time.Second
