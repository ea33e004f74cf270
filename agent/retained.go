package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"fieldagent/queue"
)

// retained is the device's state in retained topics: sent when it changes and all of it again on each connect, so it needs no outbox.
type retained struct {
	live func(topic string, payload []byte, retain bool) error

	mu     sync.Mutex
	topics map[string][]byte // below the root; empty: to be removed at the broker
}

// keep changes a topic; it is sent by connected.
func (r *retained) keep(topic string, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.topics == nil {
		r.topics = map[string][]byte{}
	}
	r.topics[topic] = slices.Clone(payload)
}

// set changes a topic and sends it if there is a connection.
func (r *retained) set(topic string, payload []byte) {
	r.keep(topic, payload)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live(topic, payload, true) == nil && len(payload) == 0 {
		delete(r.topics, topic)
	}
}

// update is set for a topic that has changed.
func (r *retained) update(topic string, payload []byte) {
	r.mu.Lock()
	same := bytes.Equal(r.topics[topic], payload)
	r.mu.Unlock()
	if !same {
		r.set(topic, payload)
	}
}

// leaving lists the topics that the broker has not been told to forget yet.
func (r *retained) leaving() (topics []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t, payload := range r.topics {
		if len(payload) == 0 {
			topics = append(topics, t)
		}
	}
	return topics
}

// remove makes the broker forget a topic.
func (r *retained) remove(topic string) { r.set(topic, nil) }

// connected sends all topics.
func (r *retained) connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.topics))
	for t := range r.topics {
		names = append(names, t)
	}
	slices.Sort(names)
	for _, t := range names {
		if r.live(t, r.topics[t], true) == nil && len(r.topics[t]) == 0 {
			delete(r.topics, t)
		}
	}
}

const topicsKey = "retained" // of the state topics that the broker may hold

// stateTopics are the retained topics that a configuration has.
func (c Config) stateTopics() (topics []string) {
	for _, name := range publishers(c) {
		topics = append(topics, "sensor/"+name+"/status")
	}
	for _, in := range c.Inputs {
		topics = append(topics, "input/"+in.Name)
	}
	for _, out := range c.Outputs {
		topics = append(topics, "output/"+out.Name)
	}
	return topics
}

// loadTopics marks what went away while the agent was off, to be removed with the next connection.
func (a *Agent) loadTopics(cfg Config) {
	var kept []string
	err := a.queue.View(func(tx *queue.Tx) error {
		b, err := tx.Get(queue.Misc, topicsKey)
		if b != nil && err == nil {
			err = json.Unmarshal(b, &kept)
		}
		return err
	})
	if err != nil {
		a.log.Warn("what the broker holds of this device is not known: what went away stays there", "err", err)
		return
	}
	a.topicsKept = kept
	now := cfg.stateTopics()
	for _, t := range kept {
		if !slices.Contains(now, t) {
			a.retained.keep(t, nil)
		}
	}
}

// keepTopics keeps which topics the broker may hold, if that is news.
func (a *Agent) keepTopics(ctx context.Context) {
	a.topicsMu.Lock()
	defer a.topicsMu.Unlock()
	now := append(a.config().stateTopics(), a.retained.leaving()...)
	slices.Sort(now)
	now = slices.Compact(now)
	if slices.Equal(now, a.topicsKept) {
		return
	}
	err := a.queue.Update(ctx, func(tx *queue.Tx) error { return tx.Put(queue.Misc, topicsKey, mustJSON(now)) })
	if err == nil {
		a.topicsKept = now
	} else if ctx.Err() == nil {
		a.log.Warn("what the broker holds of this device is not kept: what goes away while the agent is off will stay there", "err", err)
	}
}
