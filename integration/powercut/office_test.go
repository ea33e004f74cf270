package powercut

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"fieldagent/integration/wire"
)

// office is a broker on one address that confirms everything at once and notes what it knows: a row whose PUBREL came has its mark on disk, one that
// it confirmed may be finished there.
type office struct {
	addr string

	mu    sync.Mutex
	note  func(Fact)
	known bool              // it has the device's session
	rows  map[uint16]uint64 // of QoS 2 between PUBLISH and PUBREL, by packet id
	sent  []uint64          // sequences as they were published, the same ones again left out
	freed map[uint64]bool   // sequences whose PUBREL came; those of another life by packet id only
	ids   []uint16          // PUBRELs for which no PUBLISH came here
	wrong []error
}

func newOffice(t *testing.T) *office {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &office{addr: l.Addr().String()}
	o.forget(func(Fact) {}, false)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				o.serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return o
}

// forget begins anew, with or without the device's session.
func (o *office) forget(note func(Fact), known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note, o.known, o.rows, o.sent, o.freed, o.ids, o.wrong = note, known, map[uint16]uint64{}, nil, map[uint64]bool{}, nil, nil
}

func (o *office) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		p, err := wire.Read(r, 1<<20)
		if err != nil {
			return
		}
		answer, err := o.answer(p)
		if err != nil {
			o.mu.Lock()
			o.wrong = append(o.wrong, err)
			o.mu.Unlock()
			return
		}
		if answer != nil {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// answer notes what it promises before it is on its way.
func (o *office) answer(p wire.Packet) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ack := func(kind byte) []byte { return wire.Ack(kind, p.ID()).Raw }
	switch p.Type() {
	case wire.CONNECT:
		present := o.known && !p.CleanSession()
		o.known = !p.CleanSession()
		o.note(Fact{What: "session?", Value: map[bool]uint64{true: 1}[present]})
		return wire.Make(wire.CONNACK, 0, []byte{map[bool]byte{true: 1}[present], 0}).Raw, nil
	case wire.SUBSCRIBE:
		return wire.Make(wire.SUBACK, 0, append(p.Raw[2:4:4], slices.Repeat([]byte{2}, strings.Count(string(p.Raw), "fieldagent/"))...)).Raw, nil
	case wire.PINGREQ:
		return wire.Make(wire.PINGRESP, 0, nil).Raw, nil
	case wire.PUBREL:
		seq, ok := o.rows[p.ID()]
		if !ok {
			o.ids = append(o.ids, p.ID())
			return ack(wire.PUBCOMP), nil
		}
		delete(o.rows, p.ID())
		o.freed[seq] = true
		o.note(Fact{What: "release", Seq: seq})
		o.note(Fact{What: "complete?", Seq: seq})
		return ack(wire.PUBCOMP), nil
	case wire.PUBLISH:
		if p.QoS() == 0 {
			return nil, nil
		}
		if !strings.Contains(p.Topic(), "/event/") {
			return ack(wire.PUBACK), nil
		}
		var e struct{ Sequence string }
		if err := json.Unmarshal(p.Payload(), &e); err != nil {
			return nil, err
		}
		seq, err := strconv.ParseUint(e.Sequence, 10, 64)
		if err != nil {
			return nil, err
		}
		if n := len(o.sent); n == 0 || !slices.Contains(o.sent, seq) {
			o.sent = append(o.sent, seq)
		}
		if p.QoS() == 1 {
			o.note(Fact{What: "complete?", Seq: seq})
			return ack(wire.PUBACK), nil
		}
		if o.freed[seq] {
			return nil, fmt.Errorf("event %d was confirmed and is sent as new", seq)
		}
		o.rows[p.ID()] = seq
		o.note(Fact{What: "release?", Seq: seq})
		return ack(wire.PUBREC), nil
	}
	return nil, nil
}

// took judges what came from an agent that was started on what a cut had left, once it had nothing more to send.
func (o *office) took(m *Model) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := slices.Clone(o.wrong)
	if !slices.IsSorted(o.sent) {
		errs = append(errs, fmt.Errorf("out of order: %v", o.sent))
	}
	for _, seq := range o.sent {
		if seq <= m.release.low {
			errs = append(errs, fmt.Errorf("event %d was confirmed before the cut and is sent as new", seq))
		}
	}
	for token, f := range m.accepted {
		if f.Seq > max(m.ack.high, m.release.high) && !slices.Contains(o.sent, f.Seq) {
			errs = append(errs, fmt.Errorf("%s was accepted as %d and never came", token, f.Seq))
		}
	}
	return errors.Join(errs...)
}
