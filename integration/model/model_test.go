// Package model drives package queue with random sequences of operations and compares it with a model that fits on a page.
package model

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fieldagent/queue"
)

const patience = 2 * time.Minute

// machine is the queue and what it must have.
type machine struct {
	t   *rapid.T
	dir string
	q   *queue.Queue
	end func() error

	last     uint64
	acked    uint64 // committed or on its way
	released uint64
	session  string
	rows     map[uint64]string // above acked, not buried: their data
	dead     map[uint64]string
	owner    map[uint64]queue.ID
	total    string
	jobs     map[string]queue.JobState
	gaps     map[uint64]bool
}

var options = queue.Options{MaxSize: 4 << 20}

func (m *machine) open() {
	q, err := queue.Open(m.dir, options)
	if err != nil {
		m.t.Fatal(err)
	}
	if d := q.Damage(); d != nil {
		m.t.Fatal(d)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	m.q = q
	m.end = func() error { stop(); return errors.Join(<-ran, q.Close()) }
}

func (m *machine) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.t.Cleanup(cancel)
	return ctx
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// append adds up to n events in one transaction, which fails on purpose when bad is set.
func (m *machine) append(n, size int, bad bool) {
	var ids []queue.ID
	var data []string
	refuse := errors.New("on purpose")
	err := m.q.Update(m.ctx(), func(tx *queue.Tx) error {
		for range n {
			d := fmt.Sprintf(`{"n":%d,"pad":"%s"}`, m.last+uint64(len(ids)), strings.Repeat("x", size))
			id, err := tx.Append(queue.Event{Type: "m", QoS: byte(1 + n%2), Data: json.RawMessage(d)})
			if err != nil {
				return err
			}
			ids, data = append(ids, id), append(data, d)
		}
		if bad {
			return refuse
		}
		return tx.Put(queue.Totals, "t", []byte(fmt.Sprint(m.last, n)))
	})
	switch {
	case bad && errors.Is(err, refuse), errors.Is(err, queue.ErrFull):
		m.catchUp()
		return
	case err != nil || bad:
		m.t.Fatalf("append: %v", err)
	}
	m.total = fmt.Sprint(m.last, n)
	for i, id := range ids {
		if id.Sequence != m.last+1 {
			m.t.Fatalf("id %v, the last was %d", id, m.last)
		}
		m.last = id.Sequence
		m.rows[id.Sequence], m.owner[id.Sequence] = data[i], id
	}
	m.catchUp()
}

// catchUp takes the gap events into the model that the queue writes by itself.
func (m *machine) catchUp() {
	m.must(m.q.Update(m.ctx(), func(*queue.Tx) error { return nil }))
	for pos := m.q.Position(); m.last < pos.Last; {
		m.last++
		r, err := m.q.Record(queue.ID{Store: m.q.Store(), Sequence: m.last})
		if errors.Is(err, queue.ErrNotFound) {
			m.t.Fatalf("row %d is not there", m.last)
		}
		m.must(err)
		if r.Type != "gap" {
			m.t.Fatalf("row %d is a %s that nobody appended", m.last, r.Type)
		}
		m.rows[m.last], m.owner[m.last], m.gaps[m.last] = string(r.Data), r.ID, true
	}
}

func (m *machine) deliver(n int) {
	seqs := slices.Sorted(maps.Keys(m.rows))
	if len(seqs) == 0 {
		return
	}
	last := seqs[min(n, len(seqs))-1]
	var receipts []queue.Receipt
	for _, s := range seqs[:min(n, len(seqs))] {
		receipts = append(receipts, queue.Receipt{Sequence: s, Server: "b", Sent: 1})
		delete(m.rows, s)
	}
	m.q.Complete(last, receipts)
	m.acked, m.released = last, max(m.released, last)
	m.catchUp()
	l, err := m.q.Life(m.owner[last])
	if err != nil || l.State != queue.StateAcked {
		m.t.Fatalf("row %d was delivered and is %+v %v", last, l, err)
	}
}

// check compares everything.
func (m *machine) check() {
	pos := m.q.Position()
	if want := (queue.Position{Acked: m.acked, Released: m.released, Last: m.last, Session: m.session}); pos != want {
		m.t.Fatalf("position %+v, want %+v", pos, want)
	}
	after := uint64(0)
	found := 0
	for {
		rows, err := m.q.Next(after, 50, 1<<20)
		m.must(err)
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			seq := r.ID.Sequence
			if want, ok := m.rows[seq]; !ok || want != string(r.Data) || r.ID != m.owner[seq] || seq <= after {
				m.t.Fatalf("row %v after %d: %.60s, want %.60s", r.ID, after, r.Data, want)
			}
			after = seq
			found++
		}
	}
	if s := m.q.Stats(); found != len(m.rows) || s.Depth != len(m.rows) || s.Dead != len(m.dead) {
		m.t.Fatalf("%d rows, want %d; %+v; %d dead", found, len(m.rows), s, len(m.dead))
	}
	for seq, data := range m.dead {
		r, err := m.q.Record(m.owner[seq])
		if err != nil || string(r.Data) != data {
			m.t.Fatalf("dead letter %d: %v %v", seq, r, err)
		}
	}
	m.must(m.q.View(func(tx *queue.Tx) error {
		v, err := tx.Get(queue.Totals, "t")
		if string(v) != m.total {
			m.t.Fatalf("total %q, want %q", v, m.total)
		}
		jobs, jerr := tx.Jobs()
		if len(jobs) != len(m.jobs) {
			m.t.Fatalf("%d commands, want %d", len(jobs), len(m.jobs))
		}
		for _, j := range jobs {
			if m.jobs[j.ID] != j.State {
				m.t.Fatalf("command %s is %s", j.ID, j.State)
			}
		}
		return errors.Join(err, jerr)
	}))
}

