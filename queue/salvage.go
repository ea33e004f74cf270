package queue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// salvage sets a damaged database aside and builds a new one of the records that are whole in it.
// The new one has a new id, so that nothing it hands out can be taken for something else; rows that are saved keep the id they had.
func (q *Queue) salvage(cause error) (err error) {
	defer guard(&err)()
	aside := q.path() + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	q.log.Error("the state file is damaged: it is set aside, and what can be read is kept", "file", aside, "err", cause)
	data, unmap, err := mapFile(q.path()) // and not read: a file full of dead letters is larger than what the service may use
	if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	defer unmap()
	found, broken, cut, err := q.readable(data)
	if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	segs, err := segmentFiles(filepath.Join(q.dir, segmentDir))
	if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	store, err := newStore()
	if err != nil {
		return err
	}
	c := choose(found, broken, cut, slices.SortedFunc(maps.Values(segs), func(a, b segment) int { return cmp.Compare(a.first, b.first) }))
	c.damage.SetAside, c.damage.Cause = filepath.Base(aside), cause.Error()
	report, err := json.Marshal(c.damage)
	if err != nil {
		return err
	}
	c.put(inState, damageKey, report)
	slices.SortFunc(c.keep, func(a, b frame) int { return cmp.Or(cmp.Compare(a.bucket, b.bucket), bytes.Compare(a.key, b.key)) })
	if err := q.create(q.path()+".salvaged", store, c.keep); err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	if err := errors.Join(os.Rename(q.path(), aside), syncDir(q.dir), os.Rename(q.path()+".salvaged", q.path()), syncDir(q.dir)); err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	q.removeOldAside()
	return q.openExisting()
}

// removeOldAside keeps the two newest damaged files: they must not fill the disk.
func (q *Queue) removeOldAside() {
	old, _ := filepath.Glob(q.path() + ".damaged-*")
	slices.Sort(old)
	for len(old) > 2 {
		_ = os.Remove(old[0])
		old = old[1:]
	}
}

type frameKey struct {
	bucket byte
	key    string
}

// readable reads what is whole in the database. A bucket that can be walked to its end is taken as it is; of the others every whole frame is
// taken that is anywhere in the file, the newest of each key, deleted ones too; these buckets are broken. A whole commit that is not in the tree
// is taken in all buckets, or in none: a total belongs to its event. Keys and values point into data, which is the file.
func (q *Queue) readable(data []byte) (found map[frameKey]frame, broken []byte, cut cutCommit, err error) {
	var harmed [bucketEnd]bool
	inTree := map[frameKey]uint64{} // generations
	committed := uint64(0)
	bad, treeErr := readTree(q.path(), func(bucket string, key, value []byte) {
		b := bucketNamed(bucket)
		if b == 0 {
			return
		}
		if f, err := open(b, key, value); err == nil {
			inTree[frameKey{b, string(key)}] = f.gen
			committed = max(committed, f.gen)
		} else {
			harmed[b] = true
		}
	})
	if treeErr != nil || bad[""] != nil {
		committed = 0 // the tree may be that of the commit before, in pages that a later one has used again
	}
	for bucket := inMeta; bucket < bucketEnd; bucket++ {
		if treeErr != nil || bad[""] != nil || bad[string(bucketName[bucket])] != nil || harmed[bucket] {
			broken = append(broken, bucket)
		}
	}
	found, cut = scanFrames(data, committed, func(k frameKey, gen uint64) bool {
		own, ok := inTree[k]
		return gen > committed || ok && gen == own || !ok && slices.Contains(broken, k.bucket)
	})
	if f, ok := found[frameKey{inMeta, string(metaKey)}]; ok {
		if v, _ := binary.Uvarint(f.value); v > Format {
			return nil, nil, cut, newer(v, Format)
		}
	}
	return found, broken, cut, nil
}

func bucketNamed(name string) byte {
	for b := inMeta; b < bucketEnd; b++ {
		if string(bucketName[b]) == name {
			return b
		}
	}
	return 0
}

// cutCommit is what was left out because its commit had not come to its end.
type cutCommit struct {
	records int
	last    uint64 // the newest row in it: its sequence is not used again
}

