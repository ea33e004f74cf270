package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"fieldagent/queue"
)

// checkLimit is how long opening and using a state may take, on a busy machine.
const checkLimit = 2 * time.Minute

// Check opens what a cut has left, judges it, uses it, and opens it once more.
func Check(dir string, m *Model, opt queue.Options) error {
	done := make(chan error, 1)
	go func() { done <- check(dir, m, opt) }()
	select {
	case err := <-done:
		return err
	case <-time.After(checkLimit):
		return errors.New("the check hangs")
	}
}

func check(dir string, m *Model, opt queue.Options) error {
	q, err := queue.Open(dir, opt)
	if err != nil {
		return fmt.Errorf("does not open: %w", err)
	}
	s, err := read(q)
	if err == nil {
		err = m.Judge(s)
	}
	if err == nil {
		err = use(q, s)
	}
	if err = errors.Join(err, q.Close()); err != nil {
		return err
	}
	if q, err = queue.Open(dir, opt); err != nil {
		return fmt.Errorf("does not open a second time: %w", err)
	}
	defer q.Close()
	if d := q.Damage(); d != nil {
		return fmt.Errorf("the second opening finds damage: %v", d)
	}
	rows, err := allRows(q)
	left := 0
	for _, r := range rows {
		if !r.Own {
			left++
		}
	}
	if err != nil || left != 1 {
		return fmt.Errorf("%d events are left where one was to be: %w", left, err)
	}
	return nil
}

// read takes down what the queue says it has.
func read(q *queue.Queue) (s State, err error) {
	pos := q.Position()
	s = State{Store: q.Store(), Acked: pos.Acked, Released: pos.Released, Last: pos.Last, Damage: q.Damage() != nil, Jobs: map[string]uint64{}}
	if s.Rows, err = allRows(q); err != nil {
		return s, err
	}
	lives, err := q.List(0, 1<<20, queue.StateDead)
	if err != nil {
		return s, err
	}
	for _, l := range lives {
		r, err := q.Record(l.ID)
		if err != nil {
			return s, err
		}
		s.Dead = append(s.Dead, row(r))
	}
	err = q.View(func(tx *queue.Tx) error {
		total, err := tx.Get(queue.Totals, "m")
		if err != nil {
			return err
		}
		if total != nil {
			if _, err := fmt.Sscan(string(total), &s.Total); err != nil {
				return fmt.Errorf("the total is %q", total)
			}
		}
		doc, err := tx.Get(queue.Config, "c")
		if err != nil {
			return err
		}
		s.Document = DocumentVersion(doc)
		s.Harmed = doc != nil && s.Document == 0
		jobs, err := tx.Jobs()
		for _, j := range jobs {
			s.Jobs[j.ID] = map[queue.JobState]uint64{queue.JobReceived: 1, queue.JobStarted: 2, queue.JobDone: 3}[j.State]
			if j.State == queue.JobDone && (j.Result == nil || j.Result.Sequence > pos.Last) {
				return fmt.Errorf("command %s is done without a result", j.ID)
			}
		}
		return err
	})
	return s, err
}

func allRows(q *queue.Queue) (rows []Row, err error) {
	for after := uint64(0); ; {
		some, err := q.Next(after, 100, 1<<20)
		if err != nil || len(some) == 0 {
			return rows, err
		}
		for _, r := range some {
			if r.ID.Sequence <= after {
				return nil, fmt.Errorf("row %d comes after row %d", r.ID.Sequence, after)
			}
			after = r.ID.Sequence
			rows = append(rows, row(r))
		}
	}
}

func row(r queue.Record) Row {
	out := Row{Store: r.ID.Store, Seq: r.ID.Sequence, Own: r.Type == "gap" || r.Type == "alarm"}
	if !out.Own {
		out.Token, _ = unharmed(r)
	}
	return out
}

func unharmed(r queue.Record) (string, bool) {
	token, ok := TokenOf(r.Data)
	if !ok || r.Type != "proof" {
		return "", false
	}
	return token, true
}

// use appends an event, which must get a new id, and delivers all the others.
func use(q *queue.Queue, s State) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit/2)
	defer cancel()
	rctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(rctx) }()
	err := func() error {
		if _, _, err := q.Begin(ctx, "broker/check", false); err != nil {
			return err
		}
		q.Complete(q.Position().Last, nil)
		if err := q.Update(ctx, func(*queue.Tx) error { return nil }); err != nil {
			return err
		}
		last := max(q.Position().Last, s.Last)
		var id queue.ID
		if err := q.Update(ctx, func(tx *queue.Tx) (err error) {
			id, err = tx.Append(queue.Event{Type: "after", QoS: 1, Data: json.RawMessage(`"` + strings.Repeat("x", 50) + `"`)})
			return err
		}); err != nil {
			return fmt.Errorf("takes no event: %w", err)
		}
		if id.Sequence <= last || id.Store != q.Store() {
			return fmt.Errorf("the next event got %v, row %d was the newest", id, last)
		}
		return nil
	}()
	stop()
	return errors.Join(err, <-ran)
}
