package agent

import (
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"fieldagent/queue"
	"fieldagent/sensors"
)

// readings sends what sensors say. A reading is live: while there is no connection only the newest of each sensor is kept, in memory, so
// that a fresh one goes out with the connection; older ones are dropped and counted.
type readings struct {
	live  func(topic string, payload []byte, retain bool) error
	state func(topic string, payload []byte) // retained
	keep  func(sensor string, payload []byte) error
	now   func() queue.Stamp
	seen  func(sensor string, values []sensors.Value) // may be nil

	sent, dropped, kept atomic.Uint64

	mu   sync.Mutex
	last map[string]*lastReading
}

type lastReading struct {
	every   time.Duration
	keep    bool // through the outbox
	payload []byte
	at      time.Time
	waiting bool // not sent yet
	state   string
}

// configure takes the sensors that there are; those that went are returned.
func (r *readings) configure(cfg []sensors.Config) (gone []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := map[string]*lastReading{}
	for _, c := range cfg {
		l := r.last[c.Name]
		if l == nil {
			l = &lastReading{}
		}
		l.every, l.keep = c.Every, c.Offline == "keep"
		next[c.Name] = l
	}
	for name, l := range r.last {
		if next[name] == nil {
			gone = append(gone, name)
			if l.waiting {
				r.dropped.Add(1)
			}
		}
	}
	r.last = next
	return gone
}

// report takes one reading, or the failure of one. It is called by the sensors' loops.
func (r *readings) report(x sensors.Reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.last[x.Sensor]
	if l == nil {
		return // removed in the meantime
	}
	state := "ok"
	if x.Err != nil || x.State == sensors.StateFailed {
		state = "failed"
	}
	if state != l.state {
		l.state = state
		r.state("sensor/"+x.Sensor+"/status", []byte(state))
	}
	if x.Err != nil || len(x.Values) == 0 {
		return
	}
	if r.seen != nil {
		r.seen(x.Sensor, x.Values)
	}
	if l.waiting {
		l.waiting = false
		r.dropped.Add(1)
	}
	l.payload = appendReading(make([]byte, 0, 64+len(x.Values)*40), r.now(), x.Values)
	l.at = time.Now()
	switch {
	case !l.keep:
		l.waiting = true
		r.send(x.Sensor, l)
	case r.keep(x.Sensor, l.payload) == nil:
		r.kept.Add(1)
	default:
		r.dropped.Add(1)
	}
}

// send tries to send a waiting reading. The caller holds mu.
func (r *readings) send(sensor string, l *lastReading) {
	if r.live("sensor/"+sensor, l.payload, false) == nil {
		l.waiting = false
		r.sent.Add(1)
	}
}

// connected sends what is still fresh of what could not be sent.
func (r *readings) connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, l := range r.last {
		switch {
		case !l.waiting:
		case time.Since(l.at) > max(l.every, time.Second):
			l.waiting = false
			r.dropped.Add(1)
		default:
			r.send(name, l)
		}
	}
}

// newest returns the newest reading of a sensor, as published.
func (r *readings) newest(sensor string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.last[sensor]; l != nil {
		return l.payload
	}
	return nil
}

// appendTime begins a reading.
func appendTime(b []byte, at queue.Stamp) []byte {
	b = append(b, `{"time":"`...)
	b = at.Wall.UTC().AppendFormat(b, timeFormat)
	b = append(b, '"')
	if at.Clock != queue.ClockSynced {
		b = append(b, `,"clock":"`...)
		b = append(b, at.Clock.String()...)
		b = append(b, '"')
	}
	return b
}

// appendReading writes {"time":…,"temperature_celsius":21.53}; "clock" is there when the time is not certain.
func appendReading(b []byte, at queue.Stamp, values []sensors.Value) []byte {
	b = appendTime(b, at)
	for _, v := range values {
		b = append(b, `,`...)
		b = appendText(b, v.Name)
		b = append(b, ':')
		switch {
		case v.Exact != "":
			b = append(b, v.Exact...)
		case v.Text != "":
			b = appendText(b, v.Text)
		case math.IsNaN(v.Number) || math.IsInf(v.Number, 0):
			b = append(b, "null"...)
		default:
			b = strconv.AppendFloat(b, v.Number, 'f', v.Precision, 64)
		}
	}
	return append(b, '}')
}
