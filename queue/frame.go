package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Every record on disk, in bbolt and in segments, is a frame: it says by itself what it is, and whether it is whole.
//
//	magic 4 | crc-32c 4 | length of the rest 4 | store 4 | generation 6 | peers 2 | bucket 1 | key length 1 | key | value
//
// The checksum covers all that follows it, so a frame under a wrong key is as damaged as a flipped bit.
// Salvage finds frames in a file whose tree is broken.
var magic = []byte{0xfa, 'F', 'A', 1}

const frameHead = 4 + 4 + 4 + 4 + 6 + 2 + 1 + 1

const maxGen = 1<<48 - 1 // one commit a millisecond for 9,000 years

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged record")

// Buckets, as frames name them.
const (
	inMeta     byte = iota + 1
	inRows          // events, by sequence
	inState         // marks, what a full outbox refused, damage to report
	inSegments      // files of old rows, by their first sequence
	inTotals
	inConfig
	inMisc
	inInbox // commands, by id
	inAudit // receipts, by the commit that wrote them
	inDead  // dead letters, by sequence
	inRetry // of these, the ones to send again
	bucketEnd
)

var bucketName = [bucketEnd][]byte{inMeta: []byte("meta"), inRows: []byte("rows"), inState: []byte("state"), inSegments: []byte("segments"), inTotals: []byte("totals"),
	inConfig: []byte("config"), inMisc: []byte("misc"), inInbox: []byte("inbox"), inAudit: []byte("audit"), inDead: []byte("dead"), inRetry: []byte("retry")}

type frame struct {
	store  uint32
	gen    uint64 // of the commit that wrote it; the newest wins in salvage
	peers  uint16 // records that this commit wrote: salvage tells half a commit by it; 0 unknown
	bucket byte
	key    []byte
	value  []byte
}

func (f frame) append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(frameHead-12+len(f.key)+len(f.value)))
	b = binary.LittleEndian.AppendUint32(b, f.store)
	b = binary.LittleEndian.AppendUint64(b, f.gen&maxGen|uint64(f.peers)<<48)
	b = append(b, f.bucket, byte(len(f.key)))
	b = append(b, f.key...)
	b = append(b, f.value...)
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	return b
}

// parseFrame reads the frame at the start of b and returns its length. The parts point into b.
func parseFrame(b []byte) (frame, int, error) {
	if len(b) < frameHead || !bytes.Equal(b[:4], magic) {
		return frame{}, 0, errDamaged
	}
	n := uint64(binary.LittleEndian.Uint32(b[8:])) + 12
	if n < frameHead || n > uint64(len(b)) || crc32.Checksum(b[8:n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return frame{}, 0, errDamaged
	}
	gen := binary.LittleEndian.Uint64(b[16:])
	f := frame{store: binary.LittleEndian.Uint32(b[12:]), gen: gen & maxGen, peers: uint16(gen >> 48), bucket: b[24]}
	k := frameHead + int(b[25])
	if k > int(n) || f.bucket == 0 || f.bucket >= bucketEnd {
		return frame{}, 0, errDamaged
	}
	f.key, f.value = b[frameHead:k], b[k:n]
	return f, int(n), nil
}

// open checks a value that was found in a bucket under a key.
func open(bucket byte, key, value []byte) (frame, error) {
	f, n, err := parseFrame(value)
	if err != nil || n != len(value) || f.bucket != bucket || !bytes.Equal(f.key, key) {
		return frame{}, fmt.Errorf("%w in %s under %x", errDamaged, bucketName[bucket], key)
	}
	return f, nil
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// A row's value: version, qos, two stamps, type, topic, data, properties as JSON. Varints, strings with their length.
const rowVersion = 1

func appendRow(b []byte, r Record) ([]byte, error) {
	b = append(b, rowVersion, r.QoS)
	b = appendStamp(b, r.Accepted)
	b = appendStamp(b, r.At)
	b = appendBytes(b, []byte(r.Type))
	b = appendBytes(b, []byte(r.Topic))
	b = appendBytes(b, r.Data)
	if r.Properties == nil {
		return append(b, 0), nil
	}
	p, err := json.Marshal(r.Properties)
	if err != nil {
		return nil, err
	}
	return appendBytes(b, p), nil
}

// parseRow decodes a row; nothing in the result points into the frame.
func parseRow(f frame) (Record, error) {
	d := decoder{b: f.value}
	if v := d.byte(); v != rowVersion && !d.bad {
		return Record{}, fmt.Errorf("%w: row version %d", ErrNewer, v)
	}
	var r Record
	r.QoS = d.byte()
	r.Accepted = d.stamp()
	r.At = d.stamp()
	r.Type = string(d.bytes())
	r.Topic = string(d.bytes())
	if data := d.bytes(); len(data) > 0 {
		r.Data = bytes.Clone(data)
	}
	if p := d.bytes(); len(p) > 0 {
		if err := json.Unmarshal(p, &r.Properties); err != nil {
			d.bad = true
		}
	}
	if d.bad || len(d.b) != 0 || len(f.key) != 8 || r.QoS < 1 || r.QoS > 2 {
		return Record{}, fmt.Errorf("%w: row %x", errDamaged, f.key)
	}
	r.ID = ID{f.store, binary.BigEndian.Uint64(f.key)}
	return r, nil
}

// A stamp is its clock, seconds and nanoseconds of the wall (any time, zero too), boot, uptime.
func appendStamp(b []byte, s Stamp) []byte {
	b = append(b, byte(s.Clock))
	b = binary.AppendVarint(b, s.Wall.Unix())
	b = binary.AppendUvarint(b, uint64(s.Wall.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, s.Boot)
	return binary.AppendUvarint(b, uint64(s.Uptime))
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// decoder reads from the front of b; bad says that something did not fit.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	if len(d.b) < 4 {
		d.bad, d.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

func (d *decoder) stamp() Stamp {
	s := Stamp{Clock: Clock(d.byte())}
	sec, nsec := d.varint(), d.uvarint()
	s.Boot = d.uint32()
	s.Uptime = time.Duration(d.uvarint())
	if s.Clock > ClockCorrected || nsec >= 1e9 {
		d.bad = true
		return Stamp{}
	}
	s.Wall = time.Unix(sec, int64(nsec)).UTC()
	return s
}
