package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

const (
	readRows      = 64        // rows read from the store at once
	readBytes     = 256 << 10 //
	flightBytes   = 512 << 10 // in flight; the connection's buffer holds twice that
	knownRows     = 16384     // after a restart: rows above the mark that the last run may have sent, all it could in a second
	noticeID      = 1023      // packet id of retained messages at QoS 1; below mqtt.FirstID, above what subscriptions reach
	downgradeHold = time.Hour // how long QoS 2 rows are not even tried at a broker that answered PUBACK
	turnEvery     = 10 * time.Second
	storeEvery    = time.Second // between tries while the disk refuses
)

// errStore closes a connection when the store cannot commit: nothing may be sent that depends on it.
var errStore = errors.New("connection closed: the store cannot take the broker's confirmation")

// session is what the engine needs of a connection; mqtt.Session has it, and so has the model broker of the tests.
type session interface {
	Present() bool
	Server() string
	Key() string
	Limits() mqtt.Limits
	Acks() <-chan []mqtt.Ack
	Send(mqtt.Publish) error
	Release(id uint16) error
	Flush() error
	Err() error // why it ended
}

// delivery carries rows from the store to the broker, exactly once where the broker plays along. It lives as long as the agent; serve runs once per connection.
type delivery struct {
	queue  *queue.Queue
	clock  *Clock
	log    *slog.Logger
	source string // of events, and root of their topics
	turn   *beat

	sentThrough uint64 // newest row that this run sent in the broker's session
	session     string // that session
	tries       map[uint64]try
	escape      escape
	failing     map[uint64]int       // retried dead letters whose connection closed
	noQoS2      map[string]time.Time // servers that answered PUBACK to QoS 2
	mute        string               // why the broker refused the last notice
	changed     chan struct{}        // something besides rows is to be sent

	failover failover

	marks sync.WaitGroup // marks on their way to disk

	mu        sync.Mutex
	window    int
	downgrade bool
	dress     *dresser
	holding   bool // events wait for the broker that may have delivered them
	notice    *notice
	held      string
	limited   string // what the broker cannot do for QoS 2 events, and what becomes of them
	limitedAt string // that broker
	inFlight  int

	told func() // limited has changed; nil tells nobody

	sent, repeated, acked, ambiguous, handed atomic.Uint64
}

type try struct {
	first, last queue.Stamp
	times       int
}

func newDelivery(q *queue.Queue, clock *Clock, source string, log *slog.Logger) *delivery {
	return &delivery{queue: q, clock: clock, log: log, source: source, turn: &beat{}, tries: map[uint64]try{}, failing: map[uint64]int{}, noQoS2: map[string]time.Time{},
		changed: make(chan struct{}, 1), window: 16}
}

// configure takes settings that hold from the next connection on.
func (d *delivery) configure(window int, downgrade, holding bool, dress *dresser) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.window, d.downgrade, d.holding, d.dress = window, downgrade, holding, dress
}

// poke wakes the loop: a dead letter is to be retried, or there is a notice.
func (d *delivery) poke() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *delivery) hold(why string) {
	d.mu.Lock()
	news := why != d.held
	d.held = why
	d.mu.Unlock()
	switch {
	case news && why != "":
		d.log.Error("events are held back", "why", why)
	case news:
		d.log.Info("events are sent again")
	}
}

// limit notes what a broker cannot do for QoS 2 events; "" takes it back.
func (d *delivery) limit(server, what string) {
	d.mu.Lock()
	news := what != d.limited
	d.limited, d.limitedAt = what, server
	d.mu.Unlock()
	if !news {
		return
	}
	if what != "" {
		d.log.Warn("the broker does less than QoS 2", "server", server, "what", what)
	}
	if d.told != nil {
		d.told()
	}
}

// shortage returns what limit noted.
func (d *delivery) shortage() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limited
}

// status returns why events are held, and how many are in flight.
func (d *delivery) status() (held string, inFlight int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held, d.inFlight
}

