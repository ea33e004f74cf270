// Package agent is the device's behaviour: what is sent, what is obeyed, in which order.
//
// Four things happen in it, each read from top to bottom in its own files:
//
//   - a reading: sensors → readings.go → mqtt, QoS 0, or dropped and counted;
//   - an event: Emit → queue (on disk) → deliver.go, window.go → mqtt → the broker confirms;
//   - a command: mqtt → inbound.go → commands.go: inbox (on disk) → executed once → result in the outbox;
//   - a configuration: mqtt → inbound.go → remote.go: checked whole → tried → kept → reported.
//
// Run (run.go) keeps all of them going, and ends them in order.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/agent/config"
	"fieldagent/agent/mqtt"
	"fieldagent/queue"
	"fieldagent/sensors"
)

// ErrRestart is returned by Run when a command asked for a restart: the process should end, and its supervisor start it again.
var ErrRestart = errors.New("restart asked for by a command")

// ErrNoSensor is returned by Read for a name that is not configured.
var ErrNoSensor = errors.New("no sensor, meter, input or output is called")

// Options are what an agent is put together from.
type Options struct {
	Config  Config          // the local one, as loaded
	Sources []config.Source // the local files behind it, to lay a remote configuration over; nil takes none
	Queue   *queue.Queue    // opened for writing; Run runs it, whoever opened it closes it
	Clock   *Clock          // the one that the queue was opened with; the kernel's when nil
	Drivers []sensors.Driver
	Board   sensors.Board
	Lines   sensors.Lines // GPIO; nil refuses inputs, meters and outputs
	Version string
	Reason  string // why the agent was started, if known; in info
	Log     *slog.Logger
	Secret  func(file string) (string, error)                                 // reads secrets; config.Secret when nil
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error) // for tests
	Ready   func()                                                            // called once when Run has started everything
}

// Agent is one device. Make it with New.
type Agent struct {
	opt   Options
	log   *slog.Logger
	queue *queue.Queue
	clock *Clock
	root  string // <prefix>/<device id>

	delivery *delivery
	readings *readings
	retained *retained
	commands *commands
	remote   *remote
	inbound  *inbound

	discovery *discovery
	inputs    *inputs
	meters    *meters
	outputs   *outputs

	started    queue.Stamp
	topicsMu   sync.Mutex
	topicsKept []string // on disk; see keepTopics
	endKept    bool     // how the last run ended is on disk
	connects   atomic.Uint64
	subscribed atomic.Bool // on the connection that is up
	session    atomic.Pointer[mqtt.Session]
	client     atomic.Pointer[mqtt.Client]
	set        atomic.Pointer[sensors.Set]
	stop       context.CancelCauseFunc
	turn       *beat                // of the minutes' loop
	mono       func() time.Duration // the clock of edges
	healthDue  chan struct{}
	dress      atomic.Pointer[dresser]
	aliasSaved atomic.Int64 // bytes, on connections that have ended
	written    flashCounter
	faults     faults

	applying sync.Mutex // one change of configuration at a time
	parts    parts

	mu        sync.Mutex
	local     Config
	sources   []config.Source
	cfg       Config // in force
	clockKept time.Time
}

