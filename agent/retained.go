package agent

import (
	"slices"
	"sync"
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
