package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"fieldagent/integration/powercut"
	"fieldagent/queue"
)

// deliver is a delivery engine without a network: the broker answers at once, but not always to all.
func (l *life) deliver(ctx context.Context, present bool) {
	rng := l.rand(99)
	l.note("session?", powercut.Fact{Value: map[bool]uint64{true: 1}[present]})
	pos, _, err := l.q.Begin(ctx, "broker/agent", present)
	if err != nil {
		fatal(err)
	}
	l.note("session", powercut.Fact{Seq: pos.Released})
	at := pos.Acked
	for {
		select {
		case <-l.done:
			return
		default:
		}
		rows, err := l.q.Next(at, 1+rng.IntN(16), 64<<10)
		if err != nil {
			fatal(err)
		}
		if len(rows) == 0 {
			l.committed()
			select {
			case <-l.done:
				return
			case <-l.q.Added():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		for _, r := range rows {
			l.q.Sent(r.ID.Sequence, "broker", queue.Stamp{Wall: time.Now().UTC()})
		}
		if l.bury && rng.IntN(6) == 0 {
			l.makeDead(ctx, rng, rows[0])
			at = rows[0].ID.Sequence
			continue
		}
		at = rows[len(rows)-1].ID.Sequence
		l.release(rows)
		l.note("complete?", powercut.Fact{Seq: at})
		l.q.Complete(at, receipts(rows))
		l.committed()
	}
}

// release makes it durable that all rows have their PUBREC, as an engine does before it sends PUBREL.
func (l *life) release(rows []queue.Record) {
	last := uint64(0)
	for _, r := range rows {
		if r.QoS == 2 {
			last = r.ID.Sequence
		}
	}
	if last == 0 {
		return
	}
	l.note("release?", powercut.Fact{Seq: last})
	done := make(chan error, 1)
	l.q.Release(last, func(err error) { done <- err })
	if err := <-done; err != nil {
		fatal(err)
	}
	l.note("release", powercut.Fact{Seq: last})
}

// committed notes what the queue says is on disk.
func (l *life) committed() {
	pos := l.q.Position()
	l.note("complete", powercut.Fact{Seq: pos.Acked})
}

func receipts(rows []queue.Record) []queue.Receipt {
	var out []queue.Receipt
	for _, r := range rows {
		out = append(out, queue.Receipt{Sequence: r.ID.Sequence, Server: "broker", Sent: 1})
	}
	return out
}

// makeDead buries a row and goes on; some dead letters are retried.
func (l *life) makeDead(ctx context.Context, rng *rand.Rand, r queue.Record) {
	l.note("bury?", powercut.Fact{Seq: r.ID.Sequence})
	if err := l.q.Bury(ctx, r.ID.Sequence, "refused"); err != nil {
		fatal(err)
	}
	l.note("bury", powercut.Fact{Seq: r.ID.Sequence})
	l.note("complete?", powercut.Fact{Seq: r.ID.Sequence})
	l.q.Complete(r.ID.Sequence, nil)
	if rng.IntN(2) == 0 {
		return
	}
	l.note("retry?", powercut.Fact{Seq: r.ID.Sequence})
	if err := l.q.Retry(ctx, r.ID); err != nil {
		fatal(err)
	}
	got, released, ok := l.q.NextRetry()
	if !ok || got.ID.Sequence > r.ID.Sequence {
		fatal(errors.New("the retried row does not come"))
	}
	if got.QoS == 2 && !released {
		done := make(chan error, 1)
		l.q.ReleaseRetry(got.ID.Sequence, func(err error) { done <- err })
		if err := <-done; err != nil {
			fatal(err)
		}
		l.note("retry released", powercut.Fact{Seq: got.ID.Sequence})
	}
	l.note("retry done?", powercut.Fact{Seq: got.ID.Sequence})
	l.q.CompleteRetry(got.ID.Sequence, queue.Receipt{Sequence: got.ID.Sequence, Server: "broker", Sent: 2})
}
