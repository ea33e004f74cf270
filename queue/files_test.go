package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoHole: a disk that is full cannot fill a hole, so the first bytes of the database are all written when it is made.
func TestNoHole(t *testing.T) {
	q, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	f, err := os.Open(q.path())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || hole != firstSize {
		t.Errorf("the first hole is at %d of %d: %v", hole, int64(firstSize), err)
	}
}

// TestSegmentRefused: when older events cannot be moved out of the database they stay there, are delivered all the same, and the fault is told until it is over.
func TestSegmentRefused(t *testing.T) {
	q, _ := run(t, t.TempDir(), Options{})
	segments := filepath.Join(q.dir, segmentDir)
	if err := errors.Join(os.Remove(segments), os.WriteFile(segments, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	const n = 20000
	fill(t, q, n)
	if err := q.Stats().Err; err == nil || !strings.Contains(err.Error(), "older events") {
		t.Fatalf("the fault is told as %v", err)
	}
	if rows := rest(t, q, 0); len(rows) != n {
		t.Fatalf("%d of %d rows", len(rows), n)
	}
	if err := errors.Join(os.Remove(segments), os.Mkdir(segments, 0o700)); err != nil {
		t.Fatal(err)
	}
	fill(t, q, 500) // the segment is written after it,
	fill(t, q, 500) // and counts with the next commit
	if s := q.Stats(); s.Err != nil || s.Segments == 0 {
		t.Fatalf("after the mend: %+v", s)
	}
	if rows := rest(t, q, 0); len(rows) != n+1000 {
		t.Fatalf("%d of %d rows", len(rows), n+1000)
	}
}
