package campaign

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/proxy"
	"fieldagent/integration/verify"
	"fieldagent/integration/wire"
)

// A position is one packet of a handshake, what happens to it, and what happens then.
type position struct {
	qos  int
	dir  proxy.Direction
	kind byte
	do   proxy.Action
	then string // kill, cut or lose
}

func (p position) String() string {
	return fmt.Sprintf("QoS %d, %s %s, then %s", p.qos, p.do, wire.Name(p.kind), p.then)
}

// positions are all packets of the handshakes of QoS 1 and 2, with everything that can happen to them.
func positions(then ...string) (all []position) {
	for _, packet := range []position{
		{qos: 1, dir: proxy.ToBroker, kind: wire.PUBLISH}, {qos: 1, dir: proxy.ToAgent, kind: wire.PUBACK},
		{qos: 2, dir: proxy.ToBroker, kind: wire.PUBLISH}, {qos: 2, dir: proxy.ToAgent, kind: wire.PUBREC},
		{qos: 2, dir: proxy.ToBroker, kind: wire.PUBREL}, {qos: 2, dir: proxy.ToAgent, kind: wire.PUBCOMP},
	} {
		for _, packet.do = range []proxy.Action{proxy.Drop, proxy.Repeat, proxy.Delay, proxy.Forget} {
			for _, packet.then = range then {
				all = append(all, packet)
			}
		}
	}
	return all
}

// at brings about one position while a handful of events is on its way, and returns when all of them have come. number is the last event's, and counts on.
func (r *Rig) at(p position, rnd *rand.Rand, number *int) error {
	if !r.Device.Running() {
		if err := r.Device.Start(""); err != nil {
			return err
		}
		if err := r.Device.Await(30 * time.Second); err != nil {
			return err
		}
	}
	events := 1 + rnd.IntN(12)
	struck := make(chan struct{})
	hold := 20 * time.Millisecond
	wait := time.Duration(rnd.Int64N(int64(30 * time.Millisecond)))
	if p.do == proxy.Delay {
		hold = time.Duration(rnd.Int64N(int64(200 * time.Millisecond)))
		wait = time.Duration(rnd.Int64N(int64(250 * time.Millisecond)))
	}
	r.Proxy.Set(proxy.Rule{Dir: p.dir, Kind: p.kind, Nth: 1 + rnd.IntN(events), Do: p.do, Hold: hold, Then: func() { close(struck) }})
	for range events {
		*number++
		mark := verify.Mark{Producer: 1, Number: *number}
		id, _, err := r.Device.Emit("vend", p.qos, mark)
		if err != nil {
			return err
		}
		r.Judge.Accept(source, id, mark)
	}
	select {
	case <-struck:
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%d events, and the position never came", events)
	}
	time.Sleep(wait)
	switch p.then {
	case "kill":
		r.Device.Kill()
		if err := r.Device.Start(""); err != nil {
			return err
		}
	case "cut":
		r.Proxy.Cut()
	case "lose":
		r.Proxy.Refuse(true)
		if err := broker.Forget(r.Broker2.Addr(), deviceID); err != nil {
			return err
		}
	}
	return r.settled(time.Minute)
}

// settled waits until everything accepted has come and the outbox is empty.
func (r *Rig) settled(limit time.Duration) error {
	r.Proxy.Set()
	r.Proxy.Refuse(false)
	began := time.Now()
	for ; ; time.Sleep(2 * time.Millisecond) {
		missing := r.Judge.Missing()
		depth, err := r.depth()
		switch {
		case err == nil && depth == 0 && missing == 0:
			return nil
		case err == nil && depth == 0 && time.Since(began) > r.Grace && r.Judge.Quiet() > r.Grace:
			return fmt.Errorf("%w: the outbox is empty, nothing has come for %v, %d accepted events never did", errNeverCame, r.Grace, missing)
		case time.Since(began) > limit:
			return fmt.Errorf("not settled within %v: %d accepted events have not come; %d in the outbox (%v)", limit, missing, depth, err)
		}
	}
}

// errNeverCame leaves it to the logs who is to blame.
var errNeverCame = errors.New("not all has come")
