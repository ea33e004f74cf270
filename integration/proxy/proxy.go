// Package proxy stands between an agent and its broker and understands MQTT: it logs every packet in both directions and
// can drop, repeat, delay, cut and freeze at the n-th packet of a kind.
//
// It only does what a network, a power supply or a middlebox can do to a TCP stream, with one exception: Repeat. A packet
// that is dropped takes with it whatever is behind it in its direction, for TCP loses no packet alone.
package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"fieldagent/integration/wire"
)

// Direction of a packet.
type Direction string

// The log writes these.
const (
	ToBroker Direction = ">"
	ToAgent  Direction = "<"
)

// Action is what happens to a packet.
type Action string

// What a rule can do.
const (
	Pass      Action = ""
	Drop      Action = "drop"       // it and all behind it in its direction vanish; the connection stays open
	Repeat    Action = "repeat"     // it arrives twice
	Delay     Action = "delay"      // it and all behind it wait for Rule.Hold
	Forget    Action = "forget"     // it arrives; of what comes back nothing does
	CutBefore Action = "cut-before" // the connection ends, it does not arrive
	CutAfter  Action = "cut-after"  // it arrives, then the connection ends
	Freeze    Action = "freeze"     // it does not arrive, nothing passes either way any more, both ends stay open: half-open
)

// Rule strikes once, at the n-th packet of a kind since it was set.
type Rule struct {
	Dir  Direction
	Kind byte // 0: any
	Nth  int  // from 1
	Do   Action
	Hold time.Duration // for Delay
	Then func()        // called when it strikes, on a goroutine of its own
}

// Proxy is one listener in front of one broker.
type Proxy struct {
	target string
	log    *wire.Log
	l      net.Listener

	mu     sync.Mutex
	rules  []*rule
	lines  map[*line]struct{}
	refuse bool
	client string
	conns  int
	seen   map[Direction]int
}

type rule struct {
	Rule
	count int
}

// Listen takes a free port; Run serves it. The log may be nil.
func Listen(target string, log *wire.Log) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Proxy{target: target, log: log, l: l, lines: map[*line]struct{}{}, seen: map[Direction]int{}}, nil
}

// Addr is where the agent connects.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Run serves until ctx ends, and returns when every connection is closed.
func (p *Proxy) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.Cut()
	stop := context.AfterFunc(ctx, func() { p.l.Close(); p.Refuse(true) })
	defer stop()
	for {
		conn, err := p.l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Go(func() { p.serve(conn.(*net.TCPConn)) })
	}
}

// Set replaces all rules; their counts begin now.
func (p *Proxy) Set(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = p.rules[:0]
	for _, r := range rules {
		p.rules = append(p.rules, &rule{Rule: r})
	}
}

// Refuse makes the proxy hang up on new connections, and on those that are open.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuse = on
	p.mu.Unlock()
	if on {
		p.Cut()
	}
}

// Cut resets every open connection at both ends.
func (p *Proxy) Cut() {
	for _, l := range p.open() {
		l.cut()
	}
}

// Freeze makes every open connection half-open.
func (p *Proxy) Freeze() {
	for _, l := range p.open() {
		l.swallow(ToAgent)
		l.swallow(ToBroker)
	}
}

// Client is the client id of the last CONNECT.
func (p *Proxy) Client() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client
}

// Seen is the number of packets that came from one side.
func (p *Proxy) Seen(d Direction) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[d]
}

func (p *Proxy) open() []*line {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*line
	for l := range p.lines {
		all = append(all, l)
	}
	return all
}

func (p *Proxy) serve(agent *net.TCPConn) {
	b, err := net.DialTimeout("tcp", p.target, 2*time.Second)
	if err != nil {
		agent.Close()
		return
	}
	l := &line{agent: agent, broker: b.(*net.TCPConn), done: make(chan struct{})}
	p.mu.Lock()
	p.conns++
	l.number = p.conns
	refuse := p.refuse
	if !refuse {
		p.lines[l] = struct{}{}
	}
	p.mu.Unlock()
	if refuse {
		l.cut()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(l, ToBroker, l.agent, l.broker) })
	wg.Go(func() { p.pump(l, ToAgent, l.broker, l.agent) })
	wg.Wait()
	l.cut()
	p.mu.Lock()
	delete(p.lines, l)
	p.mu.Unlock()
}

// pump carries packets one way until its source ends. What it has read still arrives, as it would on a network.
func (p *Proxy) pump(l *line, d Direction, from, to *net.TCPConn) {
	in, out := bufio.NewReaderSize(from, 1<<15), bufio.NewWriterSize(to, 1<<15)
	defer func() {
		out.Flush()
		if !l.swallowed(d) {
			to.CloseWrite()
		}
	}()
	for {
		packet, err := wire.Read(in, 1<<22)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				l.cut()
			}
			return
		}
		if l.swallowed(d) {
			p.log.Packet(l.number, string(d), packet, "swallowed")
			continue
		}
		r := p.strike(d, packet)
		p.log.Packet(l.number, string(d), packet, string(r.Do))
		if r.Then != nil {
			go r.Then()
		}
		if !l.apply(r, d, packet, out) {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			l.cut()
			return
		}
	}
}

// strike counts a packet and finds the rule that strikes at it.
func (p *Proxy) strike(d Direction, packet wire.Packet) Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[d]++
	if packet.Type() == wire.CONNECT {
		p.client = packet.ClientID()
	}
	var hit Rule
	for _, r := range p.rules {
		if r.Dir != d || r.Kind != 0 && r.Kind != packet.Type() {
			continue
		}
		if r.count++; r.count == r.Nth {
			hit = r.Rule
		}
	}
	return hit
}
