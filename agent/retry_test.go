package agent

import (
	"strings"
	"testing"
	"time"

	"fieldagent/queue"
)

// TestRetryAtQoS2 sends a dead letter again, over lines that break at each step of its handshake: it comes once, with the id it always had.
func TestRetryAtQoS2(t *testing.T) {
	for name, misbehave := range map[string]func(b *broker){
		"no trouble":        func(*broker) {},
		"cut before PUBREC": func(b *broker) { b.onPublish = func(m message) reaction { return once(&b.onPublish, m) } },
		"cut before PUBCOMP": func(b *broker) {
			b.onRelease = func() reaction { b.onRelease = nil; return closeIt }
		},
		"the session lost after PUBREC": func(b *broker) {
			b.onRelease = func() reaction { b.onRelease, b.sessions = nil, map[string]*brokerSession{}; return closeIt }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := start(t, dir, localFile("127.0.0.1:1", ""), nil)
			bad, good := r.emit(2), r.emit(2)
			if err := r.queue.Bury(t.Context(), bad.Sequence, "for the test"); err != nil {
				t.Fatal(err)
			}
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			b := newBroker(t)
			r = start(t, dir, localFile(b.addr, ""), nil)
			r.acknowledged(good)
			b.mu.Lock()
			misbehave(b)
			b.mu.Unlock()
			if err := r.Retry(t.Context(), bad); err != nil {
				t.Fatal(err)
			}
			b.wait("the retried event", func() bool { return len(b.topic("event/test")) == 2 })
			r.acknowledged(r.emit(2))
			l, err := r.queue.Life(bad)
			for late := time.After(20 * time.Second); err == nil && l.State != queue.StateAcked; l, err = r.queue.Life(bad) {
				select {
				case <-late:
					t.Fatalf("%+v", l)
				case <-time.After(5 * time.Millisecond):
				}
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			events := b.topic("event/test")
			if len(events) != 3 || !strings.Contains(events[1].payload, bad.String()) || events[1].id != packetID(bad.Sequence) {
				t.Errorf("%+v", events)
			}
			if err != nil || !strings.Contains(l.Server, b.addr) {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

// once closes the connection, and behaves from then on.
func once(hook *func(message) reaction, m message) reaction {
	if m.qos != 2 {
		return obey
	}
	*hook = nil
	return closeIt
}
