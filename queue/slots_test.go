package queue

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// release makes a mark durable and returns how many commits that took.
func release(t testing.TB, q *Queue, through uint64) uint64 {
	t.Helper()
	before := q.Stats().Commits
	done := make(chan error, 1)
	q.Release(through, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return q.Stats().Commits - before
}

// three is a state with a session and three QoS 2 rows of which two are released, without a commit for that.
func three(t *testing.T, dir string) (*Queue, func()) {
	t.Helper()
	q, stop := run(t, dir, Options{})
	if _, _, err := q.Begin(t.Context(), "s", true); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		e := event(n)
		e.QoS = 2
		add(t, q, e)
	}
	for through := uint64(1); through <= 2; through++ {
		if n := release(t, q, through); n != 0 {
			t.Errorf("a mark alone took %d commits", n)
		}
	}
	return q, stop
}

func TestMarkInSlotSurvives(t *testing.T) {
	dir := t.TempDir()
	_, stop := three(t, dir)
	stop()
	q, stop := run(t, dir, Options{})
	defer stop()
	if p := q.Position(); p.Released != 2 || p.Acked != 0 {
		t.Errorf("after a restart: %+v", p)
	}
	pos, ambiguous, err := q.Begin(t.Context(), "s", true)
	if err != nil || ambiguous != 0 || pos.Released != 2 {
		t.Errorf("session kept: %+v, %d ambiguous, %v", pos, ambiguous, err)
	}
}

func TestLostSessionEndsSlots(t *testing.T) {
	dir := t.TempDir()
	q, stop := three(t, dir)
	if pos, ambiguous, err := q.Begin(t.Context(), "s", false); err != nil || ambiguous != 2 || pos.Released != 0 {
		t.Errorf("session lost: %+v, %d ambiguous, %v", pos, ambiguous, err)
	}
	stop()
	q, stop = run(t, dir, Options{})
	defer stop()
	if p := q.Position(); p.Released != 0 {
		t.Errorf("a slot of the lost session came back: %+v", p)
	}
	if release(t, q, 1); q.Position().Released != 1 {
		t.Errorf("a mark in the new epoch: %+v", q.Position())
	}
}

// TestTornSlot: a cut in the middle of the newest slot leaves the one before it.
func TestTornSlot(t *testing.T) {
	dir := t.TempDir()
	_, stop := three(t, dir)
	stop()
	name := filepath.Join(dir, slotName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	for i := range 2 {
		if x, ok := parseSlot(b[i*slotSpace:]); ok && x.released == 2 {
			newest = i
		}
	}
	b[newest*slotSpace+slotBytes-1] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	q, stop := run(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if p := q.Position(); p.Released != 1 || !strings.Contains(log.String(), "torn or damaged") {
		t.Errorf("newest slot torn: %+v, log %q", p, log.String())
	}
	stop()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	q, stop = run(t, dir, Options{})
	defer stop()
	if p := q.Position(); p.Released != 0 || p.Last != 3 {
		t.Errorf("no slots: %+v", p)
	}
}

// TestSlotOfAnotherStore: a file that was copied from elsewhere counts for nothing.
func TestSlotOfAnotherStore(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	_, stop := three(t, from)
	stop()
	_, stop = three(t, dir)
	stop()
	b, err := os.ReadFile(filepath.Join(from, slotName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, slotName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	q, stop := run(t, dir, Options{})
	defer stop()
	if p := q.Position(); p.Released != 0 {
		t.Errorf("a foreign slot was taken: %+v", p)
	}
}

func FuzzParseSlot(f *testing.F) {
	f.Add(slot{1, 2, 3, 4}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, ok := parseSlot(b); ok && string(x.encode()) != string(b[:slotBytes]) {
			t.Errorf("%+v does not read as it is written", x)
		}
	})
}
