package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
	"fieldagent/sensors"
)

const (
	sensorPatience = 1200 * time.Millisecond // for sensors that are being stopped
	clientPatience = 1500 * time.Millisecond // for offline and DISCONNECT
	clockKey       = "clock"
	endedKey       = "ended"          // why the last run ended, when it had time to say so
	clockEvery     = 10 * time.Minute // how old the kept time may get while events are stored anyway
	subscribeIn    = 30 * time.Second
	helloIn        = 5 * time.Second // for the subscriptions, before the device says that it is there
	enterIn        = 5 * time.Second // for the session to be noted on disk before anything is subscribed in it
)

// parts are what runs and can be replaced.
type parts struct {
	ctx     context.Context
	sensors *part
	outputs *part
	meters  *part
	client  *part
}

// Run runs the agent until ctx ends: then it says offline, finishes what is in hand and returns nil, within two seconds. ErrRestart is
// returned when a command asked for it. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a.mu.Lock()
	a.stop = stop
	a.mu.Unlock()

	// The store ends last: everything else may still have to be written.
	store, storeStop := context.WithCancel(context.WithoutCancel(ctx))
	defer storeStop()
	ended := make(chan error, 1)
	go func() {
		err := a.queue.Run(store)
		ended <- err
		stop(errors.Join(errors.New("the store ended"), err))
	}()

	if err := a.remote.load(ctx); err != nil {
		a.log.Error("the remote configuration cannot be read: the local file is in force", "err", err)
	}
	if err := a.discovery.load(); err != nil {
		a.log.Error("what Home Assistant was told cannot be read", "err", err)
	}
	if err := a.commands.load(); err != nil {
		a.log.Error("the commands that wait cannot be read", "err", err)
	}
	if err := a.first(ctx); err != nil {
		storeStop()
		return errors.Join(err, <-ended)
	}
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context){a.inbound.run, a.commands.run, a.remote.run, a.discovery.run, a.minutes, a.forgetEnd} {
		loops.Go(func() { loop(ctx) })
	}
	a.remote.report()
	if a.opt.Ready != nil {
		a.opt.Ready()
	}
	<-ctx.Done()

	why := context.Cause(ctx)
	a.log.Info("ending", "why", why)
	a.applying.Lock()
	defer a.applying.Unlock()
	var client sync.WaitGroup
	client.Go(a.stopLines)
	client.Go(func() { a.parts.client.stop(clientPatience) })
	a.parts.sensors.stop(sensorPatience)
	client.Wait()
	loops.Wait()
	end := endStop
	if errors.Is(why, ErrRestart) {
		end = endRestart
	}
	a.keepEnd(end)
	storeStop()
	err := <-ended
	if errors.Is(why, ErrRestart) {
		return errors.Join(ErrRestart, err)
	}
	if !errors.Is(why, context.Canceled) && err == nil {
		err = why
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// startClock gives the clock its lower bound: the newest time on disk.
func (a *Agent) startClock() {
	var kept queue.Stamp
	var ended []byte
	err := a.queue.View(func(tx *queue.Tx) error {
		b, err := tx.Get(queue.Misc, clockKey)
		if b != nil && err == nil {
			err = json.Unmarshal(b, &kept)
		}
		ended, _ = tx.Get(queue.Misc, endedKey)
		ended = bytes.Clone(ended)
		return err
	})
	if err != nil {
		a.log.Error("the last known time cannot be read", "err", err)
	}
	if a.opt.Reason == "" {
		a.opt.Reason = startReason(string(ended), kept.Boot, a.clock.Now().Boot)
	}
	a.endKept = ended != nil || kept.Boot == 0
	a.clock.Raise(kept)
	if r, err := a.queue.Record(queue.ID{Store: a.queue.Store(), Sequence: a.queue.Position().Last}); err == nil {
		a.clock.Raise(r.Accepted)
	}
	a.started = a.clock.Now()
	if a.clock.Behind() {
		a.log.Warn("the clock is not set: times are lower bounds until it is set", "time", formatTime(a.started.Wall))
	}
}

// clockDue returns the time to keep with the next commit, nil when that was done lately.
func (a *Agent) clockDue() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.clockKept.IsZero() && time.Since(a.clockKept) < clockEvery {
		return nil
	}
	return mustJSON(a.clock.Now())
}

