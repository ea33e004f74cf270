package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// run opens a store and runs its owner until the returned function is called; that is what a clean stop does.
func run(t testing.TB, dir string, opt Options) (*Queue, func()) {
	t.Helper()
	q, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return q, stop
}

func event(n int) Event {
	return Event{Type: "test", QoS: byte(1 + n%2), Data: fmt.Appendf(nil, `{"n":%d}`, n), At: Stamp{Wall: time.Unix(1e9+int64(n), 5).UTC(), Clock: ClockSynced, Boot: 7, Uptime: time.Duration(n)}}
}

func add(t testing.TB, q *Queue, e Event) ID {
	t.Helper()
	var id ID
	if err := q.Update(t.Context(), func(tx *Tx) (err error) { id, err = tx.Append(e); return err }); err != nil {
		t.Fatal(err)
	}
	return id
}

// rest reads all rows above after.
func rest(t testing.TB, q *Queue, after uint64) []Record {
	t.Helper()
	var all []Record
	for {
		rows, err := q.Next(after, 64, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			return all
		}
		all = append(all, rows...)
		after = rows[len(rows)-1].ID.Sequence
	}
}

func finish(t testing.TB, q *Queue, rows ...Record) {
	t.Helper()
	var rec []Receipt
	for _, r := range rows {
		rec = append(rec, Receipt{Sequence: r.ID.Sequence, Server: "b", Sent: 1})
	}
	q.Complete(rows[len(rows)-1].ID.Sequence, rec)
	if _, err := q.Wait(t.Context(), rows[len(rows)-1].ID); err != nil {
		t.Fatal(err)
	}
	if err := q.Update(t.Context(), func(*Tx) error { return nil }); err != nil { // takes the mark along
		t.Fatal(err)
	}
}