func TestModel(t *testing.T) {
	if testing.Short() {
		if err := flag.Set("rapid.checks", "25"); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := &machine{t: t, dir: dir, rows: map[uint64]string{}, dead: map[uint64]string{}, owner: map[uint64]queue.ID{}, jobs: map[string]queue.JobState{}, gaps: map[uint64]bool{}}
		m.open()
		defer func() {
			if err := m.end(); err != nil {
				t.Error(err)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { m.catchUp(); m.check() },
			"append": func(t *rapid.T) {
				m.append(rapid.IntRange(1, 5).Draw(t, "n"), rapid.IntRange(0, 500).Draw(t, "size"), rapid.IntRange(0, 4).Draw(t, "bad") == 0)
			},
			"burst": func(t *rapid.T) { // spills, and now and then fills the outbox
				for range rapid.IntRange(1, 6).Draw(t, "times") {
					m.append(rapid.IntRange(20, 100).Draw(t, "n"), rapid.IntRange(1000, 6000).Draw(t, "size"), false)
				}
			},
			"deliver": func(t *rapid.T) { m.deliver(rapid.IntRange(1, 300).Draw(t, "n")) },
			"release": func(t *rapid.T) {
				if m.last == m.released || len(m.rows) == 0 {
					t.Skip("nothing to release")
				}
				through := m.released + 1
				done := make(chan error, 1)
				m.q.Release(through, func(err error) { done <- err })
				m.must(<-done)
				m.released = through
			},
			"session": func(t *rapid.T) {
				session, present := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "session"), rapid.Bool().Draw(t, "present")
				_, ambiguous, err := m.q.Begin(m.ctx(), session, present)
				m.must(err)
				want := 0
				if !present || session != m.session {
					want, m.released = int(m.released-m.acked), m.acked
				}
				if m.session = session; ambiguous != want {
					t.Fatalf("%d ambiguous rows, want %d", ambiguous, want)
				}
			},
			"bury": func(t *rapid.T) {
				seqs := slices.Sorted(maps.Keys(m.rows))
				if len(seqs) == 0 {
					t.Skip("nothing to bury")
				}
				seq := seqs[rapid.IntRange(0, min(len(seqs), 20)-1).Draw(t, "row")]
				m.must(m.q.Bury(m.ctx(), seq, "refused"))
				m.dead[seq] = m.rows[seq]
				delete(m.rows, seq)
			},
			"retry": func(t *rapid.T) {
				seqs := slices.Sorted(maps.Keys(m.dead))
				if len(seqs) == 0 || seqs[0] > m.acked {
					t.Skip("nothing to retry")
				}
				m.must(m.q.Retry(m.ctx(), m.owner[seqs[0]]))
				r, _, ok := m.q.NextRetry()
				if !ok || r.ID != m.owner[seqs[0]] || string(r.Data) != m.dead[seqs[0]] {
					t.Fatalf("retry %d: %v %v", seqs[0], r.ID, ok)
				}
				m.q.CompleteRetry(r.ID.Sequence, queue.Receipt{Server: "b", Sent: 1})
				if _, _, ok := m.q.NextRetry(); ok {
					t.Fatal("a delivered retry is handed out again")
				}
				delete(m.dead, seqs[0])
				m.catchUp()
			},
			"purge dead": func(t *rapid.T) {
				n, err := m.q.PurgeDead(m.ctx())
				m.must(err)
				maps.DeleteFunc(m.dead, func(seq uint64, _ string) bool {
					if seq <= m.acked {
						n--
					}
					return seq <= m.acked
				})
				if n != 0 {
					t.Fatalf("%d dead letters too many, or too few, were purged", n)
				}
			},
			"command": func(t *rapid.T) {
				id := fmt.Sprint("c", rapid.IntRange(0, 9).Draw(t, "id"))
				m.must(m.q.Update(m.ctx(), func(tx *queue.Tx) error {
					switch m.jobs[id] {
					case "":
						_, fresh, err := tx.Receive(id, "ping", nil)
						if !fresh {
							return errors.New("a new command is known")
						}
						m.jobs[id] = queue.JobReceived
						return err
					case queue.JobReceived:
						m.jobs[id] = queue.JobStarted
						return tx.Start(id)
					}
					_, fresh, err := tx.Receive(id, "ping", nil)
					if fresh {
						return errors.New("a known command is new")
					}
					return err
				}))
			},
			"reopen": func(*rapid.T) {
				m.must(m.end())
				m.open()
			},
		})
	})
}
