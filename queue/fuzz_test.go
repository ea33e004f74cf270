package queue

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var someStamp = Stamp{Wall: time.Date(2026, 11, 22, 10, 0, 0, 123, time.UTC), Clock: ClockSynced, Boot: 7, Uptime: time.Hour}

func someRecord() Record {
	expiry := uint32(60)
	return Record{ID: ID{9, 42}, Accepted: someStamp, Event: Event{Type: "meter", Topic: "a/b", QoS: 2, Data: json.RawMessage(`{"n":1}`), Properties: &Properties{ContentType: "x", Expiry: &expiry}}}
}

// FuzzRow: whatever decodes is encoded to something that decodes to the same.
func FuzzRow(f *testing.F) {
	v, err := appendRow(nil, someRecord())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v)
	f.Add([]byte{rowVersion, 1})
	f.Fuzz(func(t *testing.T, v []byte) {
		r, err := parseRow(frame{store: 9, key: seqKey(42), value: v})
		if err != nil {
			return
		}
		again, err := appendRow(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		r2, err := parseRow(frame{store: 9, key: seqKey(42), value: again})
		if err != nil || !reflect.DeepEqual(r, r2) {
			t.Fatalf("%+v\n%+v %v", r, r2, err)
		}
	})
}

// FuzzFrame: a frame is exactly what was written, or it is damaged.
func FuzzFrame(f *testing.F) {
	f.Add(frame{1, 2, 9, inRows, seqKey(3), []byte("value")}.append(nil))
	f.Add([]byte{0xfa, 'F', 'A', 1, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, n, err := parseFrame(b)
		if err != nil {
			return
		}
		if !bytes.Equal(fr.append(nil), b[:n]) {
			t.Fatalf("frame %+v is not what it was read from", fr)
		}
	})
}

func FuzzMark(f *testing.F) {
	f.Add(mark{Position{Acked: 1, Released: 2, Session: "s"}, 3, 4}.encode())
	f.Fuzz(func(t *testing.T, v []byte) {
		m, err := parseMark(v)
		if err != nil {
			return
		}
		if again, err := parseMark(m.encode()); err != nil || again != m {
			t.Fatalf("%+v %+v %v", m, again, err)
		}
	})
}

func FuzzAudit(f *testing.F) {
	f.Add(appendAudit(nil, []Receipt{{Sequence: 1, Server: "b", Sent: 1, store: 9, accepted: someStamp}, {Sequence: 2, Server: "b", Reason: "no"}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		entries, err := parseAudit(v)
		if err == nil && len(entries) > len(v) {
			t.Fatalf("%d entries of %d bytes", len(entries), len(v))
		}
	})
}

func FuzzDead(f *testing.F) {
	v, err := appendDead(nil, deadLetter{Record: someRecord(), Reason: "refused", Buried: someStamp, Sent: 3, Server: "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v)
	f.Fuzz(func(t *testing.T, v []byte) {
		d, err := parseDead(frame{bucket: inDead, key: seqKey(42), value: v})
		if err != nil {
			return
		}
		again, err := appendDead(nil, d)
		if err != nil {
			t.Fatal(err)
		}
		if d2, err := parseDead(frame{bucket: inDead, key: seqKey(42), value: again}); err != nil || !reflect.DeepEqual(d, d2) {
			t.Fatalf("%+v\n%+v %v", d, d2, err)
		}
	})
}

// FuzzSegment: rows come in order, from the segment's range, and reading ends.
func FuzzSegment(f *testing.F) {
	var data []byte
	for seq := uint64(5); seq < 9; seq++ {
		v, err := appendRow(nil, someRecord())
		if err != nil {
			f.Fatal(err)
		}
		data = frame{9, 1, 1, inRows, seqKey(seq), v}.append(data)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &segmentReader{seg: segment{first: 5, last: 8, rows: 4}, data: data}
		last := uint64(0)
		for rows := r.take(0, 2, 1<<20); len(rows) > 0; rows = r.take(last, 2, 1<<20) {
			for _, row := range rows {
				if seq := row.ID.Sequence; seq <= last || seq < 5 || seq > 8 {
					t.Fatalf("row %d after row %d", seq, last)
				}
				last = row.ID.Sequence
			}
		}
	})
}

// FuzzPages: no file makes the look at the pages panic or turn in circles.
func FuzzPages(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "format1", dbName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden[:8*pageSize], uint32(0), byte(0))
	f.Add(golden[:8*pageSize], uint32(2*pageSize+8), byte(1))
	f.Fuzz(func(t *testing.T, data []byte, at uint32, bits byte) {
		if len(data) > 0 {
			data[int(at)%len(data)] ^= bits
		}
		name := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		err := checkFile(name)
		broken, rerr := readTree(name, func(string, []byte, []byte) {})
		if err == nil && (rerr != nil || len(broken) > 0) {
			t.Fatalf("whole, and then %v %v", broken, rerr)
		}
	})
}
