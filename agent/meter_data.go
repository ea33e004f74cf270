package agent

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"fieldagent/sensors"
)

func meterType(cfg sensors.MeterConfig) string {
	if cfg.Event.Type == "" {
		return "meter"
	}
	return cfg.Event.Type
}

// check returns what is wrong with a meter; the caller holds mu.
func (m *meter) check(now time.Duration) error {
	if m.err != nil {
		return m.err
	}
	if m.count == nil {
		return nil
	}
	if f := m.count.Fault(now, m.started); f != "" {
		return errors.New(f)
	}
	return nil
}

// alarm notes a change of the fault, and returns what is to be sent of it, not too often; the caller holds mu.
func (s *meters) alarm(m *meter, fault error, now time.Duration) map[string]any {
	text := ""
	if fault != nil {
		text = fault.Error()
	}
	before := m.fault
	m.fault = text
	if text == "" || before != "" || m.alarmAt > 0 && now-m.alarmAt < alarmEvery {
		return nil
	}
	m.alarmAt = now
	s.a.log.Error("meter", "meter", m.name, "err", text)
	return map[string]any{"alarm": "meter", "meter": m.name, "fault": text}
}

// values are the total, in pulses and in units, and the rate; the caller holds mu.
func (m *meter) values(now time.Duration) []sensors.Value {
	t, rate := m.count.Total(), m.count.Rate(now)
	v := []sensors.Value{{Name: "total_pulses", Exact: strconv.FormatUint(t.Pulses, 10)}}
	if m.cfg.Unit != "" {
		v = append(v, sensors.Value{Name: "total_" + m.cfg.Unit, Exact: sensors.FormatUnits(t.Pulses, m.cfg.PulsesPerUnit)})
	}
	return append(v, m.cfg.Rate(rate))
}

// meterData is the data of a billing record.
func meterData(cfg sensors.MeterConfig, t sensors.Total, since time.Time, pulses uint64) []byte {
	b := appendText([]byte(`{"meter":`), cfg.Name)
	b = append(b, `,"total_pulses":`...)
	b = strconv.AppendUint(b, t.Pulses, 10)
	if cfg.Unit != "" {
		b = appendText(append(b, ','), "total_"+cfg.Unit)
		b = append(append(b, ':'), sensors.FormatUnits(t.Pulses, cfg.PulsesPerUnit)...)
	}
	b = append(b, `,"since":"`...)
	b = append(append(b, formatTime(since)...), `","pulses":`...)
	b = strconv.AppendUint(b, pulses, 10)
	if t.Missed > 0 { // read late, and counted all the same
		b = append(b, `,"missed_edges":`...)
		b = strconv.AppendUint(b, t.Missed, 10)
	}
	return append(b, '}')
}

// status returns all meters in the order of cfg.
func (s *meters) status(cfg []sensors.MeterConfig) []MeterStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.a.mono()
	out := []MeterStatus{}
	for _, c := range cfg {
		x := MeterStatus{LineStatus: LineStatus{Name: c.Name, Line: c.Line}, Unit: c.Unit}
		if m := s.all[c.Name]; m != nil {
			x.set(m.held, false, m.check(now))
			x.State, x.Polled = "", m.polled
			if m.count != nil {
				t := m.count.Total()
				x.Pulses, x.Since, x.Unsaved, x.Missed, x.Exchanges = t.Pulses, nil, m.count.Unsaved(), t.Missed, t.Exchanges
				if c.Unit != "" {
					x.Total = json.RawMessage(sensors.FormatUnits(t.Pulses, c.PulsesPerUnit))
				}
				x.Period = t.Pulses - min(t.Pulses, t.Reported)
			}
		}
		out = append(out, x)
	}
	return out
}

// now returns a meter's reading, as published.
func (s *meters) now(name string) ([]sensors.Value, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.all[name]
	if m == nil || m.count == nil {
		return nil, false
	}
	return m.values(s.a.mono()), true
}
