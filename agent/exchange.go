package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"fieldagent/queue"
	"fieldagent/sensors"
)

// Exchanged is what became of a meter's total when it was set.
type Exchanged struct {
	Meter      string `json:"meter"`
	Before     uint64 `json:"total_pulses_before"`
	Unreported uint64 `json:"unreported_pulses"` // of the old meter, in no record
	After      uint64 `json:"total_pulses"`
	Exchanges  int    `json:"exchanges"`
}

// exchangeCommand is cmd/meter-exchange: {"meter":"energy","total_pulses":0}. The event that tells of it comes before the result.
func (a *Agent) exchangeCommand(ctx context.Context, args json.RawMessage) (any, error) {
	var arg struct {
		Meter  string  `json:"meter"`
		Pulses *uint64 `json:"total_pulses"`
	}
	if err := decodeArgs(args, &arg); err != nil {
		return nil, err
	}
	if arg.Meter == "" {
		return nil, errors.New(`args: "meter" is missing`)
	}
	if arg.Pulses == nil {
		return nil, errors.New(`args: "total_pulses" is missing: what the new meter begins with`)
	}
	return a.ExchangeMeter(ctx, arg.Meter, *arg.Pulses)
}

// ExchangeMeter sets a meter's total, as after the meter was exchanged. The event that says so and the total are one transaction.
func (a *Agent) ExchangeMeter(ctx context.Context, name string, pulses uint64) (Exchanged, error) {
	s := a.meters
	s.writing.Lock()
	defer s.writing.Unlock()
	at := a.clock.Now()
	s.mu.Lock()
	m := s.all[name]
	if m == nil {
		s.mu.Unlock()
		return Exchanged{}, fmt.Errorf("%w: %q", errNoMeter, name)
	}
	fresh := m.count == nil
	if fresh { // its total could not be read: it begins with this one
		m.count = sensors.NewMeter(m.cfg, sensors.Total{Since: at.Wall})
	}
	cfg, from := m.cfg, m.count.Total()
	to := m.count.Exchange(pulses, at.Wall)
	taken := a.mono()
	s.mu.Unlock()
	x := Exchanged{name, from.Pulses, from.Pulses - min(from.Pulses, from.Reported), to.Pulses, to.Exchanges}
	err := a.update(ctx, func(tx *queue.Tx) error {
		if err := tx.Put(queue.Totals, name, mustJSON(to)); err != nil {
			return err
		}
		_, err := tx.Append(queue.Event{Type: "meter-exchange", QoS: byte(max(cfg.Event.QoS, 1)), At: at, Data: mustJSON(x)})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if fresh {
			m.count = nil
		}
		return Exchanged{}, err
	}
	m.count.Commit(from, to, taken)
	m.schedule(a)
	if fresh {
		m.err = nil
		s.watch(a.parts.ctx, m)
	}
	s.poke()
	a.log.Info("meter's total set", "meter", name, "before", x.Before, "after", x.After)
	return x, nil
}
