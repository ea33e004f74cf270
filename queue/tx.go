package queue

import (
	"bytes"
	"fmt"
	"math"
	"sort"

	bolt "go.etcd.io/bbolt"
)

// Kind is a set of keyed values.
type Kind byte

// Kinds of values.
const (
	Totals = Kind(inTotals) // of meters
	Config = Kind(inConfig) // the remote configuration
	Misc   = Kind(inMisc)   // what drivers keep, such as baselines
)

// Tx is a transaction. It collects changes and applies them when its function has returned nil.
type Tx struct {
	q            *Queue
	b            *bolt.Tx
	readOnly     bool
	store        uint32
	gen          uint64
	last         uint64 // newest sequence, in this batch too
	room         int64  // bytes that rows may still take
	now          Stamp
	puts         []put
	rows         []Record
	sizes        []int32   // of their frames
	mark         *mark     // as it will be committed
	then         []func()  // what changes in memory once it is on disk; called with mu held
	purged       bool      // rows were removed out of order
	kept         int64     // by how many bytes all that is no row grew
	receipts     []Receipt // for the audit trail
	auditAdded   []auditBlock
	auditTrimmed int
	size         int64 // of the rows
}

type put struct {
	bucket byte
	key    []byte
	value  []byte // nil deletes
}

// run runs one caller's function; an error takes its changes back.
func (tx *Tx) run(fn func(*Tx) error) error {
	before, m := *tx, *tx.mark
	err := tx.call(fn)
	if err != nil {
		*tx.mark = m
		tx.puts, tx.rows, tx.sizes, tx.then = tx.puts[:len(before.puts)], tx.rows[:len(before.rows)], tx.sizes[:len(before.sizes)], tx.then[:len(before.then)]
		tx.receipts = tx.receipts[:len(before.receipts)]
		tx.last, tx.size, tx.purged = before.last, before.size, before.purged
	}
	return err
}

// call makes an error of a panic in fn.
func (tx *Tx) call(fn func(*Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("transaction: %v", p)
		}
	}()
	return fn(tx)
}

// look reads the database; damage that it meets has the owner look at all of it.
func (tx *Tx) look(fn func(b *bolt.Tx) error) error {
	err := guarded(func() error { return fn(tx.b) })
	if isDamage(err) && !tx.readOnly {
		tx.q.suspect.Store(true)
	}
	return err
}

// Append accepts an event once the transaction is on disk.
func (tx *Tx) Append(e Event) (ID, error) {
	if tx.readOnly {
		return ID{}, ErrReadOnly
	}
	if err := e.check(tx.q.opt.MaxRecord); err != nil {
		return ID{}, err
	}
	n := len(tx.puts)
	id, err := tx.add(e)
	if err == nil && tx.size > tx.room {
		tx.last--
		tx.size -= int64(tx.sizes[len(tx.sizes)-1])
		tx.puts, tx.rows, tx.sizes = tx.puts[:n], tx.rows[:len(tx.rows)-1], tx.sizes[:len(tx.sizes)-1]
		tx.q.refuse(e.Type, tx.now.Wall)
		return ID{}, fmt.Errorf("%w: it would take more than the %d MiB that outbox.max_size allows; connect the broker, raise the limit, or purge", ErrFull, tx.q.opt.MaxSize>>20)
	}
	return id, err
}

// add appends an event whatever the quota says.
func (tx *Tx) add(e Event) (ID, error) {
	r := Record{ID: ID{tx.store, tx.last + 1}, Accepted: tx.now, Event: e}
	body, err := appendRow(nil, r)
	if err != nil {
		return ID{}, err
	}
	key := seqKey(r.ID.Sequence)
	size := frameHead + len(key) + len(body)
	tx.last++
	tx.size += int64(size)
	tx.rows, tx.sizes = append(tx.rows, r), append(tx.sizes, int32(size))
	tx.puts = append(tx.puts, put{bucket: inRows, key: key, value: body})
	return r.ID, nil
}

// Get returns a value, nil when there is none.
func (tx *Tx) Get(k Kind, key string) ([]byte, error) { return tx.get(byte(k), []byte(key)) }

// Put sets a value; keys are at most 255 bytes long.
func (tx *Tx) Put(k Kind, key string, value []byte) error {
	return tx.put(byte(k), []byte(key), bytes.Clone(value))
}

// Delete removes a value; it is no error when there is none.
func (tx *Tx) Delete(k Kind, key string) error { return tx.remove(byte(k), []byte(key)) }

// Keys lists the keys of a kind in order.
func (tx *Tx) Keys(k Kind) ([]string, error) {
	set := map[string]bool{}
	err := tx.look(func(b *bolt.Tx) error {
		return b.Bucket(bucketName[k]).ForEach(func(key, _ []byte) error {
			set[string(key)] = true
			return nil
		})
	})
	for _, p := range tx.puts {
		if p.bucket == byte(k) {
			set[string(p.key)] = p.value != nil
		}
	}
	var keys []string
	for key, ok := range set {
		if ok {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys, err
}

func (tx *Tx) get(bucket byte, key []byte) ([]byte, error) {
	for i := len(tx.puts) - 1; i >= 0; i-- {
		if p := tx.puts[i]; p.bucket == bucket && bytes.Equal(p.key, key) {
			return p.value, nil
		}
	}
	var value []byte
	err := tx.look(func(b *bolt.Tx) error {
		v := b.Bucket(bucketName[bucket]).Get(key)
		if v == nil {
			return nil
		}
		f, err := open(bucket, key, v)
		value = append([]byte{}, f.value...)
		return err
	})
	return value, err
}

func (tx *Tx) put(bucket byte, key, value []byte) error {
	if tx.readOnly {
		return ErrReadOnly
	}
	if len(key) == 0 || len(key) > 255 || len(value) > maxFrame/2 {
		return fmt.Errorf("%w: key of %d bytes, value of %d bytes", ErrInvalid, len(key), len(value))
	}
	if value == nil {
		value = []byte{}
	}
	tx.puts = append(tx.puts, put{bucket: bucket, key: key, value: value})
	return nil
}

func (tx *Tx) remove(bucket byte, key []byte) error {
	if tx.readOnly {
		return ErrReadOnly
	}
	tx.puts = append(tx.puts, put{bucket: bucket, key: key})
	return nil
}

// apply writes what was collected into the bbolt transaction.
func (tx *Tx) apply() error {
	peers := tx.peers()
	for _, p := range tx.puts {
		b := tx.b.Bucket(bucketName[p.bucket])
		var v []byte
		if p.value != nil {
			v = frame{tx.store, tx.gen, peers, p.bucket, p.key, p.value}.append(make([]byte, 0, frameHead+len(p.key)+len(p.value)))
		}
		if p.bucket == inRows {
			b.FillPercent = 1 // rows are only ever added at the end
		} else {
			tx.kept += int64(len(v) - len(b.Get(p.key)))
		}
		var err error
		if v == nil {
			err = b.Delete(p.key)
		} else {
			err = b.Put(p.key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// peers counts the records that will be on disk, 0 when they are too many for a frame to say.
func (tx *Tx) peers() uint16 {
	n := 0
	kept := map[frameKey]bool{} // of rows each is put once
	for _, p := range tx.puts {
		switch {
		case p.bucket != inRows:
			kept[frameKey{p.bucket, string(p.key)}] = p.value != nil
		case p.value != nil:
			n++
		}
	}
	for _, is := range kept {
		if is {
			n++
		}
	}
	if n > math.MaxUint16 {
		return 0
	}
	return uint16(n)
}
