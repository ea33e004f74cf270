package queue

import (
	"encoding/json"
	"errors"
	"time"
)

// gapCount is what a full outbox has refused since the last gap event.
type gapCount struct {
	Refused uint64            `json:"refused"`
	ByType  map[string]uint64 `json:"by_type,omitempty"`
	First   time.Time         `json:"first"`
	Last    time.Time         `json:"last"`
	Reason  string            `json:"reason"`
	dirty   bool              // not on disk yet
}

var gapKey = []byte("gap")

// refuse counts an event that a full outbox did not take. Only the owner's goroutine does.
func (q *Queue) refuse(kind string, at time.Time) {
	at = at.Truncate(time.Millisecond)
	q.mu.Lock()
	g := &q.gap
	news := g.Refused == 0
	if news {
		*g = gapCount{ByType: map[string]uint64{}, First: at, Reason: "outbox full"}
	}
	g.Refused++
	if len(g.ByType) < 32 || g.ByType[kind] > 0 {
		g.ByType[kind]++
	}
	g.Last, g.dirty = at, true
	q.stats.refused++
	q.mu.Unlock()
	if news {
		q.log.Error("the outbox is full: events are refused, counted, and told of when there is room again", "limit", q.opt.MaxSize, "remedy", "bring the broker back, or raise outbox.max_size")
	}
}

// gapEvent writes what was refused: the count for now, and the event as soon as there is room again.
func (o *owner) gapEvent(b *batch, jobs []*job) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gap.Refused == 0 {
		return nil
	}
	data, err := json.Marshal(o.gap)
	if err != nil {
		return err
	}
	full := o.room()-b.tx.size < o.opt.MaxSize/20
	for _, j := range jobs {
		full = full || errors.Is(j.err, ErrFull)
	}
	if full {
		// Not worth a commit of its own for each event that is refused: with others', or after a second.
		if !o.gap.dirty || len(b.tx.puts) == 0 && time.Since(o.gapSince) < ackIdle {
			return nil
		}
		o.gapSince = time.Now()
		b.gapKept = true
		return b.tx.put(inState, gapKey, data)
	}
	if _, err := b.tx.add(Event{Type: "gap", QoS: 1, Data: data, At: b.tx.now}); err != nil {
		return err
	}
	b.gapDone = true
	return b.tx.remove(inState, gapKey)
}

func parseGap(v []byte) (gapCount, error) {
	var g gapCount
	if err := json.Unmarshal(v, &g); err != nil {
		return g, errDamaged
	}
	if g.ByType == nil {
		g.ByType = map[string]uint64{}
	}
	return g, nil
}