// scanFrames finds the whole frames in a file that fit, the newest of each key up to the newest commit that counts. A commit that is not known to be
// in the tree counts only with all its records: half of one is what a cut leaves, and a total without the event that was made with it would be wrong.
func scanFrames(data []byte, committed uint64, fits func(frameKey, uint64) bool) (found map[frameKey]frame, cut cutCommit) {
	records, peers := map[uint64]map[frameKey]bool{}, map[uint64]int{} // of each commit above committed
	eachFrame(data, func(f frame) {
		if f.gen <= committed {
			return
		}
		if records[f.gen] == nil {
			records[f.gen] = map[frameKey]bool{}
		}
		records[f.gen][frameKey{f.bucket, string(f.key)}] = true
		peers[f.gen] = int(f.peers)
	})
	newest := committed
	for _, gen := range slices.Backward(slices.Sorted(maps.Keys(records))) {
		if len(records[gen]) >= peers[gen] {
			newest = gen
			break
		}
		cut.records += len(records[gen])
	}
	found = map[frameKey]frame{}
	eachFrame(data, func(f frame) {
		if f.gen > newest {
			if seq, ok := sequenceOf(f.key); ok && f.bucket == inRows {
				cut.last = max(cut.last, seq)
			}
			return
		}
		k := frameKey{f.bucket, string(f.key)}
		if old, ok := found[k]; (!ok || f.gen > old.gen) && fits(k, f.gen) {
			found[k] = f
		}
	})
	return found, cut
}

// mapFile maps a file for reading. A page that cannot be read is a panic, for guard.
func mapFile(name string) (data []byte, unmap func(), err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, func() {}, err
	}
	if data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", name, err)
	}
	return data, func() { _ = unix.Munmap(data) }, nil
}

// eachFrame finds every whole frame in data.
func eachFrame(data []byte, fn func(frame)) {
	for {
		n := bytes.Index(data, magic)
		if n < 0 {
			return
		}
		data = data[n:]
		if f, _, err := parseFrame(data); err == nil {
			fn(f)
		}
		data = data[1:]
	}
}

// newestGen returns the newest generation in a file, that of a commit which was cut among them: it must not be used again, or salvage could take
// the records of both for one commit.
func newestGen(name string) (uint64, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	newest := uint64(0)
	buf := make([]byte, 256<<10)
	for off := int64(0); ; off += int64(len(buf) - frameHead) {
		n, err := file.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return 0, err
		}
		for at := 0; at+frameHead <= n; at++ {
			i := bytes.Index(buf[at:n], magic)
			if i < 0 || at+i+frameHead > n {
				break
			}
			at += i
			if gen := binary.LittleEndian.Uint64(buf[at+16:]) & maxGen; gen > newest && wholeAt(file, off+int64(at), buf[at:at+12]) {
				newest = gen
			}
		}
		if err == io.EOF {
			return newest, nil
		}
	}
}

// wholeAt checks the frame at a place of a file, from its first 12 bytes on.
func wholeAt(file io.ReaderAt, at int64, head []byte) bool {
	n := int64(binary.LittleEndian.Uint32(head[8:]))
	sum := crc32.New(castagnoli)
	sum.Write(head[8:12])
	got, err := io.Copy(sum, io.NewSectionReader(file, at+12, n))
	return err == nil && got == n && sum.Sum32() == binary.LittleEndian.Uint32(head[4:])
}

// choice is what goes into the new database.
type choice struct {
	keep   []frame
	damage Damage
	gen    uint64
}

func (c *choice) put(bucket byte, key, value []byte) {
	c.keep = append(c.keep, frame{gen: c.gen, bucket: bucket, key: key, value: value})
}

func (c *choice) lost(format string, args ...any) {
	c.damage.Lost = append(c.damage.Lost, fmt.Sprintf(format, args...))
}