func TestAcceptedSurvives(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	var ids []ID
	for i := range 20 {
		ids = append(ids, add(t, q, event(i)))
	}
	stop()
	q, _ = run(t, dir, Options{})
	rows := rest(t, q, 0)
	if len(rows) != 20 {
		t.Fatalf("%d rows, want 20", len(rows))
	}
	for i, r := range rows {
		want := event(i)
		if r.ID != ids[i] || r.ID.Sequence != uint64(i+1) || r.Type != want.Type || r.QoS != want.QoS || string(r.Data) != string(want.Data) || r.At != want.At {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
	if id := add(t, q, event(20)); id.Sequence != 21 || id.Store != ids[0].Store {
		t.Fatalf("next id %v", id)
	}
}

func TestConcurrentProducersNoGaps(t *testing.T) {
	q, _ := run(t, t.TempDir(), Options{})
	var wg sync.WaitGroup
	for p := range 16 {
		wg.Go(func() {
			for i := range 50 {
				add(t, q, event(p*50+i))
			}
		})
	}
	wg.Wait()
	rows := rest(t, q, 0)
	seen := map[string]bool{}
	for i, r := range rows {
		if r.ID.Sequence != uint64(i+1) || seen[string(r.Data)] {
			t.Fatalf("row %d: %v %s", i, r.ID, r.Data)
		}
		seen[string(r.Data)] = true
	}
	if len(rows) != 800 {
		t.Fatalf("%d rows", len(rows))
	}
	if c := q.Stats().Commits; c > 700 {
		t.Errorf("%d commits for 800 events of 16 producers: no group commit", c)
	}
}

func TestErrorUndoesOnlyItsOwn(t *testing.T) {
	q, _ := run(t, t.TempDir(), Options{})
	bad := errors.New("no")
	err := q.Update(t.Context(), func(tx *Tx) error {
		if _, err := tx.Append(event(1)); err != nil {
			return err
		}
		if err := tx.Put(Totals, "m", []byte("9")); err != nil {
			return err
		}
		return bad
	})
	if !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if err := q.Update(t.Context(), func(tx *Tx) error { panic("oops") }); err == nil {
		t.Fatal("a panic in a transaction is no error")
	}
	if id := add(t, q, event(2)); id.Sequence != 1 {
		t.Fatalf("id %v after an undone append", id)
	}
	if err := q.View(func(tx *Tx) error {
		if v, err := tx.Get(Totals, "m"); v != nil || err != nil {
			t.Errorf("undone put is there: %q %v", v, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestTotalsAndEventTogether(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	err := q.Update(t.Context(), func(tx *Tx) error {
		if _, err := tx.Append(event(1)); err != nil {
			return err
		}
		if err := tx.Put(Totals, "energy", []byte("15230")); err != nil {
			return err
		}
		v, err := tx.Get(Totals, "energy")
		if string(v) != "15230" {
			t.Errorf("a transaction does not see its own change: %q", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	q, _ = run(t, dir, Options{})
	if err := q.View(func(tx *Tx) error {
		keys, err := tx.Keys(Totals)
		if err != nil || len(keys) != 1 || keys[0] != "energy" {
			t.Errorf("keys %v %v", keys, err)
		}
		v, err := tx.Get(Totals, "energy")
		if string(v) != "15230" {
			t.Errorf("total %q", v)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestMarks(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	for i := range 10 {
		add(t, q, event(i))
	}
	if _, n, err := q.Begin(t.Context(), "broker/c", false); err != nil || n != 0 {
		t.Fatal(n, err)
	}
	rows := rest(t, q, 0)
	released := make(chan error, 1)
	q.Release(6, func(err error) { released <- err })
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	finish(t, q, rows[:3]...)
	stop()
	q, stop = run(t, dir, Options{})
	if p := q.Position(); p != (Position{3, 6, 10, "broker/c"}) {
		t.Fatalf("%+v", p)
	}
	if rows := rest(t, q, 0); len(rows) != 7 || rows[0].ID.Sequence != 4 {
		t.Fatalf("%d rows from %v", len(rows), rows[0].ID)
	}
	if p, n, err := q.Begin(t.Context(), "broker/c", true); err != nil || n != 0 || p.Released != 6 {
		t.Fatal(p, n, err)
	}
	if p, n, err := q.Begin(t.Context(), "other/c", true); err != nil || n != 3 || p.Released != 3 {
		t.Fatal(p, n, err)
	}
	stop()
	q, _ = run(t, dir, Options{})
	if p := q.Position(); p.Released != 3 || p.Session != "other/c" {
		t.Fatalf("a lost session must be durable: %+v", p)
	}
}

// A backlog goes to segments, comes back in order, and its disk space is given back.
func TestLongBacklog(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	const n = 30000
	fill(t, q, n)
	if s := q.Stats(); s.Segments < 3 || s.Depth != n {
		t.Fatalf("%+v", s)
	}
	check := func(rows []Record, from int) {
		t.Helper()
		for i, r := range rows {
			if r.ID.Sequence != uint64(from+i+1) || string(r.Data) != string(event(from+i).Data) {
				t.Fatalf("row %d: %v %s", from+i, r.ID, r.Data)
			}
		}
		if from+len(rows) != n {
			t.Fatalf("ends at %d", from+len(rows))
		}
	}
	rows := rest(t, q, 0)
	check(rows, 0)
	finish(t, q, rows[:12345]...)
	stop()
	q, stop = run(t, dir, Options{})
	check(rest(t, q, 0), 12345)
	if s := q.Stats(); s.Depth != n-12345 {
		t.Fatalf("%+v", s)
	}
	finish(t, q, rows[12345:]...)
	if s := q.Stats(); s.Segments != 0 || s.Depth != 0 || s.Bytes > 8<<20 {
		t.Fatalf("%+v", s)
	}
	left, err := os.ReadDir(filepath.Join(dir, segmentDir))
	if err != nil || len(left) != 0 {
		t.Fatalf("%v %v", left, err)
	}
	stop()
	q, _ = run(t, dir, Options{})
	if id := add(t, q, event(1)); id.Sequence != n+1 {
		t.Fatalf("sequence %d used again", id.Sequence)
	}
}

func fill(t testing.TB, q *Queue, n int) {
	t.Helper()
	for i := 0; i < n; i += 500 {
		if err := q.Update(t.Context(), func(tx *Tx) error {
			for k := i; k < min(i+500, n); k++ {
				if _, err := tx.Append(event(k)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullRefusesAndTells(t *testing.T) {
	q, _ := run(t, t.TempDir(), Options{MaxSize: 4 << 20})
	e := event(1)
	e.Data = json.RawMessage(`"` + strings.Repeat("x", 20000) + `"`)
	refused := 0
	for range 200 {
		err := q.Update(t.Context(), func(tx *Tx) error { _, err := tx.Append(e); return err })
		if errors.Is(err, ErrFull) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 || q.Stats().Refused != uint64(refused) {
		t.Fatalf("%d refused, stats %+v", refused, q.Stats())
	}
	rows := rest(t, q, 0)
	finish(t, q, rows...)
	add(t, q, event(2))
	after := rest(t, q, rows[len(rows)-1].ID.Sequence)
	var gap struct{ Refused int }
	for _, r := range after {
		if r.Type == "gap" {
			if err := json.Unmarshal(r.Data, &gap); err != nil {
				t.Fatal(err)
			}
		}
	}
	if gap.Refused != refused {
		t.Fatalf("gap event says %d, refused %d; rows %v", gap.Refused, refused, after)
	}
}

func TestBadEvents(t *testing.T) {
	q, _ := run(t, t.TempDir(), Options{MaxRecord: 100})
	for name, c := range map[string]struct {
		e    Event
		want error
	}{
		"type":  {Event{Type: "A b", QoS: 1}, ErrInvalid},
		"qos":   {Event{Type: "a", QoS: 0}, ErrInvalid},
		"json":  {Event{Type: "a", QoS: 1, Data: json.RawMessage("{")}, ErrInvalid},
		"topic": {Event{Type: "a", QoS: 1, Topic: "a/#"}, ErrInvalid},
		"large": {Event{Type: "a", QoS: 1, Data: json.RawMessage(`"` + strings.Repeat("x", 100) + `"`)}, ErrTooLarge},
	} {
		err := q.Update(t.Context(), func(tx *Tx) error { _, err := tx.Append(c.e); return err })
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{KeepDelivered: 5})
	var ids []ID
	for i := range 12 {
		ids = append(ids, add(t, q, event(i)))
	}
	rows := rest(t, q, 0)
	if l, err := q.Life(ids[0]); err != nil || l.State != StateQueued {
		t.Fatal(l, err)
	}
	q.Sent(1, "mqtt://b", q.opt.Now())
	if l, err := q.Life(ids[0]); err != nil || l.State != StateSent || l.Sent != 1 || l.Server != "mqtt://b" {
		t.Fatal(l, err)
	}
	for i := range 10 {
		finish(t, q, rows[i])
	}
	stop()
	q, _ = run(t, dir, Options{KeepDelivered: 5})
	if l, err := q.Life(ids[9]); err != nil || l.State != StateAcked || l.Server != "b" {
		t.Fatal(l, err)
	}
	if _, err := q.Life(ids[0]); !errors.Is(err, ErrNotFound) {
		t.Fatalf("kept more than KeepDelivered: %v", err)
	}
	if _, err := q.Life(ID{ids[0].Store + 1, 11}); !errors.Is(err, ErrNotFound) {
		t.Fatal("another store's id found")
	}
	if l, err := q.List(0, 100, ""); err != nil || len(l) != 2 {
		t.Fatal(l, err)
	}
}

func TestDeadLettersAndRetry(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	var ids []ID
	for i := range 5 {
		ids = append(ids, add(t, q, event(i)))
	}
	if err := q.Bury(t.Context(), 1, "refused: not authorised"); err != nil {
		t.Fatal(err)
	}
	if rows := rest(t, q, 0); len(rows) != 4 || rows[0].ID.Sequence != 2 {
		t.Fatalf("%v", rows)
	}
	finish(t, q, rest(t, q, 0)[0]) // 2, and 1 with it
	stop()
	q, _ = run(t, dir, Options{})
	if l, err := q.Life(ids[0]); err != nil || l.State != StateDead || l.Reason != "refused: not authorised" {
		t.Fatal(l, err)
	}
	if err := q.Retry(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	if err := q.Retry(t.Context(), ids[3]); !errors.Is(err, ErrNotFound) {
		t.Fatal("a live row can be retried")
	}
	r, released, ok := q.NextRetry()
	if !ok || released || r.ID != ids[0] || string(r.Data) != string(event(0).Data) {
		t.Fatal(r, released, ok)
	}
	rel := make(chan error, 1)
	q.ReleaseRetry(1, func(err error) { rel <- err })
	if err := <-rel; err != nil {
		t.Fatal(err)
	}
	if _, released, _ := q.NextRetry(); !released {
		t.Fatal("mark of the retry lost")
	}
	q.CompleteRetry(1, Receipt{Sent: 2})
	if err := q.Update(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if l, err := q.Life(ids[0]); err != nil || l.State != StateAcked {
		t.Fatal(l, err)
	}
}

func TestPurgeQueued(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	fill(t, q, 12000)
	if _, err := q.Next(0, 3, 1<<20); err != nil {
		t.Fatal(err)
	}
	n, err := q.PurgeQueued(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := rest(t, q, 0)
	last := rows[len(rows)-1]
	if last.Type != "gap" || last.ID.Sequence != 12001 || n+len(rows)-1 != 12000 {
		t.Fatalf("purged %d, left %d, last %+v", n, len(rows), last)
	}
	stop()
	q, _ = run(t, dir, Options{})
	if got := rest(t, q, 0); len(got) != len(rows) {
		t.Fatalf("%d rows after reopen, %d before", len(got), len(rows))
	}
	if id := add(t, q, event(1)); id.Sequence != 12002 {
		t.Fatal(id)
	}
}

func TestInbox(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	receive := func(id string) (j Job, fresh bool) {
		t.Helper()
		if err := q.Update(t.Context(), func(tx *Tx) (err error) { j, fresh, err = tx.Receive(id, "ping", []byte("{}")); return err }); err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, fresh := receive("c-1"); !fresh {
		t.Fatal("new command is known")
	}
	receive("c-2")
	if _, fresh := receive("c-1"); fresh {
		t.Fatal("same command twice")
	}
	if err := q.Update(t.Context(), func(tx *Tx) error { return tx.Start("c-1") }); err != nil {
		t.Fatal(err)
	}
	stop()
	q, _ = run(t, dir, Options{})
	var jobs []Job
	if err := q.View(func(tx *Tx) (err error) { jobs, err = tx.Unfinished(); return err }); err != nil {
		t.Fatal(err)
	}
	if len(jobs) != 2 || jobs[0].ID != "c-1" || jobs[0].State != JobStarted || jobs[1].State != JobReceived {
		t.Fatalf("%+v", jobs)
	}
	var rid ID
	if err := q.Update(t.Context(), func(tx *Tx) (err error) {
		rid, err = tx.Finish("c-1", Event{Type: "result", Topic: "cmd/ping/result", QoS: 1, Data: json.RawMessage(`{"status":"ok"}`)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if j, fresh := receive("c-1"); fresh || j.State != JobDone || *j.Result != rid || string(j.ResultData) != `{"status":"ok"}` {
		t.Fatalf("%+v", j)
	}
	if rows := rest(t, q, 0); len(rows) != 1 || rows[0].Topic != "cmd/ping/result" {
		t.Fatalf("%+v", rows)
	}
}

func TestSecondAgent(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("%v", err)
	}
}

func TestCancelledProducer(t *testing.T) {
	q, stop := run(t, t.TempDir(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Update(ctx, func(*Tx) error { return nil }); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrDisk) {
		t.Fatal(err)
	}
	stop()
	if err := q.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
