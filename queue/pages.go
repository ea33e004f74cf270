package queue

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its file: a wrong page number sends it round in circles, or to addresses where a process ends. So the pages are looked at before
// bbolt sees them, by their numbers in the file and never through its map. The layout is that of bbolt's file format 2 (internal/common of
// go.etcd.io/bbolt v1.5): page header id 8 | flags 2 | count 2 | overflow 4, then elements; their positions count from the element itself.

const (
	pageHead     = 16
	elementSize  = 16
	branchPage   = 1
	leafPage     = 2
	freelistPage = 16
	bucketLeaf   = 1
	boltMagic    = 0xed0cdaed
	boltVersion  = 2
	treeDepth    = 32
)

// pages is a database file, seen from below.
type pages struct {
	file     io.ReaderAt
	size     int64
	high     uint64 // pages in use are below
	freelist uint64
	seen     []bool
	keep     bool // go on after a damaged page
	broken   map[string]error
	each     func(bucket string, key, value []byte)
}

// checkFile looks at all pages of a database that nobody has open.
func checkFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	p := pages{file: f}
	root, err := p.meta()
	if err != nil {
		return err
	}
	if err := p.tree("", root, 0, nil, nil); err != nil {
		return err
	}
	return p.free()
}

// readTree hands every record to each that can be reached from the newest root, as far as pages are whole. broken names the buckets that have others.
func readTree(name string, each func(bucket string, key, value []byte)) (broken map[string]error, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := pages{file: f, keep: true, broken: map[string]error{}, each: each}
	root, err := p.meta()
	if root == 0 {
		return nil, err
	}
	if err != nil {
		p.broken[""] = err
	}
	if err := p.tree("", root, 0, nil, nil); err != nil {
		p.broken[""] = err
	}
	return p.broken, nil
}

// meta reads both of the pages that say where the tree is. One that is wrong is damage: the other one is older.
func (p *pages) meta() (root uint64, err error) {
	if s, ok := p.file.(*os.File); ok {
		info, err := s.Stat()
		if err != nil {
			return 0, err
		}
		p.size = info.Size()
	}
	newest := uint64(0)
	for i := range int64(2) {
		b := make([]byte, pageHead+64)
		if _, rerr := p.file.ReadAt(b, i*pageSize); rerr != nil && rerr != io.EOF {
			return 0, rerr
		}
		m := b[pageHead:]
		sum := fnv.New64a()
		sum.Write(m[:56])
		word := func(at int) uint64 { return binary.NativeEndian.Uint64(m[at:]) }
		if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion || binary.NativeEndian.Uint32(m[8:]) != pageSize || word(56) != sum.Sum64() {
			err = fmt.Errorf("%w: meta page %d", errDamaged, i)
			continue
		}
		if txid := word(48); root == 0 || txid > newest {
			newest, root, p.freelist, p.high = txid, word(16), word(32), word(40)
		}
	}
	if p.high > uint64(p.size/pageSize)+1<<20 {
		return 0, fmt.Errorf("%w: %d pages", errDamaged, p.high)
	}
	p.seen = make([]bool, p.high)
	return root, err
}

func (p *pages) bad(id uint64, what string) error {
	return fmt.Errorf("%w: page %d: %s", errDamaged, id, what)
}

// read reads a page with its overflow and marks it as seen.
func (p *pages) read(id uint64) (b []byte, flags uint16, count int, err error) {
	head := make([]byte, pageHead)
	if id < 2 || id >= p.high || p.seen[id] {
		return nil, 0, 0, p.bad(id, "is not where it belongs")
	}
	if _, err := p.file.ReadAt(head, int64(id)*pageSize); err != nil {
		return nil, 0, 0, p.fault(id, err)
	}
	n := uint64(binary.NativeEndian.Uint32(head[12:])) + 1
	if binary.NativeEndian.Uint64(head) != id || id+n > p.high || int64(id+n) > (p.size+pageSize-1)/pageSize {
		return nil, 0, 0, p.bad(id, "has a wrong header")
	}
	for i := id; i < id+n; i++ {
		if p.seen[i] {
			return nil, 0, 0, p.bad(id, "overlaps another one")
		}
		p.seen[i] = true
	}
	b = make([]byte, n*pageSize)
	if _, err := p.file.ReadAt(b, int64(id)*pageSize); err != nil {
		return nil, 0, 0, p.fault(id, err)
	}
	return b, binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:])), nil
}

// fault tells a file that ends too early from one that cannot be read.
func (p *pages) fault(id uint64, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return p.bad(id, "is behind the end of the file")
	}
	return fmt.Errorf("page %d: %w", id, err)
}

