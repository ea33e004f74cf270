package queue

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// auditBlock is a record of the audit trail: some receipts, under the number of the commit that wrote them.
type auditBlock struct {
	key uint64
	n   int
}

// auditEntry is a receipt as it stands on disk.
type auditEntry struct {
	id                     ID
	accepted, first, acked Stamp
	sent                   int
	server, reason         string
}

func (e auditEntry) life() Life {
	return Life{ID: e.id, State: StateAcked, Accepted: e.accepted, FirstSent: e.first, Acknowledged: e.acked, Sent: e.sent, Server: e.server, Reason: e.reason}
}

func (r Receipt) id() ID { return ID{r.store, r.Sequence} }

func (r Receipt) life() Life {
	return auditEntry{r.id(), r.accepted, r.FirstSent, r.acked, r.Sent, r.Server, r.Reason}.life()
}

// audit writes the receipts of this commit in one block and forgets the oldest blocks beyond KeepDelivered.
func (tx *Tx) audit() error {
	receipts, keep := tx.receipts, tx.q.opt.KeepDelivered
	if keep <= 0 || len(receipts) == 0 {
		return nil
	}
	if len(receipts) > keep {
		receipts = receipts[len(receipts)-keep:]
	}
	if err := tx.put(inAudit, seqKey(tx.gen), appendAudit(nil, receipts)); err != nil {
		return err
	}
	tx.auditAdded = append(tx.auditAdded, auditBlock{tx.gen, len(receipts)})
	tx.trimAudit()
	return nil
}

// A block: the words that stand in it (servers, reasons), then each receipt with the numbers of its words.
func appendAudit(v []byte, receipts []Receipt) []byte {
	number := map[string]uint64{}
	var words []byte
	for _, r := range receipts {
		for _, w := range []string{r.Server, r.Reason} {
			if _, ok := number[w]; !ok {
				number[w] = uint64(len(number))
				words = appendBytes(words, []byte(w))
			}
		}
	}
	v = binary.AppendUvarint(v, uint64(len(number)))
	v = append(v, words...)
	v = binary.AppendUvarint(v, uint64(len(receipts)))
	for _, r := range receipts {
		v = binary.LittleEndian.AppendUint32(v, r.store)
		v = binary.AppendUvarint(v, r.Sequence)
		v = appendStamp(v, r.accepted)
		v = appendStamp(v, r.FirstSent)
		v = appendStamp(v, r.acked)
		v = binary.AppendUvarint(v, uint64(r.Sent))
		v = binary.AppendUvarint(v, number[r.Server])
		v = binary.AppendUvarint(v, number[r.Reason])
	}
	return v
}

func parseAudit(v []byte) ([]auditEntry, error) {
	d := decoder{b: v}
	var words []string
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		words = append(words, string(d.bytes()))
	}
	word := func() string {
		if i := d.uvarint(); i < uint64(len(words)) {
			return words[i]
		}
		d.bad = true
		return ""
	}
	var out []auditEntry
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		out = append(out, auditEntry{ID{d.uint32(), d.uvarint()}, d.stamp(), d.stamp(), d.stamp(), int(d.uvarint()), word(), word()})
	}
	if d.bad || len(d.b) != 0 {
		return nil, errDamaged
	}
	return out, nil
}

// trimAudit removes whole blocks from the oldest on, as long as enough receipts are left.
func (tx *Tx) trimAudit() {
	tx.q.mu.Lock()
	blocks := tx.q.blocks
	tx.q.mu.Unlock()
	total := 0
	for _, b := range blocks {
		total += b.n
	}
	for _, b := range tx.auditAdded {
		total += b.n
	}
	for len(blocks) > 0 && total-blocks[0].n >= tx.q.opt.KeepDelivered {
		total -= blocks[0].n
		tx.puts = append(tx.puts, put{bucket: inAudit, key: seqKey(blocks[0].key)})
		tx.auditTrimmed++
		blocks = blocks[1:]
	}
}

// receipt looks for an id in the audit trail, from the newest on.
func (q *Queue) receipt(id ID) (found auditEntry, err error) {
	err = q.view(func(b *bolt.Tx) error {
		c := b.Bucket(bucketName[inAudit]).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			f, err := open(inAudit, k, v)
			if err != nil {
				return err
			}
			entries, err := parseAudit(f.value)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.id == id {
					found = e
					return nil
				}
			}
		}
		return fmt.Errorf("%s: %w; it was delivered or purged, and is no longer kept (outbox.keep_delivered)", id, ErrNotFound)
	})
	return found, err
}
