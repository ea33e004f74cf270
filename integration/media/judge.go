package media

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"fieldagent/queue"
)

const nothing = "nothing that is known of"

// judge opens a damaged copy, reads all of it, uses it, and opens it again. told says that the queue has noticed the damage.
func (f *folder) judge(dir string) (told bool, err error) {
	q, err := queue.Open(dir, options)
	if err != nil {
		return false, fmt.Errorf("does not open: %w", err)
	}
	missing, rows, err := f.read(q)
	d := q.Damage()
	switch {
	case err != nil:
	case d == nil && len(missing) > 0:
		err = fmt.Errorf("missing without a word: %.200s", strings.Join(missing, ", "))
	case d != nil && len(missing) > 0 && len(d.Lost) == 1 && d.Lost[0] == nothing:
		err = fmt.Errorf("missing: %.200s; and the alarm says %v", strings.Join(missing, ", "), d)
	case d != nil && q.Store() == f.store && d.SetAside != "":
		err = errors.New("the database is a new one with the old one's id")
	}
	if err == nil {
		err = f.use(q, rows, d != nil)
	}
	if err = errors.Join(err, q.Close()); err != nil {
		return d != nil, err
	}
	if q, err = queue.Open(dir, options); err != nil {
		return d != nil, fmt.Errorf("does not open again: %w", err)
	}
	defer q.Close()
	if again := q.Damage(); again != nil {
		return d != nil, fmt.Errorf("damaged again: %v", again)
	}
	return d != nil, nil
}

// read compares all that the queue hands out with what was stored. missing lists what is not there; something that is there and is wrong is an error.
func (f *folder) read(q *queue.Queue) (missing []string, rows int, err error) {
	seen := map[queue.ID]bool{}
	var wrong []error
	last := uint64(0)
	err = each(q, q.Position().Acked, func(r queue.Record) {
		rows++
		want, ok := f.rows[r.ID]
		switch {
		case r.Type == "alarm":
		case r.ID.Sequence <= last:
			wrong = append(wrong, fmt.Errorf("row %d comes after row %d", r.ID.Sequence, last))
		case ok && !same(r, want):
			wrong = append(wrong, fmt.Errorf("row %v is not what was stored", r.ID))
		case !ok && (r.ID.Store != f.store || r.ID.Sequence > f.acked.Sequence):
			_, isDead := f.dead[r.ID]
			if !isDead { // else its burial was forgotten, and it is sent again as it was
				wrong = append(wrong, fmt.Errorf("row %v was never stored", r.ID))
			}
		}
		last = r.ID.Sequence
		seen[r.ID] = true
	})
	if err != nil {
		return nil, rows, err
	}
	for id := range f.rows {
		if !seen[id] {
			missing = append(missing, id.String())
		}
	}
	for id, want := range f.dead {
		l, err := q.Life(id)
		switch {
		case err == nil && l.State == queue.StateDead && l.Reason == "refused":
			if r, err := q.Record(id); err != nil || !same(r, want) {
				wrong = append(wrong, fmt.Errorf("dead letter %v: %v %w", id, r, err))
			}
		default:
			missing = append(missing, "dead letter "+id.String())
		}
	}
	if l, err := q.Life(f.acked); err != nil {
		missing = append(missing, "receipt")
	} else if l.State == queue.StateAcked && l.Server != "broker" {
		wrong = append(wrong, fmt.Errorf("receipt: %+v", l))
	}
	err = q.View(func(tx *queue.Tx) error {
		for k, v := range f.values {
			got, err := tx.Get(k, key)
			switch {
			case err != nil:
				return err
			case string(got) == v:
			case got == nil || string(got) == "older":
				missing = append(missing, fmt.Sprintf("value %d", k))
			default:
				wrong = append(wrong, fmt.Errorf("value %d is %.20q", k, got))
			}
		}
		jobs, err := tx.Jobs()
		found := map[string]bool{}
		for _, j := range jobs {
			found[j.ID] = true
			if want, ok := f.jobs[j.ID]; !ok || want != j.State {
				wrong = append(wrong, fmt.Errorf("command %s is %s", j.ID, j.State))
			}
		}
		for id := range f.jobs {
			if !found[id] {
				missing = append(missing, "command "+id)
			}
		}
		return err
	})
	return missing, rows, errors.Join(append(wrong, err)...)
}

// use appends an event, whose id must be new, and sees to it that an alarm is among the rows when there is reason for one.
func (f *folder) use(q *queue.Queue, rows int, alarm bool) error {
	var id queue.ID
	err := running(q, func(ctx context.Context) error {
		q.Complete(min(f.acked.Sequence+100, q.Position().Last), nil) // room
		if err := q.Update(ctx, func(*queue.Tx) error { return nil }); err != nil {
			return err
		}
		return q.Update(ctx, func(tx *queue.Tx) (err error) {
			id, err = tx.Append(queue.Event{Type: "after", QoS: 1, Data: json.RawMessage("1")})
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("takes no event: %w", err)
	}
	if id.Store == f.store && id.Sequence <= f.last {
		return fmt.Errorf("id %v is used again", id)
	}
	alarms := 0
	if err := each(q, 0, func(r queue.Record) {
		if r.Type == "alarm" {
			alarms++
		}
	}); err != nil {
		return err
	}
	if alarm != (alarms > 0) {
		return fmt.Errorf("%d alarm events, damage noticed: %v", alarms, alarm)
	}
	return nil
}
