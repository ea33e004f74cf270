package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"fieldagent/agent/mqtt"
)

const (
	inboundCount = 256     // messages that wait for the disk
	inboundBytes = 1 << 20 // of their payloads
)

// Numbers of subscriptions. They are kept in the broker's session, so they never change.
const (
	numberCmd    = 1
	numberConfig = 2
	numberOutput = 3
)

var levels = map[int]string{numberCmd: "cmd", numberConfig: "config", numberOutput: "output"}

// inbound takes messages from the broker off the connection's hands. Each is confirmed only when what it asks for is on disk; one that could not be
// stored is not confirmed, the connection is closed, and the broker sends it again.
type inbound struct {
	root   string
	log    *slog.Logger
	routes map[string]func(ctx context.Context, rest string, m mqtt.Message) error // by first level below the root

	outside func(ctx context.Context, m mqtt.Message) (ok bool, err error) // for topics that are not below the root; may be nil
	fail    func(error)                                                    // closes the connection

	turn beat // runs while a message is handled

	stray uint64 // messages that nobody asked for; used by run only

	mu    sync.Mutex
	list  []mqtt.Message
	bytes int
	lost  string // topic of the first message that had no room, and is still with the broker
	wake  chan struct{}

	dropped int // since there was room
}

func newInbound(root string, log *slog.Logger, fail func(error)) *inbound {
	return &inbound{root: root, log: log, fail: fail, routes: map[string]func(context.Context, string, mqtt.Message) error{}, wake: make(chan struct{}, 1)}
}

// message is called by the connection and must not block.
func (in *inbound) message(m mqtt.Message) {
	in.mu.Lock()
	if in.lost != "" && m.QoS > 0 {
		in.mu.Unlock()
		return // order must hold: the broker sends this one again too
	}
	if len(in.list) >= inboundCount || in.bytes+len(m.Payload) > inboundBytes && len(in.list) > 0 {
		if m.QoS > 0 {
			in.lost = m.Topic
		}
		in.dropped++
		news := in.dropped == 1
		in.mu.Unlock()
		if news {
			in.log.Error("more messages than can be stored: some are not taken; those above QoS 0 will be asked for again", "topic", m.Topic)
		}
		return
	}
	m.Payload = bytes.Clone(m.Payload)
	in.list = append(in.list, m)
	in.bytes += len(m.Payload)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// run handles messages in order until ctx ends.
func (in *inbound) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.wake:
		}
		for ctx.Err() == nil {
			in.turn.now()
			m, lost, ok := in.next()
			if lost != "" {
				in.fail(fmt.Errorf("a message on %s had no room: the connection is closed, so that the broker sends it again", lost))
			}
			if !ok {
				break
			}
			if err := in.route(ctx, m); err != nil {
				in.drop()
				in.log.Error("a message could not be stored: it is not confirmed, and the connection is closed", "topic", m.Topic, "err", err)
				in.fail(err)
				break
			}
			m.Ack()
		}
		in.turn.stop()
	}
}

// next returns the next message, or says that there is none and which one had no room before.
func (in *inbound) next() (m mqtt.Message, lost string, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.list) == 0 {
		lost = in.lost
		in.list, in.lost, in.dropped = nil, "", 0
		return mqtt.Message{}, lost, false
	}
	m = in.list[0]
	in.list = in.list[1:]
	in.bytes -= len(m.Payload)
	return m, "", true
}

// drop forgets what waits: none of it is confirmed, and order must hold.
func (in *inbound) drop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.list, in.bytes, in.lost = nil, 0, ""
}

func (in *inbound) route(ctx context.Context, m mqtt.Message) error {
	path, below := strings.CutPrefix(m.Topic, in.root+"/")
	level, rest, _ := strings.Cut(path, "/")
	if want := levels[m.Subscription]; want != "" && (!below || want != level) { // the broker itself says what it is for
		in.astray("message on a topic that its subscription does not cover", "topic", m.Topic, "subscription", want)
		return nil
	}
	if handle := in.routes[level]; below && handle != nil {
		return handle(ctx, rest, m)
	}
	if !below && in.outside != nil {
		if ok, err := in.outside(ctx, m); ok || err != nil {
			return err
		}
	}
	in.astray("message on a topic that was not asked for", "topic", m.Topic)
	return nil
}

// astray reports messages that nobody asked for, ever more seldom.
func (in *inbound) astray(what string, args ...any) {
	if in.stray++; in.stray&(in.stray-1) == 0 {
		in.log.Warn(what, append(args, "so_far", in.stray)...)
	}
}
