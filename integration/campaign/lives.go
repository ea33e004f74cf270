package campaign

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"fieldagent/integration/proxy"
	"fieldagent/integration/wire"
)

// points are where the agent can be killed by itself: before and after each durable transition.
var points = []string{"before publish", "after publish", "before mark", "after mark", "before pubrel", "after pubrel", "before complete", "after complete", "before commit", "after commit"}

// Plan says how an agent is hurt.
type Plan struct {
	Seed      uint64
	Faults    int
	Producers int                       // 4 when 0
	Shortest  time.Duration             // life; 20 ms when 0
	Longest   time.Duration             // of a life; 2 s when 0
	Pace      time.Duration             // longest pause of a producer; 15 ms when 0
	Points    []string                  // all when nil
	Deepest   int                       // a fault point strikes at the latest when it is met for the n-th time; 60 when 0
	Whole     bool                      // the broker is left alone
	First     int                       // producers number their events from here on
	Until     func(map[string]int) bool // ends the campaign early, by the faults so far; may be nil
	Report    func(string)              // progress; may be nil
}

// driver carries a plan out.
type driver struct {
	*Rig
	plan   Plan
	rnd    *rand.Rand
	counts map[string]int
	faults int
	broken chan error // a broker on its way down and up
}

// Run carries out a plan and heals everything. An error means that the campaign itself could not go on, or that something never came.
func (r *Rig) Run(p Plan) (counts map[string]int, err error) {
	if p.Producers == 0 {
		p.Producers = 4
	}
	if p.Shortest == 0 {
		p.Shortest = 20 * time.Millisecond
	}
	if p.Longest == 0 {
		p.Longest = 2 * time.Second
	}
	if p.Pace == 0 {
		p.Pace = 15 * time.Millisecond
	}
	if p.Deepest == 0 {
		p.Deepest = 60
	}
	if p.Points == nil {
		p.Points = points
	}
	d := &driver{Rig: r, plan: p, rnd: rand.New(rand.NewPCG(p.Seed, 0xfa)), counts: map[string]int{}}
	r.Device.Kill()
	crowd := r.produce(p)
	next := 500
	for d.faults < p.Faults && (p.Until == nil || !p.Until(d.counts)) {
		if err := d.life(); err != nil {
			crowd.end()
			return d.counts, err
		}
		if d.faults >= next && p.Report != nil {
			next += 500
			p.Report(fmt.Sprintf("%d faults, %d events accepted, %d on their way", d.faults, crowd.accepted.Load(), r.Judge.Missing()))
		}
	}
	crowd.end()
	if err := d.mended(); err != nil {
		return d.counts, err
	}
	return d.counts, r.Heal(3 * time.Minute)
}

func (d *driver) count(fault string) {
	d.counts[fault]++
	d.faults++
}

// life is one life of the agent, from its start to its death, with what happens to its line meanwhile.
func (d *driver) life() error {
	crashAt, point := "", ""
	if d.rnd.IntN(2) == 0 {
		point = d.plan.Points[d.rnd.IntN(len(d.plan.Points))]
		crashAt = fmt.Sprintf("%s:%d", point, 1+int(math.Pow(float64(d.plan.Deepest), d.rnd.Float64())))
	}
	d.Proxy.Set()
	d.Proxy.Refuse(false)
	if err := d.Device.Start(crashAt); err != nil {
		return err
	}
	length := between(d.rnd, d.plan.Shortest, d.plan.Longest)
	if d.rnd.IntN(4) > 0 { // else it is counted from exec, and many die before they are ready
		if err := d.Device.Await(30 * time.Second); err != nil && d.Device.Running() {
			return err
		}
	}
	troubles := make([]time.Duration, d.rnd.IntN(1+int(math.Sqrt(float64(length/(30*time.Millisecond))))))
	for i := range troubles {
		troubles[i] = time.Duration(d.rnd.Int64N(int64(length)))
	}
	slices.Sort(troubles)
	began := time.Now()
	for _, at := range append(troubles, length) {
		select {
		case <-d.Device.Died():
			if point == "" || d.Device.Exit() >= 0 {
				return fmt.Errorf("the agent ended by itself with code %d, see %s", d.Device.Exit(), d.Device.Log())
			}
			d.count("killed " + point)
			d.kills = append(d.kills, time.Now())
			return nil
		case <-time.After(at - time.Since(began)):
		}
		if at < length {
			if err := d.hurt(); err != nil {
				return err
			}
		}
	}
	d.kills = append(d.kills, time.Now())
	d.Device.Kill()
	d.count("killed at random")
	return nil
}

// hurt does something to the line or the broker.
func (d *driver) hurt() error {
	rule := func(do proxy.Action, name string) {
		kinds := map[proxy.Direction][]byte{proxy.ToBroker: {wire.PUBLISH, wire.PUBREL, wire.CONNECT}, proxy.ToAgent: {wire.PUBACK, wire.PUBREC, wire.PUBCOMP, wire.CONNACK}}
		dir := []proxy.Direction{proxy.ToBroker, proxy.ToAgent}[d.rnd.IntN(2)]
		kind := kinds[dir][d.rnd.IntN(len(kinds[dir]))]
		d.Proxy.Set(proxy.Rule{Dir: dir, Kind: kind, Nth: 1 + d.rnd.IntN(10), Do: do})
		d.count(name)
	}
	switch n := d.rnd.IntN(100); {
	case n < 40:
		d.Proxy.Cut()
		d.count("line cut")
	case n < 75:
		rule([]proxy.Action{proxy.CutBefore, proxy.CutAfter}[d.rnd.IntN(2)], "line cut at a packet")
	case n < 83:
		rule([]proxy.Action{proxy.Drop, proxy.Forget, proxy.Freeze}[d.rnd.IntN(3)], "half-open from a packet on")
	case n < 90:
		d.Proxy.Freeze()
		d.count("half-open")
	case n < 95:
		d.Proxy.Refuse(true)
		go func(hold time.Duration) { time.Sleep(hold); d.Proxy.Refuse(false) }(between(d.rnd, 10*time.Millisecond, 300*time.Millisecond))
		d.count("broker unreachable")
	case !d.plan.Whole:
		return d.restart()
	}
	return nil
}

// restart takes the broker down and up again while the campaign goes on.
func (d *driver) restart() error {
	if err := d.mended(); err != nil {
		return err
	}
	d.count("broker restarted")
	d.broken = make(chan error, 1)
	down := between(d.rnd, time.Millisecond, 300*time.Millisecond)
	go func() {
		if err := d.Broker2.Stop(); err != nil {
			d.broken <- err
			return
		}
		time.Sleep(down)
		d.broken <- d.Broker2.Start()
	}()
	return nil
}

// mended waits until the broker is up again.
func (d *driver) mended() error {
	if d.broken == nil {
		return nil
	}
	err := <-d.broken
	d.broken = nil
	return err
}

func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) || strings.Contains(err.Error(), "server closed idle connection")
}
