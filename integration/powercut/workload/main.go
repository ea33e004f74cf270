// Command workload uses a state folder on a recording disk as an agent would: producers, a delivery engine, meter totals, commands, configuration.
// It notes what it is promised. It ends by itself, cleanly or at once; both leave a journal to cut.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/integration/powercut"
	"fieldagent/queue"
)

type life struct {
	q     *queue.Queue
	notes powercut.Notes
	name  string
	seed  uint64
	ops   atomic.Int64 // left; the process ends when none are
	kill  bool
	small int
	large int
	done  chan struct{}
	once  sync.Once
	bury  bool
}

func main() {
	disk := flag.String("disk", "", "where the recording disk is mounted, or where the facts go")
	state := flag.String("state", "", "state folder")
	name := flag.String("life", "a", "name of this life, unique in the journal")
	seed := flag.Uint64("seed", 1, "")
	ops := flag.Int("ops", 200, "events to emit")
	small := flag.Int("small", 60, "bytes of the smallest event")
	large := flag.Int("large", 400, "bytes of the largest event")
	producers := flag.Int("producers", 4, "")
	keep := flag.Int("keep", 1000, "keep_delivered")
	max := flag.Int64("max", 0, "max_size")
	offline := flag.Bool("offline", false, "deliver nothing")
	kill := flag.Bool("kill", false, "end without a goodbye")
	bury := flag.Bool("bury", false, "make dead letters, retry them")
	lost := flag.Bool("lost", false, "the broker has lost the session")
	flag.Parse()
	l := &life{name: *name, seed: *seed, kill: *kill, small: *small, large: *large, done: make(chan struct{}), bury: *bury}
	l.ops.Store(int64(*ops))
	var err error
	if l.notes, err = powercut.OpenNotes(*disk); err != nil {
		fatal(err)
	}
	if l.q, err = queue.Open(*state, queue.Options{KeepDelivered: *keep, MaxSize: *max}); err != nil {
		fatal(err)
	}
	if d := l.q.Damage(); d != nil {
		l.notes.Note(powercut.Fact{What: "damage"})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.q.Run(ctx) }()
	var users sync.WaitGroup
	for p := range *producers {
		users.Go(func() { l.produce(ctx, "p"+strconv.Itoa(p)) })
	}
	users.Go(func() { l.meter(ctx) })
	users.Go(func() { l.commands(ctx) })
	users.Go(func() { l.configure(ctx) })
	if !*offline {
		users.Go(func() { l.deliver(ctx, !*lost) })
	}
	<-l.done
	if l.kill {
		os.Exit(0)
	}
	users.Wait()
	cancel()
	if err := errors.Join(<-ran, l.q.Close()); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "workload:", err)
	os.Exit(1)
}

func (l *life) rand(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(l.seed, stream)) }

// spend takes one of the operations that are left.
func (l *life) spend() bool {
	if l.ops.Add(-1) < 0 {
		l.once.Do(func() { close(l.done) })
		return false
	}
	return true
}

func (l *life) note(what string, f powercut.Fact) {
	f.What = what
	l.notes.Note(f)
}

// outcome notes what became of an attempt to store.
func (l *life) outcome(token string, id queue.ID, err error) {
	switch {
	case err == nil:
		l.note("accept", powercut.Fact{Token: token, Store: id.Store, Seq: id.Sequence})
	case errors.Is(err, queue.ErrFull):
		l.note("refuse", powercut.Fact{Token: token})
	case !errors.Is(err, queue.ErrClosed):
		fatal(fmt.Errorf("%s: %w", token, err))
	}
}

