package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A QoS 2 row needs its PUBREC on disk before its PUBREL goes out. When nothing else is to be written, that mark goes into one of two slots in a
// file beside the database: one block and one sync, where a bbolt commit is four pages and two syncs. The slots are written in turn, so that a cut
// in the middle of one leaves the other.
//
//	magic 4 | crc-32c 4 | store 4 | epoch 8 | serial 8 | released 8
//
// A slot counts only with the store and the epoch that the database has: a new session of the broker's starts a new epoch, with a commit.
const (
	slotName  = "fieldagent.marks"
	slotBytes = 36
	slotSpace = 4096 // each in a block of its own
)

var slotMagic = []byte{0xfa, 'F', 'M', 1}

type slots struct {
	file   *os.File
	serial uint64
	broken bool // a slot holds something that is no mark
}

type slot struct {
	store    uint32
	epoch    uint64
	serial   uint64
	released uint64
}

func (s slot) encode() []byte {
	b := make([]byte, 0, slotBytes)
	b = append(append(b, slotMagic...), 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, s.store)
	b = binary.LittleEndian.AppendUint64(b, s.epoch)
	b = binary.LittleEndian.AppendUint64(b, s.serial)
	b = binary.LittleEndian.AppendUint64(b, s.released)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

func parseSlot(b []byte) (slot, bool) {
	if len(b) < slotBytes || string(b[:4]) != string(slotMagic) || binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:slotBytes], castagnoli) {
		return slot{}, false
	}
	le := binary.LittleEndian
	return slot{store: le.Uint32(b[8:]), epoch: le.Uint64(b[12:]), serial: le.Uint64(b[20:]), released: le.Uint64(b[28:])}, true
}

// openSlots opens the file in dir, and makes it when it is not there or not whole. What it holds is on disk when it returns.
func openSlots(dir string, readOnly bool) (*slots, error) {
	name := filepath.Join(dir, slotName)
	if readOnly {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return &slots{}, nil
		}
		return &slots{file: f}, err
	}
	if info, err := os.Stat(name); err != nil || info.Size() != 2*slotSpace {
		err := writeSynced(name+".tmp", make([]byte, 2*slotSpace))
		if err == nil {
			err = os.Rename(name+".tmp", name)
		}
		if err != nil { // a full disk: the database has room inside
			_ = os.Remove(name + ".tmp")
			return &slots{}, nil
		}
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), syncDir(dir)); err != nil { // a killed process may have left it in the page cache
		return nil, errors.Join(err, f.Close())
	}
	return &slots{file: f}, nil
}

func (s *slots) close() {
	if s != nil && s.file != nil {
		_ = s.file.Close()
	}
}

// released returns the newest mark that belongs to a store and an epoch, 0 when there is none.
func (s *slots) released(store uint32, epoch uint64) uint64 {
	if s.file == nil {
		return 0
	}
	through := uint64(0)
	b := make([]byte, slotBytes)
	for i := range int64(2) {
		if _, err := s.file.ReadAt(b, i*slotSpace); err != nil {
			continue
		}
		if x, ok := parseSlot(b); ok {
			s.serial = max(s.serial, x.serial)
			if x.store == store && x.epoch == epoch {
				through = max(through, x.released)
			}
		} else if !bytes.Equal(b, make([]byte, slotBytes)) {
			s.broken = true
		}
	}
	return through
}

// write makes a mark durable, in the slot that holds the older one.
func (s *slots) write(store uint32, epoch, released uint64) error {
	s.serial++
	x := slot{store, epoch, s.serial, released}
	if _, err := s.file.WriteAt(x.encode(), int64(s.serial%2)*slotSpace); err != nil {
		return fmt.Errorf("write %s: %w", slotName, err)
	}
	if err := unix.Fdatasync(int(s.file.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", slotName, err)
	}
	return nil
}

// quick makes a mark durable without a commit, when there is nothing else to write. false leaves all to the commit: a mark that
// may or may not be in a slot does no harm, since its PUBRECs did come.
func (o *owner) quick(jobs []*job) bool {
	if len(jobs) > 0 || o.failing || o.spill != nil || o.marker == nil || o.marker.file == nil || o.suspect.Load() {
		return false
	}
	o.mu.Lock()
	m := &o.marks
	through, done, epoch := m.release, m.done, o.epoch
	if len(done) == 0 || through > o.pos.Last || len(m.retried)+len(m.retryReleases)+len(o.alarms) > 0 || len(m.receipts) >= ackRows {
		o.mu.Unlock()
		return false
	}
	m.done, m.release = nil, 0
	old := o.pos.Released
	o.mu.Unlock()
	if through > old {
		o.crash("before slot")
		if err := o.marker.write(o.store, epoch, through); err != nil {
			o.log.Error("a mark goes into the database instead", "err", err)
			o.mu.Lock()
			m.done, m.release = append(done, m.done...), max(m.release, through)
			o.mu.Unlock()
			return false
		}
		o.crash("after slot")
		o.mu.Lock()
		o.pos.Released = max(o.pos.Released, through)
		o.mu.Unlock()
	}
	for _, fn := range done {
		fn(nil)
	}
	return true
}
