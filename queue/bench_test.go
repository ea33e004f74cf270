package queue

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// payload is the data of a 160-byte event.
var payload = json.RawMessage(`{"n":` + strings.Repeat("1", 153) + `}`)

// perProducer runs b.N operations on p goroutines.
func perProducer(b *testing.B, p int, op func() error) {
	b.Helper()
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range p {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				if err := op(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkEnqueue(b *testing.B) {
	for _, p := range []int{1, 32} {
		b.Run(fmt.Sprintf("queue/producers=%d", p), func(b *testing.B) {
			q, _ := run(b, b.TempDir(), Options{MaxSize: 512 << 20})
			ctx := context.Background()
			perProducer(b, p, func() error {
				return q.Update(ctx, func(tx *Tx) error {
					_, err := tx.Append(Event{Type: "meter", QoS: 1, Data: payload})
					return err
				})
			})
		})
		b.Run(fmt.Sprintf("bbolt-commit-each/producers=%d", p), func(b *testing.B) {
			db, err := bolt.Open(filepath.Join(b.TempDir(), "b.db"), 0o600, &bolt.Options{PageSize: 4096, FreelistType: bolt.FreelistMapType})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			perProducer(b, p, func() error {
				return db.Update(func(tx *bolt.Tx) error {
					bk, err := tx.CreateBucketIfNotExists([]byte("rows"))
					if err != nil {
						return err
					}
					seq, err := bk.NextSequence()
					if err != nil {
						return err
					}
					return bk.Put(seqKey(seq), payload)
				})
			})
		})
		b.Run(fmt.Sprintf("log-group-commit/producers=%d", p), func(b *testing.B) {
			l, err := newLog(filepath.Join(b.TempDir(), "log"))
			if err != nil {
				b.Fatal(err)
			}
			defer l.f.Close()
			perProducer(b, p, func() error { return l.append(payload) })
		})
	}
}

// appendLog is the physical limit to compare with: one write and one sync for all who wait.
type appendLog struct {
	f       *os.File
	mu      sync.Mutex
	buf     []byte
	waiting []chan error
	leading bool
	seq     uint64
}

func newLog(name string) (*appendLog, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &appendLog{f: f}, err
}

func (l *appendLog) append(data []byte) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.seq++
	l.buf = frame{1, l.seq, 0, inRows, binary.BigEndian.AppendUint64(nil, l.seq), data}.append(l.buf)
	l.waiting = append(l.waiting, done)
	lead := !l.leading
	if lead {
		l.leading = true
	}
	l.mu.Unlock()
	for lead {
		l.mu.Lock()
		buf, waiting := l.buf, l.waiting
		l.buf, l.waiting = nil, nil
		if len(waiting) == 0 {
			l.leading = false
			l.mu.Unlock()
			break
		}
		l.mu.Unlock()
		_, err := l.f.Write(buf)
		if err == nil {
			err = l.f.Sync()
		}
		for _, w := range waiting {
			w <- err
		}
	}
	return <-done
}