func (a *Agent) clockIsKept() {
	a.mu.Lock()
	a.clockKept = time.Now()
	a.mu.Unlock()
}

// keepEnd keeps for the next start when and why this run ended.
func (a *Agent) keepEnd(why string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := a.queue.Update(ctx, func(tx *queue.Tx) error {
		return errors.Join(tx.Put(queue.Misc, clockKey, mustJSON(a.clock.Now())), tx.Put(queue.Misc, endedKey, []byte(why)))
	})
	if err != nil {
		a.log.Error("the time is not kept for the next start", "err", err)
	}
}

// forgetEnd makes the next start take this run's end for an unforeseen one, unless it says otherwise.
func (a *Agent) forgetEnd(ctx context.Context) {
	if !a.endKept {
		return
	}
	err := a.queue.Update(ctx, func(tx *queue.Tx) error {
		return errors.Join(tx.Put(queue.Misc, clockKey, mustJSON(a.clock.Now())), tx.Delete(queue.Misc, endedKey))
	})
	if err != nil && ctx.Err() == nil {
		a.log.Error("the start is not noted", "err", err)
	}
}

// Why a run ended, as it is kept.
const (
	endStop    = "stop"
	endRestart = "restart"
)

// startReason says why the agent was started: how the last run ended, in which boot, 0 when there was none, and in which boot it is now.
func startReason(ended string, before, now uint32) string {
	switch {
	case before == 0:
		return "first start"
	case ended == endRestart:
		return "command restart"
	case ended != "" && before == now:
		return "stopped and started"
	case ended != "":
		return "the board was restarted"
	case before == now:
		return "crashed or killed"
	}
	return "power cut, or the board was reset"
}

// runSensors starts set in place of the sensors that run.
func (a *Agent) runSensors(set *sensors.Set) {
	if !a.parts.sensors.stop(sensorPatience) {
		a.log.Warn("a sensor hangs; its reading is left behind")
	}
	a.set.Store(set)
	a.parts.sensors = startPart(a.parts.ctx, func(ctx context.Context) { _ = set.Run(ctx, a.readings.report) })
}

// runClient starts client in place of the connection that runs.
func (a *Agent) runClient(client *mqtt.Client, cfg Config) {
	if !a.parts.client.stop(clientPatience) {
		a.log.Warn("the old connection hangs; it is left behind")
	}
	a.subscribed.Store(false)
	faultPoint("config client stopped")
	dress := newDresser(cfg)
	a.dress.Store(dress)
	a.delivery.configure(cfg.MQTT.Window, cfg.MQTT.AllowDowngrade, cfg.MQTT.Failover.Events == "hold", dress)
	a.client.Store(client)
	a.parts.client = startPart(a.parts.ctx, func(ctx context.Context) {
		_ = client.Run(ctx, func(sctx context.Context, s *mqtt.Session) error { return a.serve(ctx, sctx, s, cfg) })
	})
}

// serve is one connection's life: say hello, subscribe, deliver, say goodbye. ctx ends when the connection is to be ended, sctx when it has ended.
func (a *Agent) serve(ctx, sctx context.Context, s *mqtt.Session, cfg Config) error {
	a.connects.Add(1)
	a.session.Store(s)
	defer func() {
		a.session.Store(nil)
		a.aliasSaved.Add(s.AliasSaved())
	}()
	a.subscribed.Store(false)
	defer a.subscribed.Store(false)
	var greeting sync.Once
	hello := func() { greeting.Do(func() { _ = a.live("status", []byte("online"), true) }) }
	if s.Present() { // the broker holds what the device obeys
		hello()
	}
	late := time.AfterFunc(helloIn, hello)
	defer late.Stop()
	a.readings.connected()
	a.retained.keep("info", a.info())
	a.retained.connected()
	a.discovery.poke(true)
	a.askHealth()
	var wg sync.WaitGroup
	wg.Go(func() { a.keepTopics(sctx) })
	entered := make(chan struct{})
	wg.Go(func() {
		if !s.Present() { // a session that the store does not know yet is thrown away after a crash, with the commands that wait in it: none may wait before
			select {
			case <-entered:
			case <-time.After(enterIn): // the disk refuses; its commands could not be stored anyway
			case <-sctx.Done():
				return
			}
		}
		a.subscribe(sctx, s, cfg, hello)
	})
	err := a.delivery.serve(sctx, s, sync.OnceFunc(func() { close(entered) }))
	greeting.Do(func() {})
	if ctx.Err() != nil { // our own wish: the broker will not send the will
		_ = a.live("status", []byte(cfg.goodbye()), true)
		err = nil
	} else if err != nil {
		s.Close(err)
	}
	wg.Wait()
	return err
}

