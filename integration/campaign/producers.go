package campaign

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/integration/verify"
)

// backlog is how many accepted events may be on their way before producers wait: lives of 20 ms deliver nothing.
const backlog = 400

// producers emit numbered events through the agent's socket as long as it answers. A number is used for one attempt only: what became of it when there is no answer nobody knows.
type producers struct {
	rig      *Rig
	plan     Plan
	accepted atomic.Int64
	unknown  atomic.Int64
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// produce starts producers that mix QoS 1 and 2.
func (r *Rig) produce(plan Plan) *producers {
	ctx, cancel := context.WithCancel(context.Background())
	p := &producers{rig: r, plan: plan, stop: cancel}
	for i := range plan.Producers {
		p.done.Go(func() { p.run(ctx, i+1, rand.New(rand.NewPCG(plan.Seed, uint64(i)))) })
	}
	return p
}

func (p *producers) end() {
	p.stop()
	p.done.Wait()
}

func (p *producers) run(ctx context.Context, producer int, rnd *rand.Rand) {
	qos, same := 2, 0
	for number := p.plan.First + 1; ctx.Err() == nil; {
		if same--; same < 0 { // runs of one QoS, so that windows fill
			qos, same = 1+rnd.IntN(2), rnd.IntN(60)
		}
		pause := time.Duration(rnd.Int64N(int64(p.plan.Pace) + 1))
		size := rnd.IntN(300)
		if rnd.IntN(100) == 0 {
			size = rnd.IntN(20000)
		}
		if p.rig.Judge.Missing() > backlog {
			pause = 20 * time.Millisecond
		} else if p.emit(producer, number, qos, size) {
			number++
		} else {
			pause = 3 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// emit hands in one event. used says that its number may be in an event now.
func (p *producers) emit(producer, number, qos, size int) (used bool) {
	mark := verify.Mark{Producer: producer, Number: number}
	id, status, err := p.rig.Device.Emit("vend", qos, struct {
		verify.Mark
		Pad string `json:"pad"`
	}{mark, strings.Repeat("x", size)})
	switch {
	case err == nil:
		p.rig.Judge.Accept(source, id, mark)
		p.accepted.Add(1)
		return true
	case status == 0 && isRefused(err):
		return false // nobody listened
	}
	p.unknown.Add(1)
	return true
}
