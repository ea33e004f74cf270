package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/integration/broker"
	"fieldagent/integration/proxy"
	"fieldagent/integration/verify"
	"fieldagent/queue"
	"fieldagent/sensors/drivers"
)

// Candidate is a broker to judge.
type Candidate struct {
	Name, Broker, MQTT string
	Forgets            bool // it keeps nothing over a restart and little over a cut line: it is judged on a quiet line
	Note               string
	Long               bool // only in the long form: it is heavy, and is installed by `make brokers`
	Most               byte // QoS that it can do; 2 when 0
	Known              Row  // what it is known to do
}

const (
	exactly = "exactly once"
	least   = "at least once"
	kept    = "kept"
	lost    = "lost"
)

// Candidates are all brokers, in the order of the table.
var Candidates = []Candidate{
	candidate("mosquitto", "mosquitto", "3.1.1", least, exactly, kept, ""),
	candidate("mosquitto", "mosquitto", "5", least, exactly, kept, ""),
	candidate("NATS", "nats", "3.1.1", least, exactly, kept, "3.1.1 only"),
	candidate("NATS, cluster of three", "nats-cluster", "3.1.1", least, exactly, kept, "one node taken away and back"),
	rabbit,
	candidate("mochi", "mochi", "5", least, exactly, lost, "for tests: judged without faults, it keeps nothing on disk"),
}

var rabbit = Candidate{Name: "RabbitMQ", Broker: "rabbitmq", MQTT: "3.1.1", Long: true, Most: 1, Note: noteRabbit,
	Known: Row{"RabbitMQ", "3.1.1", least, least, kept, noteRabbit}}

const noteRabbit = "it answers QoS 2 with PUBACK: held back, or sent at QoS 1 with `allow_downgrade`"

func candidate(name, kind, version, one, two, restart, note string) Candidate {
	return Candidate{Name: name, Broker: kind, MQTT: version, Forgets: restart == lost, Note: note, Known: Row{name, version, one, two, restart, note}}
}

const cuts = 5

// Judge sends n events at each QoS through a line that is cut five times, with a restart of the broker in between, and looks at what arrives.
func Judge(ctx context.Context, c Candidate, n int) (r Row, err error) {
	r = Row{Broker: c.Name, MQTT: c.MQTT, Note: c.Note}
	for _, qos := range []byte{1, 2} {
		v, keptSession, err := round(ctx, c, qos, n)
		if err != nil {
			return r, fmt.Errorf("QoS %d: %w", qos, err)
		}
		word := least
		switch {
		case len(v.Lost) > 0:
			word = fmt.Sprintf("loses %d of %d", len(v.Lost), n)
		case len(v.Disorder)+len(v.Gaps)+len(v.Strange) > 0:
			word = fmt.Sprintf("out of order: %v %v %v", v.Disorder, v.Gaps, v.Strange)
		case qos == 2 && c.Most != 1 && len(v.Doubled) == 0:
			word = exactly
		}
		if qos == 1 {
			r.One = word
		} else {
			r.Two = word
		}
		r.Restart = map[bool]string{true: kept, false: lost}[keptSession]
	}
	if c.Most == 1 {
		if err := held(ctx, c); err != nil {
			return r, fmt.Errorf("QoS 2 without allow_downgrade: %w", err)
		}
	}
	return r, nil
}

