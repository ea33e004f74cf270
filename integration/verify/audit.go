package verify

import (
	"fmt"
	"os"
	"strings"

	"fieldagent/integration/wire"
)

// Audit is what the log between an agent and its broker shows by itself, whatever the consumer got.
type Audit struct {
	Violations []string // of the rules below, each with its place
	Published  int      // PUBLISH packets above QoS 0
	Repeated   int      // of these, with DUP
	InFlight   int      // most events between PUBLISH and last acknowledgement on one connection
	Lost       int      // connections on which the broker had no session although there had been one
	Clean      int      // connections that threw away a session that knew events
	Late       int      // packets that came out of a line after the next connection had begun: nobody hears them
}

// told is what the log has told about one event in the broker's present session.
type told struct {
	sequence                      string
	qos                           byte
	published, received, released bool
	finished                      bool
	publishedOn, releasedOn       int // connection of the last one
}

// AuditLog checks every packet of an agent against what exact delivery asks of it (MQTT 3.1.1 sections 4.3 and 4.4):
//
//   - an event is not published again after its PUBREL, nor without DUP, nor twice on one connection;
//   - PUBREL follows PUBREC;
//   - PUBLISHes go in order of sequence on every connection, and so do the first PUBLISH and the first PUBREL of each event over all of them;
//   - an event is not published while one of another QoS before it is not finished, since a broker keeps the order of equals only;
//   - a packet id belongs to one event until that is finished.
//
// Packets that a slow line lets through after the next connection was accepted are counted, not judged: they were sent before it.
func AuditLog(name string) (Audit, error) {
	var a Audit
	f, err := os.Open(name)
	if err != nil {
		return a, err
	}
	defer f.Close()
	events := map[string]*told{}
	ids := map[uint16]string{}
	published := map[int]string{} // newest sequence by connection
	ever := map[string]bool{}
	newest, released := "", ""                     // first PUBLISHes, first PUBRELs
	unfinished := [3]map[string]bool{1: {}, 2: {}} // sequences by QoS
	flying := map[int]int{}
	clean := map[int]bool{}
	known := false
	bad := func(l wire.Line, rule string, args ...any) {
		a.Violations = append(a.Violations, format(l)+": "+fmt.Sprintf(rule, args...))
	}
	end := func(conn int, id uint16) {
		if e := events[ids[id]]; e != nil {
			if !e.finished && e.publishedOn == conn {
				flying[conn]--
			}
			delete(unfinished[e.qos], e.sequence)
			e.finished = true
		}
	}
	current := 0
	err = wire.Lines(f, func(l wire.Line) {
		if l.Kind == "CONNACK" {
			current = max(current, l.Conn)
		}
		if l.Conn < current { // on its way since before; the broker has closed that connection (MQTT 3.1.1 section 3.1.4-2)
			a.Late++
			return
		}
		switch {
		case l.Kind == "CONNECT":
			clean[l.Conn] = strings.HasPrefix(l.Note, "clean")
		case l.Kind == "CONNACK" && strings.HasPrefix(l.Note, "absent"):
			switch {
			case clean[l.Conn] && len(ever) > 0: // before the first event it costs nothing
				a.Clean++
			case clean[l.Conn]:
			case known:
				a.Lost++
			}
			known = !clean[l.Conn]
			clear(ids)
			clear(events)
			released, unfinished = "", [3]map[string]bool{1: {}, 2: {}}
		case l.Kind == "PUBLISH" && l.Dir == ">" && l.QoS > 0 && l.Event != "":
			a.Published++
			if l.Dup {
				a.Repeated++
			}
			sequence := l.Event[strings.IndexByte(l.Event, '-')+1:]
			if other := events[ids[l.ID]]; ids[l.ID] != l.Event && other != nil && !other.finished {
				bad(l, "packet id of event %s, which is not finished", ids[l.ID])
			}
			ids[l.ID] = l.Event
			e := events[l.Event]
			if e == nil {
				e = &told{sequence: sequence}
				events[l.Event] = e
			}
			switch {
			case e.released:
				bad(l, "event %s was released on connection %d", l.Event, e.releasedOn)
			case e.publishedOn == l.Conn:
				bad(l, "event %s was published on this connection already", l.Event)
			case e.published && !l.Dup:
				bad(l, "event %s was published on connection %d, and now again without DUP", l.Event, e.publishedOn)
			}
			if sequence < published[l.Conn] {
				bad(l, "event %s after %s", l.Event, published[l.Conn])
			}
			if !ever[l.Event] && sequence < newest {
				bad(l, "event %s for the first time after %s", l.Event, newest)
			}
			for other := range unfinished[3-l.QoS] {
				if other < sequence {
					bad(l, "event %s at QoS %d while %s at QoS %d is not finished", l.Event, l.QoS, other, 3-l.QoS)
					break
				}
			}
			ever[l.Event], newest = true, max(newest, sequence)
			published[l.Conn] = sequence
			unfinished[l.QoS][sequence] = true
			e.published, e.publishedOn, e.qos, e.finished = true, l.Conn, l.QoS, false
			flying[l.Conn]++
			a.InFlight = max(a.InFlight, flying[l.Conn])
		case l.Kind == "PUBREC" && l.Dir == "<":
			if e := events[ids[l.ID]]; e != nil {
				e.received = true
			}
		case l.Kind == "PUBREL" && l.Dir == ">":
			e := events[ids[l.ID]]
			if e == nil {
				return // answer to a PUBREC that nobody waited for
			}
			if !e.received {
				bad(l, "event %s was released without PUBREC", ids[l.ID])
			}
			if !e.released && e.sequence < released {
				bad(l, "event %s released after %s", ids[l.ID], released)
			}
			released = max(released, e.sequence)
			e.released, e.releasedOn = true, l.Conn
		case (l.Kind == "PUBACK" || l.Kind == "PUBCOMP") && l.Dir == "<":
			end(l.Conn, l.ID)
		}
	})
	return a, err
}

// String is the report's line.
func (a Audit) String() string {
	return fmt.Sprintf("wire: %d PUBLISH, %d of them repeated · at most %d in flight · %d against the rules · sessions lost by the broker %d, thrown away %d",
		a.Published, a.Repeated, a.InFlight, len(a.Violations), a.Lost, a.Clean)
}
