package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// twoChanges makes two changes, each a total and two events that say it, and returns the database after each.
func twoChanges(t *testing.T, dir string) (one, two []byte) {
	t.Helper()
	q, stop := run(t, dir, Options{})
	fill(t, q, 40) // rows in pages of their own
	change := func(n int) []byte {
		if err := q.Update(t.Context(), func(tx *Tx) error {
			_, err := tx.Append(event(100 + n))
			_, err2 := tx.Append(event(101 + n))
			return errors.Join(err, err2, tx.Put(Totals, "m", []byte(strconv.Itoa(n+1))))
		}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(q.path())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one, two = change(1), change(3)
	stop()
	return one, two
}

// cutAt returns the database one with those pages of the next state that changed and that take says yes to: what a cut before the meta page leaves.
func cutAt(one, two []byte, take func(page []byte) bool) []byte {
	db := bytes.Clone(one)
	for at := 2 * pageSize; at < len(db); at += pageSize {
		if page := two[at : at+pageSize]; take(page) {
			copy(db[at:], page)
		}
	}
	return db
}

func hasTotal(page []byte) bool { return frames(page, inTotals) > 0 }

func hasRows(page []byte) bool { return frames(page, inRows) > 0 }

func frames(data []byte, bucket byte) (n int) {
	eachFrame(data, func(f frame) {
		if f.bucket == bucket {
			n++
		}
	})
	return n
}

func everyPage([]byte) bool { return true }

// salvaged opens a database of which nothing can be reached any more, and returns its events and its total.
func salvaged(t *testing.T, db []byte) (q *Queue, seqs []uint64, total string) {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, segmentDir), 0o700), os.WriteFile(filepath.Join(dir, dbName), db, 0o600)); err != nil {
		t.Fatal(err)
	}
	q, _ = run(t, dir, Options{})
	if q.Damage() == nil {
		t.Fatal("nothing was salvaged")
	}
	for _, r := range rest(t, q, 0) {
		if r.Type == "test" {
			seqs = append(seqs, r.ID.Sequence)
		}
	}
	if err := q.View(func(tx *Tx) error {
		v, err := tx.Get(Totals, "m")
		total = string(v)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return q, seqs, total
}

func headless(db []byte) []byte {
	db = bytes.Clone(db)
	clear(db[:2*pageSize])
	return db
}

// beheaded damages the newest meta page, so that the tree that can be reached is that of the commit before.
func beheaded(db []byte) []byte {
	db = bytes.Clone(db)
	txid := func(page int) uint64 { return binary.NativeEndian.Uint64(db[page*pageSize+pageHead+48:]) }
	newest := 0
	if txid(1) > txid(0) {
		newest = 1
	}
	db[newest*pageSize+pageHead+20] ^= 4
	return db
}

func TestHalfACommitIsLeftOut(t *testing.T) {
	one, two := twoChanges(t, t.TempDir())
	for _, c := range []struct {
		what  string
		db    []byte
		rows  int
		total string
		next  uint64 // no sequence that was seen is used again
	}{
		{"only the total is written", headless(cutAt(one, two, hasTotal)), 42, "2", 43},
		{"only the events are written", headless(cutAt(one, two, hasRows)), 42, "2", 45},
		{"all but the meta page is written", headless(cutAt(one, two, everyPage)), 44, "4", 45},
		{"all is written", headless(two), 44, "4", 45},
		{"the newest meta page is damaged", beheaded(two), 44, "4", 45},
		{"and some of its events' pages too", beheaded(cutAt(one, two, hasTotal)), 42, "2", 43},
	} {
		q, seqs, total := salvaged(t, c.db)
		if len(seqs) != c.rows || total != c.total {
			t.Errorf("%s: %d events and a total of %s, want %d and %s", c.what, len(seqs), total, c.rows, c.total)
		}
		if id := add(t, q, event(9)); id.Sequence < c.next {
			t.Errorf("%s: the next event is %v", c.what, id)
		}
	}
}

// TestDamagedCommitIsKept: what is known to be committed is no half commit, whatever of it is damaged.
func TestDamagedCommitIsKept(t *testing.T) {
	_, two := twoChanges(t, t.TempDir())
	at := bytes.LastIndex(two, []byte(`{"n":103}`))
	for ; at >= 0; at = bytes.LastIndex(two[:at], []byte(`{"n":103}`)) {
		two[at+6] ^= 0x40
	}
	_, seqs, total := salvaged(t, two)
	if len(seqs) != 43 || seqs[42] != 44 || total != "4" {
		t.Errorf("%d events, the last is %d, total %s", len(seqs), seqs[len(seqs)-1], total)
	}
}

// TestGenerationsAreNotUsedAgain: a commit after one that was cut has a generation of its own.
func TestGenerationsAreNotUsedAgain(t *testing.T) {
	one, two := twoChanges(t, t.TempDir())
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, segmentDir), 0o700), os.WriteFile(filepath.Join(dir, dbName), cutAt(one, two, everyPage), 0o600)); err != nil {
		t.Fatal(err)
	}
	cut, err := newestGen(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	q, stop := run(t, dir, Options{})
	if d := q.Damage(); d != nil {
		t.Fatal(d)
	}
	add(t, q, event(5))
	stop()
	if now, err := newestGen(q.path()); err != nil || now != cut+1 {
		t.Errorf("generation %d after %d that was cut: %v", now, cut, err)
	}
}

// TestNewestGen meets frames on both sides of where its buffer ends, and larger ones.
func TestNewestGen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, size := range []int{0, 100, 300 << 10} {
		for at := 256<<10 - 2*frameHead; at < 256<<10+2; at++ {
			data := frame{1, 7, 1, inMisc, []byte("k"), make([]byte, size)}.append(make([]byte, at))
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if gen, err := newestGen(name); err != nil || gen != 7 {
				t.Fatalf("frame of %d bytes at %d: generation %d, %v", size, at, gen, err)
			}
			data[len(data)-1] ^= 1
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if gen, err := newestGen(name); err != nil || gen != 0 {
				t.Fatalf("a damaged frame counts: generation %d, %v", gen, err)
			}
		}
	}
}
