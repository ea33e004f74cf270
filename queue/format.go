package queue

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

var metaKey = []byte("store")

// migrations change a database of format i+1 into one of format i+2, in the transaction that writes the new number. They see whole records only:
// frames, rows and marks keep being readable by the code that is there now. testdata holds a state folder of each format.
var migrations = []func(b *bolt.Tx, store uint32) error{}

func putMeta(b *bolt.Tx, store uint32, format uint64) error {
	return b.Bucket(bucketName[inMeta]).Put(metaKey, frame{store, 0, 0, inMeta, metaKey, binary.AppendUvarint(nil, format)}.append(nil))
}

// metaOf reads the record that says what the database is. ErrNewer: a later version of the agent wrote it, and it must not be touched.
func metaOf(b *bolt.Tx) (frame, error) {
	f, format, err := formatOf(b)
	if err == nil && format > Format {
		err = newer(format, Format)
	}
	return f, err
}

func formatOf(b *bolt.Tx) (frame, uint64, error) {
	m := b.Bucket(bucketName[inMeta])
	if m == nil {
		return frame{}, 0, fmt.Errorf("%w: no meta bucket", errDamaged)
	}
	v := m.Get(metaKey)
	f, err := open(inMeta, metaKey, v)
	if err != nil {
		return frame{}, 0, err
	}
	format, n := binary.Uvarint(f.value)
	if n <= 0 || format == 0 {
		return frame{}, 0, fmt.Errorf("%w: no format", errDamaged)
	}
	return f, format, nil
}

func newer(format, known uint64) error {
	return fmt.Errorf("%w: format %d, this agent knows %d; install the newer version again, nothing was changed", ErrNewer, format, known)
}

// migrate brings the database to the format that len(steps) makes, all in one transaction.
func migrate(db *bolt.DB, steps []func(*bolt.Tx, uint32) error) error {
	latest := uint64(len(steps)) + 1
	var format uint64
	if err := db.View(func(b *bolt.Tx) (err error) { _, format, err = formatOf(b); return err }); err != nil || format == latest {
		return err
	}
	if format > latest {
		return newer(format, latest)
	}
	return db.Update(func(b *bolt.Tx) error {
		f, format, err := formatOf(b)
		if err != nil {
			return err
		}
		store := f.store
		for ; format < latest; format++ {
			if err := steps[format-1](b, store); err != nil {
				return fmt.Errorf("migrate from format %d: %w", format, err)
			}
		}
		return putMeta(b, store, latest)
	})
}