// choose decides what of the found frames goes into the new database. Frames of deleted records may be among them; the marks and the audit
// trail say which rows are finished.
func choose(found map[frameKey]frame, broken []byte, cut cutCommit, segs []segment) *choice {
	c := &choice{}
	for _, bucket := range broken {
		if what := bucketWords[bucket]; what != "" {
			c.lost("%s may be missing, or be older than they were", what)
		}
	}
	if cut.records > 0 {
		c.lost("the last change, unless it was cut while it was written")
	}
	m, haveMark := mark{}, false
	if f, ok := found[frameKey{inState, string(markKey)}]; ok {
		if got, err := parseMark(f.value); err == nil {
			m, haveMark = got, true
		}
	}
	if !haveMark {
		c.lost("the delivery marks: events that were delivered already may come again, with the ids they had")
	}
	delivered := map[ID]bool{}
	for k, f := range found {
		c.gen = max(c.gen, f.gen)
		if k.bucket != inAudit {
			continue
		}
		entries, _ := parseAudit(f.value)
		for _, e := range entries {
			delivered[e.id] = true
			m.Acked = max(m.Acked, e.id.Sequence)
		}
	}
	last := max(m.Acked, m.floor, cut.last)
	var have []span
	for _, s := range segs {
		last = max(last, s.last)
		if s.last > m.Acked {
			s.rows = int(s.last - s.first + 1)
			have = append(have, span{s.first, s.last})
			c.put(inSegments, seqKey(s.first), s.encode())
		}
	}
	rows := 0
	for k, f := range found {
		seq, sequenced := sequenceOf(f.key)
		switch k.bucket {
		case inRows:
			if _, err := parseRow(f); err != nil || !sequenced {
				continue
			}
			last = max(last, seq)
			if seq > m.Acked && !delivered[ID{f.store, seq}] && !inSpans(have[:len(have)-rows], seq) {
				c.keep = append(c.keep, f)
				have = append(have, span{seq, seq})
				rows++
			}
		case inDead:
			d, err := parseDead(f)
			if err != nil || !sequenced || delivered[d.ID] {
				continue
			}
			last = max(last, seq)
			c.keep = append(c.keep, f)
			have = append(have, span{seq, seq})
			rows++
		case inAudit:
			if _, err := parseAudit(f.value); err == nil && sequenced {
				c.keep = append(c.keep, f)
			}
		case inInbox:
			var j Job
			if json.Unmarshal(f.value, &j) == nil {
				c.keep = append(c.keep, f)
			}
		case inTotals, inConfig, inMisc:
			c.keep = append(c.keep, f)
		case inState:
			if _, err := parseGap(f.value); err == nil && string(f.key) == string(gapKey) {
				c.keep = append(c.keep, f)
			}
		}
	}
	for _, f := range c.keep {
		if f.bucket == inRows {
			c.damage.Rows++
		}
	}
	if n := holes(m.Acked, last, have); n > 0 && haveMark {
		c.lost("%d of the events from %d to %d, unless they were purged", n, m.Acked+1, last)
	}
	// Sequences go on above everything that was ever seen; the session is forgotten, so that the broker starts a clean one.
	m.floor, m.Session, m.Released = last, "", m.Acked
	c.gen++
	c.put(inState, markKey, m.encode())
	if len(c.damage.Lost) == 0 {
		c.lost("nothing that is known of")
	}
	return c
}

// bucketWords says for people what is in a bucket that cannot be read to its end.
var bucketWords = map[byte]string{inRows: "the newest events", inTotals: "meter totals", inConfig: "parts of the remote configuration", inMisc: "things that sensors have learned",
	inInbox: "commands", inAudit: "receipts of delivered events", inDead: "dead letters", inState: "delivery marks"}

// span is a run of sequences.
type span struct{ first, last uint64 }

// inSpans tells whether a sequence is in one of some spans that are in order.
func inSpans(spans []span, seq uint64) bool {
	i, _ := slices.BinarySearchFunc(spans, seq, func(s span, seq uint64) int { return cmp.Compare(s.last, seq) })
	return i < len(spans) && spans[i].first <= seq
}

// holes counts the sequences above acked, up to last, that are in no span.
func holes(acked, last uint64, have []span) uint64 {
	slices.SortFunc(have, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	n, next := uint64(0), acked+1
	for _, s := range have {
		if s.first > next {
			n += s.first - next
		}
		next = max(next, s.last+1)
	}
	if last >= next {
		n += last - next + 1
	}
	return n
}