// New checks the configuration as far as that goes without a network, and returns an agent that Run starts.
func New(opt Options) (*Agent, error) {
	if opt.Queue == nil {
		return nil, errors.New("agent: no queue")
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Clock == nil {
		opt.Clock = NewClock(nil)
	}
	if opt.Secret == nil {
		opt.Secret = config.Secret
	}
	opt.Board = sensors.Share(opt.Board)
	a := &Agent{opt: opt, log: opt.Log, queue: opt.Queue, clock: opt.Clock, root: opt.Config.Source(), local: opt.Config, cfg: opt.Config, sources: opt.Sources,
		turn: &beat{}, healthDue: make(chan struct{}, 1), mono: sensors.Monotonic}
	a.delivery = newDelivery(a.queue, a.clock, a.root, a.log)
	a.delivery.told = func() { a.retained.set("info", a.info()) }
	a.retained = &retained{live: a.live}
	a.readings = &readings{live: a.live, state: a.retained.set, keep: a.keepReading, now: a.clock.Now}
	a.commands = newCommands(a.queue, a.clock, a.root, a.log)
	a.remote = &remote{a: a, turn: &beat{}, wake: make(chan struct{}, 1)}
	a.inbound = newInbound(a.root, a.log, func(err error) {
		if s := a.session.Load(); s != nil {
			s.Close(err)
		}
	})
	a.commands.device, a.commands.spread = opt.Config.ID(), func() time.Duration { return a.localConfig().Remote.Spread }
	a.inbound.routes["cmd"] = func(ctx context.Context, rest string, m mqtt.Message) error {
		return a.commands.receive(ctx, rest, "", m)
	}
	a.inbound.routes["config"] = func(ctx context.Context, rest string, m mqtt.Message) error { return a.receiveConfig(ctx, rest, "", m) }
	a.inbound.outside = a.receiveOutside
	a.newLines()
	a.inbound.routes["output"] = a.outputs.receive
	a.builtins()
	a.discovery = newDiscovery(a)
	a.readings.seen = a.discovery.seen
	a.startClock() // before anybody can hand in an event
	if err := a.check(opt.Config); err != nil {
		return nil, err
	}
	return a, nil
}

// check puts everything together that a configuration asks for, and throws it away.
func (a *Agent) check(cfg Config) error {
	_, _, err := a.build(cfg)
	return err
}

// build makes what a configuration asks for, without starting it.
func (a *Agent) build(cfg Config) (*sensors.Set, *mqtt.Client, error) {
	var faults []error
	if err := a.supported(cfg); err != nil {
		faults = append(faults, err)
	}
	set, err := sensors.New(cfg.Sensors, a.opt.Drivers, sensors.Options{Board: a.opt.Board, Memory: sensorMemory{a.queue}, Log: a.log})
	if err != nil {
		faults = append(faults, err)
	}
	client, err := mqtt.New(mqtt.Options{Config: cfg.MQTT.Config, ClientID: cfg.ID(), WillTopic: a.root + "/status", Secret: a.opt.Secret, Log: a.log,
		Message: a.inbound.message, Dial: a.opt.Dial, Now: a.wall, Unset: a.clock.unset})
	if err != nil {
		faults = append(faults, err)
	}
	return set, client, errors.Join(faults...)
}

func (a *Agent) wall() time.Time { return a.clock.Now().Wall }

// supported refuses what this build cannot do.
func (a *Agent) supported(cfg Config) error {
	if a.opt.Lines == nil && len(cfg.Inputs)+len(cfg.Meters)+len(cfg.Outputs) > 0 {
		return errors.New("inputs, meters and outputs need GPIO lines, and this agent was started without any")
	}
	return nil
}

// live sends at QoS 0 below the root, if there is a connection.
func (a *Agent) live(topic string, payload []byte, retain bool) error {
	c := a.client.Load()
	if c == nil {
		return mqtt.ErrOffline
	}
	return c.LiveMessage(mqtt.Publish{Topic: a.root + "/" + topic, Payload: payload, Retain: retain, Properties: a.dress.Load().live(topic, payload, retain)})
}

// Event is what a producer hands in.
type Event struct {
	Type       string
	QoS        byte // 1 or 2; 0 is 1
	Data       []byte
	Time       time.Time // when it happened; zero is now
	Properties *queue.Properties
}

// Emit accepts an event: it is on disk when Emit returns nil. Errors are queue.ErrFull, queue.ErrTooLarge, queue.ErrInvalid, queue.ErrUnknown (ctx ended
// first) and queue.ErrDisk. ErrUnknown comes with the id that the event has if it was stored; 0 when it has none yet.
func (a *Agent) Emit(ctx context.Context, e Event) (queue.ID, error) {
	at := a.clock.Now()
	if !e.Time.IsZero() {
		at = a.clock.At(e.Time)
	}
	qos := e.QoS
	if qos == 0 {
		qos = 1
	}
	return a.append(ctx, queue.Event{Type: e.Type, QoS: qos, Data: e.Data, At: at, Properties: e.Properties})
}

// append stores one event. The transaction may still run when ctx has ended: what it learns is handed over in one piece.
func (a *Agent) append(ctx context.Context, e queue.Event) (queue.ID, error) {
	var stored atomic.Pointer[queue.ID]
	err := a.update(ctx, func(tx *queue.Tx) error {
		id, err := tx.Append(e)
		if err == nil {
			stored.Store(&id)
		}
		return err
	})
	if id := stored.Load(); id != nil {
		return *id, err
	}
	return queue.ID{}, err
}

// update is queue.Update, with the time in the same transaction when it was not kept lately.
func (a *Agent) update(ctx context.Context, fn func(*queue.Tx) error) error {
	keep := a.clockDue()
	err := a.queue.Update(ctx, func(tx *queue.Tx) error {
		if err := fn(tx); err != nil || keep == nil {
			return err
		}
		return tx.Put(queue.Misc, clockKey, keep)
	})
	if err == nil && keep != nil {
		a.clockIsKept()
	}
	return err
}

// keepIn is how long a sensor waits for a disk that does not answer.
const keepIn = 10 * time.Second

// keepReading sends a reading through the outbox.
func (a *Agent) keepReading(sensor string, payload []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepIn)
	defer cancel()
	_, err := a.append(ctx, queue.Event{Type: "reading", Topic: "sensor/" + sensor, QoS: 1, Data: payload, At: a.clock.Now()})
	return err
}

