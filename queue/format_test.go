package queue

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

var golden = flag.Bool("golden", false, "write the state folder of the present format anew")

// TestGolden opens the state folder of each format that there was. They are kept in testdata and never written again.
func TestGolden(t *testing.T) {
	if *golden {
		makeGolden(t, filepath.Join("testdata", fmt.Sprint("format", Format)))
	}
	for format := 1; format <= Format; format++ {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", fmt.Sprint("format", format)))); err != nil {
			t.Fatal(err)
		}
		q, _ := run(t, dir, Options{MaxSize: 4 << 20})
		if d := q.Damage(); d != nil {
			t.Fatal(d)
		}
		if p := q.Position(); p != (Position{Acked: 10, Released: 12, Last: 1500, Session: "broker/golden"}) {
			t.Errorf("%+v", p)
		}
		rows := rest(t, q, 0)
		if len(rows) != 1489 {
			t.Errorf("%d rows", len(rows))
		}
		for _, r := range rows {
			if want := goldenEvent(int(r.ID.Sequence) - 1); string(r.Data) != string(want.Data) || r.At != want.At || r.ID.Store != q.Store() {
				t.Fatalf("%+v", r)
			}
		}
		if l, err := q.Life(ID{q.Store(), 10}); err != nil || l.State != StateAcked || l.Server != "b" {
			t.Error(l, err)
		}
		if l, err := q.Life(ID{q.Store(), 20}); err != nil || l.State != StateDead || l.Reason != "refused" {
			t.Error(l, err)
		}
		if err := q.View(func(tx *Tx) error {
			v, err := tx.Get(Totals, "energy")
			jobs, jerr := tx.Jobs()
			if string(v) != "15230" || len(jobs) != 1 || jobs[0].State != JobStarted {
				t.Errorf("total %q, commands %+v", v, jobs)
			}
			return errors.Join(err, jerr)
		}); err != nil {
			t.Error(err)
		}
		if id := add(t, q, event(1)); id != (ID{q.Store(), 1501}) {
			t.Error(id)
		}
	}
}

func goldenEvent(n int) Event {
	e := event(n)
	e.Data = fmt.Appendf(nil, `{"n":%d,"pad":%q}`, n, strings.Repeat("x", 300))
	return e
}

func makeGolden(t *testing.T, dir string) {
	q, stop := run(t, dir, Options{MaxSize: 4 << 20})
	for n := range 1500 {
		if n%50 == 0 {
			if err := q.Update(t.Context(), func(tx *Tx) error {
				for i := n; i < n+50; i++ {
					if _, err := tx.Append(goldenEvent(i)); err != nil {
						return err
					}
				}
				return tx.Put(Totals, "energy", []byte("15230"))
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := q.Begin(t.Context(), "broker/golden", true); err != nil {
		t.Fatal(err)
	}
	rows, err := q.Next(0, 20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Bury(t.Context(), 20, "refused"); err != nil {
		t.Fatal(err)
	}
	released := make(chan error, 1)
	q.Release(12, func(err error) { released <- err })
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	finish(t, q, rows[:10]...)
	if err := q.Update(t.Context(), func(tx *Tx) error {
		if _, _, err := tx.Receive("c-1", "ping", []byte(`{"id":"c-1"}`)); err != nil {
			return err
		}
		return tx.Start("c-1")
	}); err != nil {
		t.Fatal(err)
	}
	if q.Stats().Segments == 0 {
		t.Fatal("no segment in the golden folder")
	}
	stop()
}

// setFormat makes the database say that it is of another format.
func setFormat(t *testing.T, dir string, format uint64) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, dbName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(b *bolt.Tx) error { return putMeta(b, 7, format) }), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestNewerFormatIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	add(t, q, event(1))
	stop()
	setFormat(t, dir, Format+1)
	before, err := os.ReadFile(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	for _, opt := range []Options{{}, {ReadOnly: true}, {KeepTrying: true}} {
		if _, err := Open(dir, opt); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "install the newer version") {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, dbName))
	if err != nil || string(before) != string(after) {
		t.Errorf("the newer file was changed: %v", err)
	}
}

func TestMigration(t *testing.T) {
	dir := t.TempDir()
	q, stop := run(t, dir, Options{})
	if err := q.Update(t.Context(), func(tx *Tx) error { return tx.Put(Misc, "k", []byte("one")) }); err != nil {
		t.Fatal(err)
	}
	stop()
	db, err := openDB(filepath.Join(dir, dbName), q.boltOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	step := func(to string) func(*bolt.Tx, uint32) error {
		return func(b *bolt.Tx, store uint32) error {
			return b.Bucket(bucketName[inMisc]).Put([]byte("k"), frame{store, 1, 0, inMisc, []byte("k"), []byte(to)}.append(nil))
		}
	}
	broken := errors.New("broken")
	if err := migrate(db, []func(*bolt.Tx, uint32) error{step("two"), func(*bolt.Tx, uint32) error { return broken }}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	read := func() (value string, format uint64) {
		if err := db.View(func(b *bolt.Tx) error {
			f, err := open(inMisc, []byte("k"), b.Bucket(bucketName[inMisc]).Get([]byte("k")))
			m, _, merr := formatOf(b)
			format, _ = binary.Uvarint(m.value)
			value = string(f.value)
			return errors.Join(err, merr)
		}); err != nil {
			t.Fatal(err)
		}
		return
	}
	if v, format := read(); v != "one" || format != 1 {
		t.Fatalf("half a migration: %s, format %d", v, format)
	}
	if err := migrate(db, []func(*bolt.Tx, uint32) error{step("two"), step("three")}); err != nil {
		t.Fatal(err)
	}
	if v, format := read(); v != "three" || format != 3 {
		t.Fatalf("%s, format %d", v, format)
	}
	if err := migrate(db, nil); !errors.Is(err, ErrNewer) {
		t.Fatal(err)
	}
}
