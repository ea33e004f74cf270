package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fieldagent/queue"

	bolt "go.etcd.io/bbolt"
)

// payload is the data of a 160-byte event.
var payload = json.RawMessage(`{"n":` + strings.Repeat("1", 154) + `}`)

// openQueue opens a state folder and runs it until the returned function is called.
func openQueue(dir string, opt queue.Options) (*queue.Queue, func() error, error) {
	q, err := queue.Open(dir, opt)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	return q, func() error {
		cancel()
		return errors.Join(<-done, q.Close())
	}, nil
}

// fillRole fills a state folder: DIR N QOS MAXSIZE. A hundred events share a transaction, so that filling is not what is measured.
func fillRole(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	qos, size := args[2][0]-'0', int64(0)
	if size, err = strconv.ParseInt(args[3], 10, 64); err != nil {
		return err
	}
	q, stop, err := openQueue(args[0], queue.Options{MaxSize: size})
	if err != nil {
		return err
	}
	for done := 0; done < n; done += 100 {
		err := q.Update(context.Background(), func(tx *queue.Tx) error {
			for range min(100, n-done) {
				if _, err := tx.Append(queue.Event{Type: "meter", QoS: qos, Data: payload, At: queue.Stamp{Wall: time.Now(), Clock: queue.ClockSynced}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return errors.Join(err, stop())
		}
	}
	return stop()
}

// each runs n operations on p goroutines and returns operations per second.
func each(p, n int, op func() error) (float64, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, p)
	began := time.Now()
	for i := range p {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				if errs[i] = op(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(began).Seconds(), errors.Join(errs...)
}

// A store accepts an event durably.
type store struct {
	name string
	open func(dir string) (add func() error, stop func() error, err error)
}

var stores = []store{
	{"queue", func(dir string) (func() error, func() error, error) {
		q, stop, err := openQueue(dir, queue.Options{MaxSize: 512 << 20})
		return func() error {
			return q.Update(context.Background(), func(tx *queue.Tx) error {
				_, err := tx.Append(queue.Event{Type: "meter", QoS: 1, Data: payload})
				return err
			})
		}, stop, err
	}},
	{"bbolt, one commit per event", openBolt},
	{"append-only log, group commit", func(dir string) (func() error, func() error, error) {
		f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		l := &appendLog{f: f}
		return func() error { return l.append(payload) }, f.Close, err
	}},
}

func openBolt(dir string) (func() error, func() error, error) {
	db, err := bolt.Open(filepath.Join(dir, "b.db"), 0o600, &bolt.Options{PageSize: 4096, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("rows"))
		return err
	})
	return func() error {
		return db.Update(func(tx *bolt.Tx) error {
			rows := tx.Bucket([]byte("rows"))
			seq, err := rows.NextSequence()
			if err != nil {
				return err
			}
			return rows.Put(fmt.Appendf(nil, "%016d", seq), payload)
		})
	}, db.Close, err
}

// appendLog is the physical limit to compare with: one write and one sync for all who wait.
type appendLog struct {
	f       *os.File
	mu      sync.Mutex
	buf     []byte
	waiting []chan error
	leading bool
}

func (l *appendLog) append(data []byte) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.buf = append(append(l.buf, "headhead"...), data...)
	l.waiting = append(l.waiting, done)
	lead := !l.leading
	l.leading = true
	l.mu.Unlock()
	for lead {
		l.mu.Lock()
		buf, waiting := l.buf, l.waiting
		l.buf, l.waiting = nil, nil
		l.leading = len(waiting) > 0
		l.mu.Unlock()
		if len(waiting) == 0 {
			break
		}
		_, err := l.f.Write(buf)
		err = errors.Join(err, l.f.Sync())
		for _, w := range waiting {
			w <- err
		}
	}
	return <-done
}

// BenchmarkEnqueue compares durable enqueue; the stores take turns in short rounds, so that a machine that drifts drifts for all.
func BenchmarkEnqueue(b *testing.B) {
	for _, c := range []struct {
		p, n   int
		floors [3]float64 // to the queue's own speed: none, bbolt, log
	}{{1, 600, [3]float64{0, 0.85, 0}}, {32, 9600, [3]float64{0, 12, 0.35}}} {
		b.Run(fmt.Sprintf("producers=%d", c.p), func(b *testing.B) {
			const rounds = 7
			ratios := make([][]float64, len(stores))
			for range rounds {
				var speed [3]float64
				for i, s := range stores {
					n := c.n
					if i == 1 && c.p > 1 {
						n /= 10
					}
					speed[i] = enqueue(b, s, c.p, n)
				}
				for i := range stores {
					ratios[i] = append(ratios[i], speed[0]/speed[i])
				}
			}
			for i, s := range stores {
				if i > 0 {
					none := ""
					if c.floors[i] == 0 {
						none = " (no floor)"
					}
					report(b, row{what: fmt.Sprintf("durable enqueue, %d producers, times %s%s", c.p, s.name, none), got: median(ratios[i]), floor: c.floors[i], side: atLeast, unit: "x",
						limits: "two syncs of a bbolt commit"})
				}
			}
		})
	}
}

func enqueue(b *testing.B, s store, p, n int) float64 {
	b.Helper()
	dir, err := os.MkdirTemp(scratch, "enqueue-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	add, stop, err := s.open(dir)
	if err != nil {
		b.Fatal(err)
	}
	_, err = each(p, n/10, add) // warm
	speed, err2 := each(p, n, add)
	if err := errors.Join(err, err2, stop()); err != nil {
		b.Fatal(err)
	}
	return speed
}

func median(x []float64) float64 {
	y := append([]float64(nil), x...)
	for i := range y {
		for j := i; j > 0 && y[j] < y[j-1]; j-- {
			y[j], y[j-1] = y[j-1], y[j]
		}
	}
	return y[len(y)/2]
}
