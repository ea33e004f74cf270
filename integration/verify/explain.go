package verify

import (
	"fmt"
	"os"
	"strings"

	"fieldagent/integration/wire"
)

// Blame says whose fault a doubled or lost event is, by the wire alone.
type Blame struct {
	Event   string
	Culprit string // "agent", "broker", "session lost" or "unknown"
	Why     string
	Story   []string // the lines of both logs that tell of it
}

// history is what the log between agent and broker tells about one event.
type history struct {
	flow      []wire.Line
	published int  // PUBLISHes that reached the broker
	finished  bool // PUBACK or PUBCOMP came from the broker
	released  bool // the agent sent PUBREL
	after     bool // it published again after its PUBREL in the same session, or again without DUP
	live      bool // published at least once
	reset     bool // the broker has lost the session since the last PUBLISH
	forgotten bool // the broker had lost the session between two of its packets
}

// Explain reads the log between an agent and its broker and the consumer's own log and says who is to blame for each of
// the events (ids), which came twice or never.
//
// The broker is to blame for a double when the agent used one packet id, never published again after its PUBREL, and set DUP
// on every repetition (MQTT 3.1.1 section 4.3.3): an exact broker delivers that once. It is to blame for a loss
// when it has confirmed the event. A session that was lost in between excuses both.
func Explain(agentLog, consumerLog string, ids []string) ([]Blame, error) {
	want := map[string]*history{}
	for _, id := range ids {
		want[id] = &history{}
	}
	if err := agentStory(agentLog, want); err != nil {
		return nil, err
	}
	copies, stories, err := consumerStory(consumerLog, want)
	if err != nil {
		return nil, err
	}
	var all []Blame
	for _, id := range ids {
		h := want[id]
		b := Blame{Event: id, Culprit: "unknown"}
		switch n := len(copies[id]); {
		case h.forgotten:
			b.Culprit, b.Why = "session lost", "the broker forgot the agent's session while the event was on its way"
		case n == 0 && h.finished:
			b.Culprit, b.Why = "broker", "it confirmed the event and never delivered it"
		case n == 0 && h.published > 0:
			b.Culprit, b.Why = "agent", "it published the event, was never confirmed, and gave up"
		case n == 0:
			b.Culprit, b.Why = "agent", "it never published the event"
		case n > 1 && h.after:
			b.Culprit, b.Why = "agent", "it published again after its PUBREL, or again without DUP"
		case n > 1:
			b.Culprit, b.Why = "broker", fmt.Sprintf("one packet id and one handshake from the agent, delivered under the ids %v", copies[id])
		default:
			b.Why = "it came once"
		}
		for _, l := range h.flow {
			b.Story = append(b.Story, "agent    "+format(l))
		}
		b.Story = append(b.Story, stories[id]...)
		all = append(all, b)
	}
	return all, nil
}

func agentStory(name string, want map[string]*history) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	current := map[uint16]*history{} // packet id → the wanted event that uses it now
	var live []*history              // wanted events published and not finished
	return wire.Lines(f, func(l wire.Line) {
		reached := l.Note != "swallowed" && l.Note != "drop" && l.Note != "cut-before" && l.Note != "freeze"
		switch {
		case l.Kind == "CONNACK" && strings.HasPrefix(l.Note, "absent"):
			for _, h := range live {
				if !h.finished {
					h.flow = append(h.flow, l)
					h.forgotten = true
				}
				h.reset = true
			}
		case l.Kind == "PUBLISH" && l.Dir == ">" && l.Event != "":
			h := want[l.Event]
			current[l.ID] = h
			if h == nil {
				return
			}
			if h.reset { // confirmed or not: the agent may have had no time to note it
				h.forgotten, h.reset, h.released, h.published = true, false, false, 0
				h.flow = append(h.flow, wire.Line{At: l.At, Conn: l.Conn, Dir: "<", Kind: "CONNACK", Note: "absent"})
			}
			if h.released || h.published > 0 && !l.Dup {
				h.after = true
			}
			if !h.live {
				live, h.live = append(live, h), true
			}
			if reached {
				h.published++
			}
			h.flow = append(h.flow, l)
		case l.ID != 0 && current[l.ID] != nil:
			h := current[l.ID]
			h.flow = append(h.flow, l)
			switch {
			case l.Dir == ">" && l.Kind == "PUBREL":
				h.released = true
			case l.Dir == "<" && (l.Kind == "PUBACK" || l.Kind == "PUBCOMP"):
				h.finished = true
			}
		}
	})
}

func consumerStory(name string, want map[string]*history) (copies map[string][]uint16, stories map[string][]string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	copies, stories = map[string][]uint16{}, map[string][]string{}
	current := map[uint16]string{}
	held := map[uint16]bool{}
	err = wire.Lines(f, func(l wire.Line) {
		if l.Kind == "PUBLISH" && l.Dir == "<" {
			delete(current, l.ID)
			if _, ok := want[l.Event]; ok {
				current[l.ID] = l.Event
				stories[l.Event] = append(stories[l.Event], "consumer "+format(l))
				if l.QoS < 2 || !held[l.ID] || !l.Dup {
					copies[l.Event] = append(copies[l.Event], l.ID)
				}
			}
			held[l.ID] = l.QoS == 2
			return
		}
		if l.Kind == "PUBREL" {
			delete(held, l.ID)
		}
		if id := current[l.ID]; id != "" && l.ID != 0 {
			stories[id] = append(stories[id], "consumer "+format(l))
		}
	})
	return copies, stories, err
}

func format(l wire.Line) string {
	s := fmt.Sprintf("%s connection %d %s %s id=%d", l.At.Format("15:04:05.000000"), l.Conn, l.Dir, l.Kind, l.ID)
	if l.Dup {
		s += " dup"
	}
	if l.Note != "" {
		s += " (" + l.Note + ")"
	}
	return s
}
