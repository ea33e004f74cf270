package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"fieldagent/agent/mqtt"
)

// probeSuffix makes the client id of a probe. With the device's own id the broker would end the running connection, if it is the same broker under
// another name; and the probe's clean session would take the device's session along.
const probeSuffix = "-try"

// errProbeRefused is returned by probe when a broker answered but refused the probe: it may know the device by its client id, so only a real trial can tell.
var errProbeRefused = errors.New("refused")

// probe makes the round trip that confirms a configuration, beside the connection that runs: connect, subscribe, publish, acknowledgement.
// Nothing of the running connection is touched. It tries until ctx ends.
func (a *Agent) probe(ctx context.Context, cfg Config) error {
	c := cfg.MQTT.Config
	if c.ClientID == "" {
		c.ClientID = cfg.ID()
	}
	c.ClientID += probeSuffix
	c.CleanSession = true
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := mqtt.New(mqtt.Options{Config: c, NoWill: true, Secret: a.opt.Secret, Log: a.log.With("trial", true), Dial: a.opt.Dial,
		Now: a.wall, Unset: a.clock.unset, Message: func(mqtt.Message) {}, // commands are the running connection's
		Failed: func(err error) {
			if errors.Is(err, mqtt.ErrConnectRefused) {
				cancel(fmt.Errorf("%w: %w", errProbeRefused, err))
			}
		}})
	if err != nil {
		return err
	}
	var last error
	done := false
	_ = client.Run(ctx, func(sctx context.Context, s *mqtt.Session) error {
		last = a.roundTrip(sctx, s, cfg)
		if last == nil {
			done = true
			cancel(nil)
		}
		return last
	})
	switch why := context.Cause(ctx); {
	case done:
		return nil
	case errors.Is(why, errProbeRefused):
		return why
	case last != nil && !errors.Is(last, context.Canceled):
		return last
	}
	if s := client.State(); s.LastError != "" {
		return errors.New(s.LastError)
	}
	return context.Cause(ctx)
}

// roundTrip subscribes to what the device obeys and has the broker acknowledge a message.
func (a *Agent) roundTrip(ctx context.Context, s *mqtt.Session, cfg Config) error {
	if err := s.Subscribe(ctx, a.subscriptions(cfg)...); err != nil {
		return err
	}
	topic := a.root + "/config/state"
	err := s.Send(mqtt.Publish{ID: noticeID, QoS: 1, Retain: true, Topic: topic, Payload: mustJSON(a.remote.view())})
	if err == nil {
		err = s.Flush()
	}
	if err != nil {
		return err
	}
	for {
		select {
		case acks := <-s.Acks():
			for _, ack := range acks {
				if ack.ID == noticeID {
					return refused(s.Server(), topic, ack)
				}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sameBroker says whether two configurations talk to their broker in the same way.
func sameBroker(a, b Config) bool { return reflect.DeepEqual(a.MQTT, b.MQTT) }
