package agent

import (
	"encoding/json"
	"time"

	"fieldagent/agent/config"
	"fieldagent/queue"
	"fieldagent/sensors"
)

// What a state file says while no agent runs. Nothing here writes.

// KeptConfig returns the configuration that the next start puts in force: the confirmed remote document over the local file. misfit says why it is the
// local file alone although there is such a document.
func KeptConfig(q *queue.Queue, local Config, sources []config.Source, drivers []sensors.Driver) (cfg Config, state ConfigState, misfit, err error) {
	var s remoteState
	err = q.View(func(tx *queue.Tx) error {
		body, err := tx.Get(queue.Config, remoteKey)
		if body != nil && err == nil {
			err = json.Unmarshal(body, &s)
		}
		return err
	})
	var all []byte
	for _, source := range sources {
		all = append(all, source.Data...)
	}
	state = ConfigState{Applied: AppliedConfig{Hash: hashOf(all), Source: "local"}, LastAttempt: s.Last}
	if err != nil || s.Good == nil || len(s.Good.Body) == 0 || !local.Remote.Remote {
		return local, state, nil, err
	}
	if cfg, misfit = layered(local, sources, drivers, s.Good.Body); misfit == nil {
		_, misfit = sensors.New(cfg.Sensors, drivers, sensors.Options{}) // opens nothing
	}
	if misfit != nil {
		return local, state, misfit, nil
	}
	state.Applied = AppliedConfig{Hash: s.Good.Hash, Revision: s.Good.Revision, Source: "remote", Group: s.Good.From, At: s.Good.At}
	return cfg, state, nil, nil
}

// KeptOutbox is what is known of the outbox while no agent runs.
type KeptOutbox struct {
	Depth     int      `json:"depth"`
	OldestAge *float64 `json:"oldest_age_seconds,omitempty"`
	Bytes     int64    `json:"bytes"`
	Limit     int64    `json:"limit_bytes,omitempty"`
	Full      *bool    `json:"full,omitempty"`
	Dead      int      `json:"dead"`
}

// KeptEvents returns the state of the outbox.
func KeptEvents(q *queue.Queue) KeptOutbox {
	s := q.Stats()
	k := KeptOutbox{Depth: s.Depth, Bytes: s.Bytes, Limit: s.Limit, Full: &s.Full, Dead: s.Dead}
	if !s.Oldest.Wall.IsZero() {
		clock := NewClock(nil)
		now := clock.Now()
		seconds := age(now, clock.correctAt(s.Oldest, now)).Seconds()
		k.OldestAge = &seconds
	}
	return k
}

// KeptTime returns the newest time on disk; zero when there is none.
func KeptTime(q *queue.Queue) (time.Time, error) {
	var kept queue.Stamp
	err := q.View(func(tx *queue.Tx) error {
		b, err := tx.Get(queue.Misc, clockKey)
		if b != nil && err == nil {
			err = json.Unmarshal(b, &kept)
		}
		return err
	})
	if r, err := q.Record(queue.ID{Store: q.Store(), Sequence: q.Position().Last}); err == nil && r.Accepted.Wall.After(kept.Wall) {
		kept = r.Accepted
	}
	return kept.Wall, err
}