// tree walks the pages of a bucket; "" is the root. Keys must be from low on and below high.
func (p *pages) tree(bucket string, id uint64, depth int, low, high []byte) error {
	if depth > treeDepth {
		return p.bad(id, "lies too deep")
	}
	b, flags, count, err := p.read(id)
	if err != nil {
		return err
	}
	switch flags {
	case leafPage:
		return p.leaf(bucket, id, b, count, depth, low, high)
	case branchPage:
	default:
		return p.bad(id, "is of the wrong kind")
	}
	var keys [][]byte
	var children []uint64
	for i := range count {
		e := pageHead + i*elementSize
		key, ok := part(b, e, at32(b, e), at32(b, e+4), e+elementSize)
		if !ok {
			return p.bad(id, "has an element outside of it")
		}
		keys, children = append(keys, key), append(children, at64(b, e+8))
	}
	if count == 0 || !ordered(keys, low, high) {
		return p.bad(id, "has keys out of order")
	}
	for i, child := range children {
		end := high
		if i+1 < count {
			end = keys[i+1]
		}
		if err := p.tree(bucket, child, depth+1, keys[i], end); err != nil {
			if !p.keep {
				return err
			}
			p.broken[bucket] = err
		}
	}
	return nil
}

// leaf looks at the records of one page, and at the buckets in it.
func (p *pages) leaf(bucket string, id uint64, b []byte, count, depth int, low, high []byte) error {
	var keys [][]byte
	for i := range count {
		e := pageHead + i*elementSize
		key, ok := part(b, e, at32(b, e+4), at32(b, e+8), e+elementSize)
		value, ok2 := part(b, e, at32(b, e+4)+at32(b, e+8), at32(b, e+12), e+elementSize)
		if !ok || !ok2 {
			return p.bad(id, "has an element outside of it")
		}
		keys = append(keys, key)
		switch isBucket := at32(b, e)&bucketLeaf != 0; {
		case isBucket != (bucket == ""):
			return p.bad(id, "has a bucket for a record, or a record for a bucket")
		case isBucket:
			if err := p.bucket(string(key), id, value, depth); err != nil {
				if !p.keep {
					return err
				}
				p.broken[string(key)] = err
			}
		case p.each != nil:
			p.each(bucket, key, value)
		}
	}
	if !ordered(keys, low, high) {
		return p.bad(id, "has keys out of order")
	}
	return nil
}

// bucket walks a bucket. A small one lies in its parent's page.
func (p *pages) bucket(name string, id uint64, value []byte, depth int) error {
	if len(value) < 16 || name == "" {
		return p.bad(id, "has half a bucket")
	}
	if root := at64(value, 0); root != 0 {
		return p.tree(name, root, depth+1, nil, nil)
	}
	inline := value[16:]
	if len(inline) < pageHead || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return p.bad(id, "has half a bucket")
	}
	return p.leaf(name, id, inline, int(binary.NativeEndian.Uint16(inline[10:])), depth, nil, nil)
}

// free sees that every page is either in the tree or free, and none is both.
func (p *pages) free() error {
	b, flags, count, err := p.read(p.freelist)
	if err != nil {
		return err
	}
	n, at := uint64(count), pageHead
	if n == 0xffff {
		n, at = at64(b, at), at+8
	}
	if flags != freelistPage || n > uint64(len(b)-at)/8 {
		return p.bad(p.freelist, "is no list of free pages")
	}
	for i := range int(n) {
		id := at64(b, at+8*i)
		if id < 2 || id >= p.high || p.seen[id] {
			return p.bad(id, "is free and in use")
		}
		p.seen[id] = true
	}
	for id := 2; id < len(p.seen); id++ {
		if !p.seen[id] {
			return p.bad(uint64(id), "is neither free nor in use")
		}
	}
	return nil
}

// part returns size bytes that begin pos behind an element; they must lie behind its end.
func part(b []byte, element int, pos, size uint32, end int) ([]byte, bool) {
	from := uint64(element) + uint64(pos)
	if end > len(b) || from < uint64(end) || from+uint64(size) > uint64(len(b)) {
		return nil, false
	}
	return b[from : from+uint64(size)], true
}

// at32 reads a number; one that lies outside is 0.
func at32(b []byte, at int) uint32 {
	if at+4 > len(b) {
		return 0
	}
	return binary.NativeEndian.Uint32(b[at:])
}

func at64(b []byte, at int) uint64 {
	if at+8 > len(b) {
		return 0
	}
	return binary.NativeEndian.Uint64(b[at:])
}

func ordered(keys [][]byte, low, high []byte) bool {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 {
			return false
		}
		if low != nil && bytes.Compare(k, low) < 0 || high != nil && bytes.Compare(k, high) >= 0 {
			return false
		}
	}
	return true
}