// serve delivers over one connection until ctx ends, which is when the connection does. entered is called when the session is on disk, or will not be for now.
func (d *delivery) serve(ctx context.Context, s session, entered func()) error {
	d.turn.start()
	defer d.turn.stop()
	d.marks.Wait() // a mark of the last connection must not land in a new session
	d.mu.Lock()
	size, downgrade, dress, holding := d.window, d.downgrade, d.dress, d.holding
	another := d.limitedAt != s.Server()
	d.mu.Unlock()
	if another {
		d.limit(s.Server(), "")
	}
	limits := s.Limits()
	if limits.Window > 0 {
		size = min(size, limits.Window)
	}
	c := &link{delivery: d, s: s, limits: limits, size: size, more: true, allow: downgrade, dress: dress, ready: make(chan struct{}, 1), noticeDue: true}
	if why := d.waits(s, holding); why != "" {
		d.hold(why)
		c.w, c.stuck = newWindow(d.queue.Position(), size, flightBytes, 0, downgrade), true
		entered()
		return c.run(ctx)
	}
	key, pos, err := d.enter(ctx, s)
	if err != nil || ctx.Err() != nil {
		return err
	}
	entered()
	if d.escape.condemn {
		if err := d.condemn(ctx); err != nil {
			return err
		}
	}
	horizon := d.begin(key, s.Present(), pos)
	c.w, c.last = newWindow(pos, size, flightBytes, horizon, downgrade), pos.Acked
	err = c.run(ctx)
	d.mu.Lock()
	d.inFlight = 0
	d.mu.Unlock()
	if d.ended(c) && err == nil {
		err = fmt.Errorf("%w: the broker closed the connection %d times right after event %016d was sent alone", mqtt.ErrForget, closeAlone, c.w.first())
	}
	return err
}

// enter makes the broker's session known to the store. While the disk refuses, events are held back and the connection stays: readings go on.
func (d *delivery) enter(ctx context.Context, s session) (key string, pos queue.Position, err error) {
	held := false
	for {
		d.turn.now()
		var ambiguous int
		var handed uint64
		if err = d.queue.Ready(); err == nil {
			key = d.key(s)
			var usable bool
			if usable, handed, err = d.change(ctx, key, s.Present()); err == nil && !usable {
				return key, pos, fmt.Errorf("%w: the broker kept a session that this store knows nothing of, or left with events in flight", mqtt.ErrForget)
			}
		}
		if err == nil {
			pos, ambiguous, err = d.queue.Begin(ctx, key, s.Present())
		}
		if err == nil && !s.Present() {
			err = d.queue.ForgetRetryMarks(ctx)
		}
		if ambiguous > 0 {
			d.ambiguous.Add(uint64(ambiguous))
			d.handed.Add(handed)
			d.log.Warn("the broker lost its session: events it may have delivered already are sent again, with their ids", "events", ambiguous, "server", s.Server())
		}
		switch {
		case ctx.Err() != nil:
			return key, pos, nil
		case err == nil:
			if held {
				d.hold("")
			}
			return key, pos, nil
		case errors.Is(err, queue.ErrClosed):
			return key, pos, fmt.Errorf("%w: %w", errStore, err)
		}
		held = true
		d.hold("the state cannot be written; see outbox.error")
		select {
		case <-ctx.Done():
		case <-time.After(storeEvery):
		}
	}
}

// begin returns the newest row that the broker's session may know.
func (d *delivery) begin(key string, present bool, pos queue.Position) uint64 {
	switch {
	case !present:
		d.sentThrough = 0
	case d.session != key: // the first connection of this run
		d.sentThrough = min(pos.Acked+knownRows, pos.Last)
	}
	d.session = key
	return d.sentThrough
}

func (d *delivery) ended(c *link) (forget bool) {
	if r := c.retry; r != nil {
		if !r.progress && time.Since(r.at) < closeSoon {
			d.failing[r.rec.ID.Sequence]++
		}
		return false
	}
	why := c.s.Err()
	e := ending{first: c.w.first(), progress: c.progress, hungUp: why != nil && !errors.Is(why, mqtt.ErrSilent)}
	e.sent = e.first != 0 && e.first == c.firstSeq
	if e.sent {
		e.after = time.Since(c.firstAt)
	}
	return d.escape.ended(e)
}

// condemn makes a dead letter of the row that no connection survives.
func (d *delivery) condemn(ctx context.Context) error {
	seq := d.escape.seq
	reason := fmt.Sprintf("the broker closed the connection %d times right after this event was sent alone", closeAlone)
	if err := d.queue.Bury(ctx, seq, reason); err != nil && !errors.Is(err, queue.ErrNotFound) {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	d.log.Error("event set aside as a dead letter", "sequence", seq, "reason", reason)
	d.escape = escape{}
	return nil
}
