package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fieldagent/agent/config"
	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// lonely is an agent without a broker's address, on a store whose commits stop while hold is set.
func lonely(t *testing.T, hold *atomic.Pointer[chan struct{}]) (*Agent, func()) {
	t.Helper()
	opt := Options{Drivers: fake(warm), Clock: NewClock(nil), Sources: []config.Source{{Name: "fieldagent.yaml", Data: []byte("device: {id: pump-7}\n")}}}
	if err := config.Load(&opt.Config, ConfigOptions(opt.Drivers), opt.Sources...); err != nil {
		t.Fatal(err)
	}
	qo := opt.Config.Outbox.QueueOptions()
	qo.Now = opt.Clock.Now
	qo.Crash = func(point string) {
		if c := hold.Load(); c != nil && point == "before commit" {
			<-*c
		}
	}
	q, err := queue.Open(t.TempDir(), qo)
	if err != nil {
		t.Fatal(err)
	}
	opt.Queue = q
	a, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return a, func() {
		cancel()
		if err := errors.Join(<-done, q.Close()); err != nil {
			t.Error(err)
		}
	}
}

// A store whose disk does not answer must not feed the watchdog; one that waits for work must.
func TestHungStoreIsNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Pointer[chan struct{}]
		a, stop := lonely(t, &hold)
		<-time.After(10 * time.Minute) // of the bubble
		if err := a.Alive(); err != nil {
			t.Fatalf("an idle agent: %v", err)
		}
		gate := make(chan struct{})
		hold.Store(&gate)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Emit(ctx, Event{Type: "test"}); !errors.Is(err, queue.ErrUnknown) {
			t.Errorf("emit while the disk hangs: %v", err)
		}
		<-time.After(stallAfter / 2)
		if err := a.Alive(); err != nil {
			t.Errorf("too early: %v", err)
		}
		<-time.After(stallAfter)
		if err := a.Alive(); err == nil || !strings.Contains(err.Error(), "disk") {
			t.Errorf("a hung disk: %v", err)
		}
		hold.Store(nil)
		close(gate)
		synctest.Wait()
		if err := a.Alive(); err != nil {
			t.Errorf("the disk answers again: %v", err)
		}
		stop()
	})
}

// A command that never ends must not be taken for life, nor a message that waits for work for death.
func TestHungInboundIsNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Pointer[chan struct{}]
		a, stop := lonely(t, &hold)
		gate := make(chan struct{})
		a.inbound.routes["hang"] = func(context.Context, string, mqtt.Message) error { <-gate; return nil }
		a.inbound.message(mqtt.Message{Topic: "fieldagent/pump-7/hang/x", Ack: func() {}})
		<-time.After(stallAfter / 2)
		if err := a.Alive(); err != nil {
			t.Errorf("too early: %v", err)
		}
		<-time.After(stallAfter)
		if err := a.Alive(); err == nil || !strings.Contains(err.Error(), "inbound") {
			t.Errorf("a hung message: %v", err)
		}
		close(gate)
		<-time.After(10 * time.Minute)
		if err := a.Alive(); err != nil {
			t.Errorf("it has ended: %v", err)
		}
		stop()
	})
}

// Without a broker's address events are stored, and the status says what to do.
func TestNoAddressYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Pointer[chan struct{}]
		a, stop := lonely(t, &hold)
		if _, err := a.Emit(t.Context(), Event{Type: "test"}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		s := a.Status()
		if s.Outbox.Depth != 1 || s.Broker.Connected || !strings.Contains(s.Broker.Error, "mqtt.servers") {
			t.Errorf("status %+v %+v", s.Outbox, s.Broker)
		}
		stop()
	})
}
