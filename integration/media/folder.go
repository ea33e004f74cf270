package media

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fieldagent/queue"
)

// folder is a state folder with something in every place, and what is in it.
type folder struct {
	dir    string
	files  []string // that can be damaged, below dir
	store  uint32
	last   uint64
	rows   map[queue.ID]queue.Record // undelivered
	dead   map[queue.ID]queue.Record
	acked  queue.ID // delivered, and known to the audit trail
	values map[queue.Kind]string
	jobs   map[string]queue.JobState
}

var options = queue.Options{MaxSize: 4 << 20, KeepDelivered: 100}

const key = "k"

// newFolder fills dir: segments, rows, dead letters, an audit trail, values, commands.
func newFolder(dir string) (f *folder, err error) {
	f = &folder{dir: dir, rows: map[queue.ID]queue.Record{}, dead: map[queue.ID]queue.Record{}, jobs: map[string]queue.JobState{},
		values: map[queue.Kind]string{queue.Totals: "15230", queue.Config: strings.Repeat("configuration ", 300), queue.Misc: "baseline"}}
	q, err := queue.Open(dir, options)
	if err != nil {
		return nil, err
	}
	f.store = q.Store()
	err = running(q, func(ctx context.Context) error { return f.fill(ctx, q) })
	if err = errors.Join(err, q.Close()); err != nil {
		return nil, err
	}
	segs, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	if len(segs) < 3 {
		return nil, fmt.Errorf("only %d segments: %w", len(segs), err)
	}
	f.files = []string{"fieldagent.db", "fieldagent.marks"}
	for _, s := range segs {
		f.files = append(f.files, filepath.Join("segments", filepath.Base(s)))
	}
	return f, nil
}

func (f *folder) fill(ctx context.Context, q *queue.Queue) error {
	for n := 0; n < 2400; n += 40 {
		err := q.Update(ctx, func(tx *queue.Tx) error {
			for i := range 40 {
				data := fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, n+i, strings.Repeat(string(rune('a'+i%26)), 300+(n+i)%400))
				if _, err := tx.Append(queue.Event{Type: "media", QoS: byte(1 + i%2), Data: data}); err != nil {
					return err
				}
			}
			for k, v := range f.values {
				older := v
				if n == 0 {
					older = "older"
				}
				if err := tx.Put(k, key, []byte(older)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if _, _, err := q.Begin(ctx, "broker/media", false); err != nil {
		return err
	}
	if err := f.deliver(ctx, q); err != nil {
		return err
	}
	for n := range 20 {
		id := fmt.Sprint("c-", n)
		f.jobs[id] = queue.JobReceived
		if err := q.Update(ctx, func(tx *queue.Tx) error {
			if _, _, err := tx.Receive(id, "ping", []byte(`{"id":"`+id+`"}`)); err != nil || n%2 == 0 {
				return err
			}
			f.jobs[id] = queue.JobDone
			_, err := tx.Finish(id, queue.Event{Type: "result", QoS: 1, Data: json.RawMessage(`{"status":"ok"}`)})
			return err
		}); err != nil {
			return err
		}
	}
	pos := q.Position()
	f.last = pos.Last
	return each(q, pos.Acked, func(r queue.Record) { f.rows[r.ID] = r })
}

// deliver finishes the first rows and buries some.
func (f *folder) deliver(ctx context.Context, q *queue.Queue) error {
	rows, err := q.Next(0, 60, 1<<20)
	if err != nil {
		return err
	}
	var receipts []queue.Receipt
	for _, r := range rows[:50] {
		receipts = append(receipts, queue.Receipt{Sequence: r.ID.Sequence, Server: "broker", Sent: 1})
	}
	f.acked = rows[49].ID
	for _, r := range rows[52:55] {
		f.dead[r.ID] = r
		if err := q.Bury(ctx, r.ID.Sequence, "refused"); err != nil {
			return err
		}
	}
	q.Complete(f.acked.Sequence, receipts)
	return q.Update(ctx, func(*queue.Tx) error { return nil })
}

// running runs fn while the queue's owner runs.
func running(q *queue.Queue, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	run, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(run) }()
	err := fn(ctx)
	stop()
	return errors.Join(err, <-ran)
}

func each(q *queue.Queue, after uint64, fn func(queue.Record)) error {
	for {
		rows, err := q.Next(after, 100, 1<<20)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, r := range rows {
			fn(r)
			after = r.ID.Sequence
		}
	}
}

// lay makes a copy in which one file has other content. Segments that are whole are shared: nobody writes to them.
func (f *folder) lay(dir, damaged string, content []byte) error {
	if err := os.MkdirAll(filepath.Join(dir, "segments"), 0o700); err != nil {
		return err
	}
	for _, name := range f.files {
		var err error
		switch {
		case name == damaged:
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		case filepath.Ext(name) != ".seg":
			var data []byte
			if data, err = os.ReadFile(filepath.Join(f.dir, name)); err == nil {
				err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
			}
		default:
			err = os.Link(filepath.Join(f.dir, name), filepath.Join(dir, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func same(a, b queue.Record) bool {
	return a.ID == b.ID && a.Type == b.Type && a.QoS == b.QoS && a.Topic == b.Topic && bytes.Equal(a.Data, b.Data) && a.At == b.At && a.Accepted == b.Accepted
}
