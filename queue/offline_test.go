package queue

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// folderBytes is what all files of a state folder take.
func folderBytes(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(filepath.Join(dir, path))
		if os.IsNotExist(err) {
			return nil // a segment that is finished
		}
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return n
}

// TestOfflineLeavesNoTrace: after a long backlog the database is as small as before, the disk is given back, and memory has not grown with it.
func TestOfflineLeavesNoTrace(t *testing.T) {
	n := 50_000
	if testing.Short() {
		n = 12_000
	}
	dir := t.TempDir()
	q, _ := run(t, dir, Options{})
	add(t, q, event(0))
	before := folderBytes(t, dir)
	fill(t, q, n)
	full := folderBytes(t, dir)
	heap := heapBytes()
	fill(t, q, n)
	grown := heapBytes() - heap
	if grown > 4<<20 {
		t.Errorf("%d events more took %d bytes of memory", n, grown)
	}
	last := uint64(0)
	for {
		rows, err := q.Next(last, 64, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		last = rows[len(rows)-1].ID.Sequence
		var receipts []Receipt
		for _, r := range rows {
			receipts = append(receipts, Receipt{Sequence: r.ID.Sequence, Server: "b", Sent: 1})
		}
		q.Complete(last, receipts)
	}
	if err := q.Update(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	s := q.Stats()
	after := folderBytes(t, dir)
	t.Logf("%d events: %d bytes before, %d full, %d after; %d commits; memory grew by %d bytes over the second half", 2*n, before, full, after, s.Commits, grown)
	if s.Depth != 0 || s.Segments != 0 || after > before+8<<20 {
		t.Errorf("%d bytes are left of %d; %+v", after, full, s)
	}
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestQuotaIsHard: whatever is stored, all files together stay below max_size.
func TestQuotaIsHard(t *testing.T) {
	for _, size := range []int{150, 5000, 200_000} {
		dir := t.TempDir()
		q, stop := run(t, dir, Options{MaxSize: 8 << 20})
		e := event(1)
		e.Data = append(append([]byte(`"`), make([]byte, size)...), '"')
		for i := range e.Data[1 : size+1] {
			e.Data[1+i] = 'x'
		}
		refused := 0
		top := int64(0)
		for refused < 3 {
			if err := q.Update(t.Context(), func(tx *Tx) error {
				for range max(1, 20_000/size) {
					if _, err := tx.Append(e); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				refused++
			}
			top = max(top, folderBytes(t, dir))
		}
		t.Logf("events of %d bytes: %d accepted, %d bytes at the most", size, q.Stats().Depth, top)
		if top > 8<<20 {
			t.Errorf("events of %d bytes: the files took %d bytes", size, top)
		}
		if q.Stats().Depth*size < 5<<19 {
			t.Errorf("events of %d bytes: full with %d of them", size, q.Stats().Depth)
		}
		stop()
	}
}

// TestCompact: what a heap of dead letters leaves behind is given back.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	q, _ := run(t, dir, Options{})
	e := event(1)
	e.Data = append(append([]byte(`"`), make([]byte, 100_000)...), '"')
	for i := range e.Data[1:100_001] {
		e.Data[1+i] = 'x'
	}
	for range 200 {
		id := add(t, q, e)
		if err := q.Bury(t.Context(), id.Sequence, "refused"); err != nil {
			t.Fatal(err)
		}
		q.Complete(id.Sequence, nil)
	}
	big := folderBytes(t, dir)
	if n, err := q.PurgeDead(t.Context()); n != 200 || err != nil {
		t.Fatal(n, err)
	}
	add(t, q, event(2)) // the owner compacts between two commits
	add(t, q, event(3))
	if after := folderBytes(t, dir); big < 20<<20 || after > 6<<20 {
		t.Errorf("%d bytes with the dead letters, %d without", big, after)
	}
	if rows := rest(t, q, 0); len(rows) != 2 || rows[1].ID.Sequence != 202 {
		t.Errorf("%d rows", len(rows))
	}
}