// subscribe asks for what the device obeys. A refusal is reported and tried again while the connection lasts. tried is called after each attempt.
func (a *Agent) subscribe(ctx context.Context, s *mqtt.Session, cfg Config, tried func()) {
	subs := a.subscriptions(cfg)
	said := ""
	for wait := time.Second; ; wait = min(wait*2, time.Minute) {
		tctx, cancel := context.WithTimeout(ctx, subscribeIn)
		err := s.Subscribe(tctx, subs...)
		cancel()
		if ctx.Err() != nil || s.Err() != nil { // the end of the connection is told elsewhere
			return
		}
		if err == nil {
			a.subscribed.Store(true)
			tried()
			a.subscribeExtras(ctx, s, cfg)
			return
		}
		if err.Error() != said { // else it is the same line again each minute
			said = err.Error()
			a.log.Error("the device cannot be commanded as it should", "err", err)
		}
		a.setFault("subscribe", err)
		tried()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// extras are what the device can live without.
func (a *Agent) extras(cfg Config) []mqtt.Subscription {
	subs := a.groupSubscriptions(cfg)
	if cfg.HomeAssistant.Discovery {
		subs = append(subs, mqtt.Subscription{Filter: cfg.HomeAssistant.birth()})
	}
	return subs
}

// subscribeExtras asks for extras. A refusal is logged, and asked for again on the next connection only.
func (a *Agent) subscribeExtras(ctx context.Context, s *mqtt.Session, cfg Config) {
	subs := a.extras(cfg)
	if len(subs) == 0 {
		return
	}
	tctx, cancel := context.WithTimeout(ctx, subscribeIn)
	defer cancel()
	if err := s.Subscribe(tctx, subs...); err != nil && ctx.Err() == nil {
		a.log.Warn("not all topics of groups can be listened to", "err", err, "remedy", "allow them in the broker's access list, or set config.groups: false")
	}
}

// askExtras subscribes to extras on the connection that is up, if there is one; retained messages come again.
func (a *Agent) askExtras(cfg Config) {
	s := a.session.Load()
	if s == nil {
		return
	}
	go a.subscribeExtras(a.parts.ctx, s, cfg)
}

func (a *Agent) askGroups() { a.askExtras(a.config()) }

func (a *Agent) subscriptions(cfg Config) []mqtt.Subscription {
	subs := []mqtt.Subscription{{Filter: a.root + "/cmd/+", QoS: 2, Number: numberCmd, Flag: true}}
	if cfg.Remote.Remote && a.hasSources() {
		subs = append(subs, mqtt.Subscription{Filter: a.root + "/config/set", QoS: 1, Number: numberConfig})
	}
	if len(cfg.Outputs) > 0 {
		subs = append(subs, mqtt.Subscription{Filter: a.root + "/output/+/set", QoS: 2, Number: numberOutput, Flag: true})
	}
	return subs
}

// minutes does what is due now and then.
func (a *Agent) minutes(ctx context.Context) {
	a.turn.start()
	defer a.turn.stop()
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.turn.now()
			if time.Since(last) < time.Minute-turnEvery/2 {
				continue
			}
		case <-a.healthDue:
		}
		last = time.Now()
		a.written.today(a.clock)
		_ = a.live("health", a.health(), false)
	}
}

func (a *Agent) askHealth() {
	select {
	case a.healthDue <- struct{}{}:
	default:
	}
}
