package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const maxSegment = spillBytes + 2*maxFrame // bytes; what is longer is not ours

// segment is a file of old rows: written once, read in order, deleted whole.
type segment struct {
	first, last uint64
	rows        int
	bytes       int64
	reported    bool // that it is damaged; in memory only
}

func (s segment) name() string { return fmt.Sprintf("%016d-%016d.seg", s.first, s.last) }

func (s segment) encode() []byte {
	b := binary.AppendUvarint(nil, s.first)
	b = binary.AppendUvarint(b, s.last)
	b = binary.AppendUvarint(b, uint64(s.rows))
	return binary.AppendUvarint(b, uint64(s.bytes))
}

func parseSegment(v []byte) (segment, error) {
	d := decoder{b: v}
	s := segment{first: d.uvarint(), last: d.uvarint(), rows: int(d.uvarint()), bytes: int64(d.uvarint())}
	if d.bad || len(d.b) != 0 || s.first == 0 || s.last < s.first {
		return segment{}, errDamaged
	}
	return s, nil
}

// writeSegment writes frames to a new file that survives a power cut when it returns.
func writeSegment(dir string, s segment, data []byte) error {
	tmp := filepath.Join(dir, "new.tmp")
	if err := writeSynced(tmp, data); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write segment: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, s.name())); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	return syncDir(dir)
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// segmentFiles lists the segments in dir by their names.
func segmentFiles(dir string) (map[string]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]segment{}
	for _, e := range entries {
		var s segment
		if _, err := fmt.Sscanf(e.Name(), "%d-%d.seg", &s.first, &s.last); err == nil && e.Name() == s.name() {
			if info, err := e.Info(); err == nil {
				s.bytes = info.Size()
			}
			found[e.Name()] = s
		} else if strings.HasSuffix(e.Name(), ".tmp") {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return found, nil
}

// segmentReader has one segment in memory. Damaged rows are skipped; rows behind them are found by their magic.
type segmentReader struct {
	seg   segment
	data  []byte
	at    uint64 // newest row that was taken
	whole int    // rows found so far
}

func openSegment(dir string, s segment) (*segmentReader, error) {
	f, err := os.Open(filepath.Join(dir, s.name()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(info.Size(), maxSegment))
	if _, err := io.ReadFull(f, data); err != nil {
		readPages(f, data)
	}
	return &segmentReader{seg: s, data: data}, nil
}

// readPages reads what can be read; pages that cannot are left as zeros.
func readPages(f *os.File, data []byte) {
	for at := 0; at < len(data); at += 4096 {
		page := data[at:min(at+4096, len(data))]
		if _, err := f.ReadAt(page, int64(at)); err != nil && !errors.Is(err, io.EOF) {
			clear(page)
		}
	}
}

// take returns the next whole rows above after, at most limit of them and about maxBytes; none at the end of the segment.
func (r *segmentReader) take(after uint64, limit, maxBytes int) (rows []Record) {
	size := 0
	for len(rows) < limit && size < maxBytes {
		n := bytes.Index(r.data, magic)
		if n < 0 {
			r.data = nil
			return rows
		}
		r.data = r.data[n:]
		f, n, err := parseFrame(r.data)
		if err != nil || f.bucket != inRows {
			r.data = r.data[1:]
			continue
		}
		row, err := parseRow(f)
		r.data = r.data[n:]
		if seq := row.ID.Sequence; err != nil || seq <= r.at || seq < r.seg.first || seq > r.seg.last {
			continue
		}
		r.at = row.ID.Sequence
		r.whole++
		if r.at > after {
			rows = append(rows, row)
			size += n
		}
	}
	return rows
}