// held makes sure that a QoS 2 event waits, and that people are told, at a broker that cannot do QoS 2.
func held(ctx context.Context, c Candidate) error {
	dir, err := os.MkdirTemp("", "brokers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := broker.Start(c.Broker, filepath.Join(dir, "broker"), broker.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	d, err := start(ctx, filepath.Join(dir, "state"), b.Addr(), c.MQTT, false)
	if err != nil {
		return err
	}
	id, err := d.Emit(ctx, agent.Event{Type: "judged", QoS: 2, Data: []byte("1")})
	if err == nil {
		err = until(ctx, "a word that events are held", func() bool { return strings.Contains(d.Status().Broker.Held, "cannot do QoS 2") })
	}
	if l, lerr := d.Queue().Life(id); err == nil && (lerr != nil || l.State == queue.StateAcked || l.State == queue.StateDead) {
		err = fmt.Errorf("the event is %v, %w", l.State, lerr)
	}
	return errors.Join(err, d.stop())
}

func round(ctx context.Context, c Candidate, qos byte, n int) (v verify.Verdict, keptSession bool, err error) {
	dir, err := os.MkdirTemp("", "brokers-")
	if err != nil {
		return v, false, err
	}
	defer os.RemoveAll(dir)
	b, err := broker.Start(c.Broker, filepath.Join(dir, "broker"), broker.Options{})
	if err != nil {
		return v, false, err
	}
	defer b.Close()
	p, err := proxy.Listen(b.Addr(), nil)
	if err != nil {
		return v, false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { _ = p.Run(ctx) })
	judge := verify.NewJudge()
	consumer := &verify.Consumer{Addr: b.Addr(), ClientID: "judge", Filter: "fieldagent/+/event/#", Judge: judge, QoS: c.Most}
	refused := make(chan error, 1)
	all.Go(func() { refused <- consumer.Run(ctx) })
	select {
	case <-consumer.Ready():
	case err := <-refused:
		return v, false, err
	case <-time.After(time.Minute):
		return v, false, errors.New("the consumer cannot subscribe")
	}
	d, err := start(ctx, filepath.Join(dir, "state"), p.Addr(), c.MQTT, c.Most == 1)
	if err != nil {
		return v, false, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	for i := range n {
		id, err := d.Emit(ctx, agent.Event{Type: "judged", QoS: qos, Data: fmt.Appendf(nil, `{"p":1,"n":%d}`, i+1)})
		if err != nil {
			return v, false, err
		}
		judge.Accept("fieldagent/judged", id.String(), verify.Mark{Producer: 1, Number: i + 1})
		if i%(n/cuts) == n/cuts-1 && !c.Forgets {
			p.Cut()
		}
		switch {
		case c.Forgets:
		case i == n/2:
			err = b.Stop()
		case i == n/2+n/10:
			err = b.Start()
		}
		if err != nil {
			return v, false, err
		}
	}
	if err := until(ctx, "events at the consumer", func() bool { return d.Status().Outbox.Depth == 0 && judge.Missing() == 0 }); err != nil {
		return judge.Verdict(), false, fmt.Errorf("%w; %v; %s", err, judge.Verdict(), d.logs)
	}
	v = judge.Verdict()
	before := d.Status()
	if err := errors.Join(b.Stop(), b.Start()); err != nil {
		return v, false, err
	}
	p.Cut() // a cluster goes on without one of its nodes
	if err := until(ctx, "a connection after the restart", func() bool { s := d.Status().Broker; return s.Connected && s.Connects > before.Broker.Connects }); err != nil {
		return v, false, err
	}
	return v, bytes.Contains(d.lastConnected(), []byte("session_present=true")), nil
}

func until(ctx context.Context, what string, cond func() bool) error {
	tick, limit := time.NewTicker(10*time.Millisecond), time.After(2*time.Minute)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("in vain: %s", what)
		}
	}
	return nil
}

// device is an agent in this process.
type device struct {
	*agent.Agent
	stop func() error
	logs *lines
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lastConnected is the newest line that says so.
func (d *device) lastConnected() []byte {
	text := []byte(d.logs.String())
	i := bytes.LastIndex(text, []byte("msg=connected"))
	line, _, _ := bytes.Cut(text[max(i, 0):], []byte("\n"))
	return line
}

func start(ctx context.Context, dir, addr, version string, downgrade bool) (*device, error) {
	file := fmt.Sprintf("device: {id: judged}\nmqtt:\n  servers: [\"mqtt://%s\"]\n  version: %q\n  reconnect: {min: 10ms, max: 200ms}\n", addr, version)
	if downgrade {
		file += "  allow_downgrade: true\n"
	}
	l := &lines{}
	opt := agent.Options{Drivers: drivers.All, Version: "judged", Clock: agent.NewClock(nil), Log: slog.New(slog.NewTextHandler(l, nil)), Sources: []config.Source{{Name: "judged.yaml", Data: []byte(file)}}}
	if err := config.Load(&opt.Config, agent.ConfigOptions(opt.Drivers), opt.Sources...); err != nil {
		return nil, err
	}
	qo := opt.Config.Outbox.QueueOptions()
	qo.Now, qo.Log = opt.Clock.Now, opt.Log
	q, err := queue.Open(dir, qo)
	if err != nil {
		return nil, err
	}
	opt.Queue = q
	a, err := agent.New(opt)
	if err != nil {
		return nil, errors.Join(err, q.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return &device{Agent: a, logs: l, stop: func() error { cancel(); return errors.Join(<-done, q.Close()) }}, nil
}