// alarm stores an event for people to act on.
func (a *Agent) alarm(ctx context.Context, data any) {
	if _, err := a.append(ctx, queue.Event{Type: "alarm", QoS: 1, Data: mustJSON(data), At: a.clock.Now()}); err != nil {
		a.log.Error("alarm not stored", "alarm", data, "err", err)
	}
}

// Read reads one configured sensor now and returns it as it would be published; of a meter its total, of an input or output its state.
func (a *Agent) Read(ctx context.Context, name string) ([]byte, error) {
	for _, c := range a.config().Sensors {
		set := a.set.Load()
		if c.Name != name || set == nil {
			continue
		}
		values, err := set.Read(ctx, name)
		if err != nil {
			return nil, err
		}
		return appendReading(nil, a.clock.Now(), values), nil
	}
	if b := a.readLine(name); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w %q", ErrNoSensor, name)
}

// Queue returns the agent's store, for looking at single events.
func (a *Agent) Queue() *queue.Queue { return a.queue }

// Retry has a dead letter sent again.
func (a *Agent) Retry(ctx context.Context, id queue.ID) error {
	if err := a.queue.Retry(ctx, id); err != nil {
		return err
	}
	a.delivery.poke()
	return nil
}

// Alive returns nil when every main loop has turned recently; else which one has not. The watchdog asks. A sensor or line that hangs is no reason:
// only that sensor fails, and a restart would not mend it.
func (a *Agent) Alive() error {
	var store error
	if d := a.queue.Stalled(); d > stallAfter {
		store = fmt.Errorf("the disk has not answered the store for %v", d.Round(time.Second))
	}
	var supervisor error
	if set := a.set.Load(); set != nil {
		supervisor = set.Stalled(stallAfter)
	}
	return errors.Join(store, supervisor, a.delivery.turn.stalled("delivery"), a.inbound.turn.stalled("inbound"), a.commands.turn.stalled("command"), a.remote.turn.stalled("configuration"),
		a.meters.writes.stalled("meters' writing"), a.meters.reads.stalled("meters' reading"), a.turn.stalled("minutes"))
}

// end makes Run return err.
func (a *Agent) end(err error) {
	a.mu.Lock()
	stop := a.stop
	a.mu.Unlock()
	if stop != nil {
		stop(err)
	}
}

func (a *Agent) connection() mqtt.State {
	if c := a.client.Load(); c != nil {
		return c.State()
	}
	return mqtt.State{}
}