func (l *life) produce(ctx context.Context, who string) {
	rng := l.rand(uint64(who[1]))
	for n := 1; l.spend(); n++ {
		token := powercut.Token(l.name, who, n, l.small+rng.IntN(l.large-l.small+1))
		l.note("submit", powercut.Fact{Token: token})
		var id queue.ID
		err := l.q.Update(ctx, func(tx *queue.Tx) (err error) {
			id, err = tx.Append(queue.Event{Type: "proof", QoS: byte(1 + rng.IntN(8)%2), Data: powercut.Payload(token)})
			return err
		})
		l.outcome(token, id, err)
		if rng.IntN(20) == 0 {
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		}
	}
}

// meter keeps a total, and adds an event in the same transaction.
func (l *life) meter(ctx context.Context) {
	total := 0
	err := l.q.View(func(tx *queue.Tx) error {
		v, err := tx.Get(queue.Totals, "m")
		if len(v) > 0 {
			total, _ = strconv.Atoi(string(v))
		}
		return err
	})
	if err != nil {
		fatal(err)
	}
	for l.spend() {
		total++
		token := powercut.Token("all", "m", total, l.small)
		l.note("submit", powercut.Fact{Token: token})
		l.note("put?", powercut.Fact{Key: "m", Value: uint64(total)})
		var id queue.ID
		err := l.q.Update(ctx, func(tx *queue.Tx) (err error) {
			if err := tx.Put(queue.Totals, "m", []byte(strconv.Itoa(total))); err != nil {
				return err
			}
			id, err = tx.Append(queue.Event{Type: "proof", QoS: 2, Data: powercut.Payload(token)})
			return err
		})
		l.outcome(token, id, err)
		if err == nil {
			l.note("put", powercut.Fact{Key: "m", Value: uint64(total)})
		} else {
			total--
		}
	}
}

// commands receives, starts and finishes commands; half of them stay where they are for a while.
func (l *life) commands(ctx context.Context) {
	for n := 1; l.spend(); n++ {
		id := fmt.Sprintf("%s-%d", l.name, n)
		step := func(state uint64, fn func(tx *queue.Tx) error) bool {
			l.note("job?", powercut.Fact{Key: id, Value: state})
			if err := l.q.Update(ctx, fn); err != nil {
				if errors.Is(err, queue.ErrFull) {
					return false
				}
				fatal(err)
			}
			l.note("job", powercut.Fact{Key: id, Value: state})
			return true
		}
		step(1, func(tx *queue.Tx) error {
			_, fresh, err := tx.Receive(id, "set", []byte(`{"id":"`+id+`"}`))
			if err == nil && !fresh {
				err = errors.New("a new command is known already")
			}
			return err
		})
		if n%5 == 4 {
			continue
		}
		step(2, func(tx *queue.Tx) error { return tx.Start(id) })
		if n%5 == 3 {
			continue
		}
		token := powercut.Token(l.name, "j", n, l.small)
		l.note("submit", powercut.Fact{Token: token})
		var rid queue.ID
		if step(3, func(tx *queue.Tx) (err error) {
			rid, err = tx.Finish(id, queue.Event{Type: "proof", Topic: "cmd/set/result", QoS: 1, Data: powercut.Payload(token)})
			return err
		}) {
			l.note("accept", powercut.Fact{Token: token, Store: rid.Store, Seq: rid.Sequence})
		}
	}
}

// configure writes a growing document again and again.
func (l *life) configure(ctx context.Context) {
	version := uint64(0)
	err := l.q.View(func(tx *queue.Tx) error {
		v, err := tx.Get(queue.Config, "c")
		version = powercut.DocumentVersion(v)
		return err
	})
	if err != nil {
		fatal(err)
	}
	for l.spend() {
		version++
		l.note("put?", powercut.Fact{Key: "c", Value: version})
		if err := l.q.Update(ctx, func(tx *queue.Tx) error { return tx.Put(queue.Config, "c", powercut.Document(version)) }); err != nil {
			fatal(err)
		}
		l.note("put", powercut.Fact{Key: "c", Value: version})
		select {
		case <-l.done:
		case <-time.After(2 * time.Millisecond):
		}
	}
}
