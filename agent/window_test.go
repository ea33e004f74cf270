package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

func at(acked, released uint64) queue.Position {
	return queue.Position{Acked: acked, Released: released}
}

func row(seq uint64, qos byte) flight { return flight{seq: seq, qos: qos, bytes: 100} }

func TestWindowHandshakes(t *testing.T) {
	w := newWindow(at(10, 10), 16, 1<<20, 0, false)
	if s := w.add(row(11, 2)); s != stepPublish {
		t.Fatalf("fresh row: step %d", s)
	}
	w.add(row(12, 2))
	id := packetID
	for i, c := range []struct {
		ack  mqtt.Ack
		want verdict
		seq  uint64
	}{
		{mqtt.Ack{Kind: mqtt.Pubcomp, ID: id(11)}, ackViolation, 11}, // nothing was released
		{mqtt.Ack{Kind: mqtt.Pubrec, ID: id(12)}, ackProgress, 12},
		{mqtt.Ack{Kind: mqtt.Puback, ID: id(12)}, ackViolation, 12},
		{mqtt.Ack{Kind: mqtt.Pubrec, ID: id(12)}, ackNothing, 12}, // its mark is on the way
		{mqtt.Ack{Kind: mqtt.Pubrec, ID: id(500)}, ackRelease, 0}, // nobody's
		{mqtt.Ack{Kind: mqtt.Puback, ID: id(500)}, ackNothing, 0},
		{mqtt.Ack{Kind: mqtt.Pubcomp, ID: id(500)}, ackNothing, 0},
		{mqtt.Ack{Kind: mqtt.Pubrec, ID: id(9)}, ackRelease, 0}, // finished long ago
	} {
		if v, seq := w.ack(c.ack); v != c.want || seq != c.seq {
			t.Errorf("step %d, %v: verdict %d for row %d, want %d for %d", i, c.ack, v, seq, c.want, c.seq)
		}
	}
	if m := w.markable(); m != 10 {
		t.Fatalf("markable %d before the first row's PUBREC: PUBRELs would go out of order", m)
	}
	w.ack(mqtt.Ack{Kind: mqtt.Pubrec, ID: id(11)})
	if m := w.markable(); m != 12 {
		t.Fatalf("markable %d, want 12", m)
	}
	if ids := w.marked(12, nil); !slices.Equal(ids, []uint16{id(11), id(12)}) {
		t.Fatalf("released %v", ids)
	}
	if v, _ := w.ack(mqtt.Ack{Kind: mqtt.Pubrec, ID: id(11)}); v != ackRelease {
		t.Fatalf("a repeated PUBREC must be answered, verdict %d", v)
	}
	w.ack(mqtt.Ack{Kind: mqtt.Pubcomp, ID: id(12)})
	if done := w.take(); len(done) != 0 {
		t.Fatalf("row 12 left before row 11: %v", done)
	}
	w.ack(mqtt.Ack{Kind: mqtt.Pubcomp, ID: id(11)})
	if done := w.take(); len(done) != 2 || done[1].seq != 12 || w.bytes != 0 || w.first() != 0 {
		t.Fatalf("left: %v, bytes %d", done, w.bytes)
	}
}

func TestWindowRoom(t *testing.T) {
	w := newWindow(at(0, 0), 3, 250, 0, false)
	w.add(row(1, 1))
	for _, c := range []struct {
		why  string
		seq  uint64
		qos  byte
		size int
		want bool
	}{
		{"next", 2, 1, 100, true},
		{"another QoS would overtake", 2, 2, 100, false},
		{"too many bytes", 2, 1, 200, false},
		{"its packet id could meet another's", 1 + mqtt.IDs/2, 1, 1, false},
	} {
		if got := w.room(c.seq, c.qos, c.size); got != c.want {
			t.Errorf("%s: room %v", c.why, got)
		}
	}
	w.add(flight{seq: 2, qos: 1, bytes: 1})
	w.add(flight{seq: 3, qos: 1, bytes: 1})
	if w.room(4, 1, 1) {
		t.Error("a fourth row in a window of three")
	}
	if empty := newWindow(at(0, 0), 3, 250, 0, false); !empty.room(1, 2, 1<<20) {
		t.Error("one row must always go, however large")
	}
}

func TestWindowResume(t *testing.T) {
	w := newWindow(at(4, 7), 16, 1<<20, 9, false)
	var steps []step
	for i, qos := range []byte{1, 2, 2, 2, 2, 2} {
		steps = append(steps, w.add(row(uint64(5+i), qos)))
	}
	if want := []step{stepDone, stepRelease, stepRelease, stepRepeat, stepRepeat, stepPublish}; !slices.Equal(steps, want) {
		t.Fatalf("steps %v, want %v", steps, want)
	}
	early := newWindow(at(4, 4), 2, 1<<20, 9, false)
	early.add(row(5, 2))
	if v, _ := early.ack(mqtt.Ack{Kind: mqtt.Pubrec, ID: packetID(8)}); v != ackNothing {
		t.Fatalf("PUBREC of a row that is still to be sent again: verdict %d; a PUBREL now would deliver it twice", v)
	}
	if v, _ := early.ack(mqtt.Ack{Kind: mqtt.Pubrec, ID: packetID(10)}); v != ackRelease {
		t.Fatalf("PUBREC beyond all that was sent: verdict %d", v)
	}
}

func TestWindowDowngradeAndRefusal(t *testing.T) {
	w := newWindow(at(0, 0), 16, 1<<20, 0, false)
	w.add(row(1, 2))
	if v, _ := w.ack(mqtt.Ack{Kind: mqtt.Puback, ID: packetID(1)}); v != ackDowngrade || len(w.take()) != 0 {
		t.Fatalf("PUBACK finished a QoS 2 row, verdict %d", v)
	}
	allowed := newWindow(at(0, 0), 16, 1<<20, 0, true)
	allowed.add(row(1, 2))
	if v, _ := allowed.ack(mqtt.Ack{Kind: mqtt.Puback, ID: packetID(1)}); v != ackDowngrade || len(allowed.take()) != 1 {
		t.Fatalf("allow_downgrade: verdict %d", v)
	}
	for _, kind := range []mqtt.AckKind{mqtt.Puback, mqtt.Pubrec} {
		qos := byte(1)
		if kind == mqtt.Pubrec {
			qos = 2
		}
		r := newWindow(at(0, 0), 16, 1<<20, 0, false)
		r.add(row(1, qos))
		r.add(row(2, qos))
		if v, seq := r.ack(mqtt.Ack{Kind: kind, ID: packetID(1), Reason: 0x97}); v != ackRefused || seq != 1 {
			t.Fatalf("%v with a reason: verdict %d", kind, v)
		}
		r.ack(mqtt.Ack{Kind: kind, ID: packetID(2)})
		if r.markable() != 0 || len(r.take()) != 0 {
			t.Fatal("rows went past a refused one that is not buried yet")
		}
		r.finish(1)
		if qos == 2 && r.markable() != 2 || qos == 1 && len(r.take()) != 2 {
			t.Fatal("rows do not go on after a buried one")
		}
	}
}

func TestPacketIDs(t *testing.T) {
	for _, seq := range []uint64{1, 64511, 64512, 64513, 1 << 40} {
		if id := packetID(seq); id < mqtt.FirstID {
			t.Errorf("packetID(%d) = %d, which is paho's", seq, id)
		}
		for _, d := range []uint64{0, 1, 15, 30000} {
			if got := nextWithID(seq, packetID(seq+d)); got != seq+d {
				t.Errorf("nextWithID(%d, id of %d) = %d", seq, seq+d, got)
			}
		}
	}
}

// world is the engine with everything around it in memory: a store whose commits can be lost, a line that can be cut, a broker as the standard wants it.
type world struct {
	rnd *rand.Rand
	t   *testing.T

	// the store: durable, and what waits for a commit
	rows            []byte // QoS of row i+1
	acked, released uint64
	pendingAck      uint64
	pendingMark     uint64
	session         bool // the durable mark belongs to the broker's session

	// the engine
	w    *window
	last uint64
	sent uint64 // newest row sent in this session, as the running process knows
	asks uint64

	up, down []packet // the line, towards the broker and back

	// the broker
	present   bool
	incoming  map[uint16]uint64 // QoS 2 rows that wait for PUBREL
	delivered []uint64

	hasty bool // control: PUBREL without waiting for the mark
	lost  bool // the broker lost its session at least once
}

type packet struct {
	kind byte // p, 1 PUBACK, r PUBREC, l PUBREL, c PUBCOMP
	id   uint16
	seq  uint64
	qos  byte
}

func (w *world) commit() {
	w.acked = max(w.acked, w.pendingAck)
	if w.pendingMark > w.released {
		w.released = w.pendingMark
		if w.w != nil && !w.hasty {
			for _, id := range w.w.marked(w.released, nil) {
				w.up = append(w.up, packet{kind: 'l', id: id})
			}
		}
	}
	w.released = max(w.released, w.acked)
	w.pendingMark = 0
}

func (w *world) cut() {
	w.up, w.down, w.w = nil, nil, nil // what was on the line is gone
}

// crash ends the process: what was not committed is forgotten.
func (w *world) crash() {
	w.cut()
	w.pendingAck, w.pendingMark, w.sent = 0, 0, 0
}

func (w *world) connect() {
	w.commit() // serve waits for marks on their way, and Begin is a commit
	acked := w.acked
	if !w.present || !w.session {
		w.released, w.sent = acked, 0
	} else if w.sent == 0 {
		w.sent = uint64(len(w.rows))
	}
	w.session, w.present = true, true
	w.last, w.asks = acked, 0
	w.w = newWindow(queue.Position{Acked: acked, Released: w.released}, 1+w.rnd.IntN(6), 1<<20, w.sent, false)
}

func (w *world) fill() {
	for w.last < uint64(len(w.rows)) && w.w.room(w.last+1, w.rows[w.last], 1) {
		w.last++
		qos := w.rows[w.last-1]
		switch w.w.add(flight{seq: w.last, qos: qos, bytes: 1}) {
		case stepRelease:
			w.up = append(w.up, packet{kind: 'l', id: packetID(w.last)})
		case stepPublish, stepRepeat:
			w.up = append(w.up, packet{'p', packetID(w.last), w.last, qos})
			w.sent = max(w.sent, w.last)
		}
		if w.rnd.IntN(3) == 0 {
			return
		}
	}
}

// broker handles one packet.
func (w *world) broker() {
	p := w.up[0]
	w.up = w.up[1:]
	switch {
	case p.kind == 'p' && p.qos == 1:
		w.delivered = append(w.delivered, p.seq)
		w.down = append(w.down, packet{kind: '1', id: p.id})
	case p.kind == 'p':
		if have, ok := w.incoming[p.id]; ok && have != p.seq {
			w.t.Fatalf("row %d came under the packet id of row %d, which is not released", p.seq, have)
		}
		w.incoming[p.id] = p.seq
		w.down = append(w.down, packet{kind: 'r', id: p.id})
	case p.kind == 'l':
		if seq, ok := w.incoming[p.id]; ok {
			w.delivered = append(w.delivered, seq)
			delete(w.incoming, p.id)
		}
		w.down = append(w.down, packet{kind: 'c', id: p.id})
	}
}

// engine handles one packet.
func (w *world) engine() {
	p := w.down[0]
	w.down = w.down[1:]
	kind := map[byte]mqtt.AckKind{'1': mqtt.Puback, 'r': mqtt.Pubrec, 'c': mqtt.Pubcomp}[p.kind]
	switch v, seq := w.w.ack(mqtt.Ack{Kind: kind, ID: p.id}); v {
	case ackRelease:
		w.up = append(w.up, packet{kind: 'l', id: p.id})
	case ackViolation, ackDowngrade, ackRefused:
		w.t.Fatalf("verdict %d for a faithful broker's %v of row %d", v, kind, seq)
	}
	if m := w.w.markable(); m > max(w.asks, w.w.released) {
		w.asks, w.pendingMark = m, max(w.pendingMark, m)
		if w.hasty {
			for _, id := range w.w.marked(m, nil) {
				w.up = append(w.up, packet{kind: 'l', id: id})
			}
		}
	}
	w.settle()
}

func (w *world) settle() {
	if done := w.w.take(); len(done) > 0 {
		w.pendingAck = done[len(done)-1].seq
	}
}

// step does one thing that can happen; trouble says whether lines are cut, processes killed and sessions lost.
func (w *world) step(trouble bool) {
	switch n := w.rnd.IntN(100); {
	case n < 10 && len(w.rows) < 60:
		for range 1 + w.rnd.IntN(4) {
			w.rows = append(w.rows, byte(1+w.rnd.IntN(2)))
		}
	case n < 11 && trouble:
		w.crash()
	case n < 13 && trouble:
		w.cut()
	case n < 14 && trouble && w.lost:
		w.cut()
		w.present, w.incoming = false, map[uint16]uint64{}
	case w.w == nil:
		w.connect()
	case n < 35:
		w.fill()
		w.settle()
	case n < 60 && len(w.up) > 0:
		w.broker()
	case n < 85 && len(w.down) > 0:
		w.engine()
	case n >= 92:
		w.commit()
	}
}

func (w *world) finished() bool {
	return max(w.acked, w.pendingAck) == uint64(len(w.rows))
}

// run plays one life and returns what is wrong with what the broker delivered, nil if nothing.
func (w *world) run() error {
	w.incoming = map[uint16]uint64{}
	for range 3000 {
		w.step(true)
	}
	for n := 0; !w.finished(); n++ {
		if n > 200000 {
			return fmt.Errorf("stands still: %d rows, acked %d, window %+v", len(w.rows), w.pendingAck, w.w)
		}
		w.step(false)
	}
	seen := map[uint64]int{}
	var first []uint64
	for _, s := range w.delivered {
		if seen[s]++; seen[s] == 1 {
			first = append(first, s)
		}
	}
	for i, qos := range w.rows {
		n := seen[uint64(i+1)]
		if n == 0 {
			return fmt.Errorf("row %d lost", i+1)
		}
		if n > 1 && qos == 2 && !w.lost {
			return fmt.Errorf("row %d delivered %d times at QoS 2", i+1, n)
		}
	}
	if !w.lost && !slices.IsSorted(first) {
		return fmt.Errorf("out of order: %v", first)
	}
	return nil
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1))}
}

func TestWindowAgainstModelBroker(t *testing.T) {
	for seed := range uint64(600) {
		if err := newWorld(t, seed).run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestWindowWhenTheBrokerForgets(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(t, seed)
		w.lost = true
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestHastyReleaseDoubles is the control: a PUBREL before its mark is on disk must be caught by the model.
func TestHastyReleaseDoubles(t *testing.T) {
	doubled := 0
	for seed := range uint64(200) {
		w := newWorld(t, seed)
		w.hasty = true
		if w.run() != nil {
			doubled++
		}
	}
	if doubled == 0 {
		t.Fatal("200 lives without marks and nothing doubled: this test cannot fail")
	}
}

// quiet is a session whose broker answers nothing by itself.
type quiet struct{ sent []mqtt.Publish }

func (*quiet) Present() bool               { return true }
func (*quiet) Server() string              { return "quiet" }
func (*quiet) Key() string                 { return "quiet" }
func (*quiet) Limits() mqtt.Limits         { return mqtt.Limits{} }
func (*quiet) Acks() <-chan []mqtt.Ack     { return nil }
func (q *quiet) Send(p mqtt.Publish) error { q.sent = append(q.sent, p); return nil }
func (*quiet) Release(uint16) error        { return nil }
func (*quiet) Flush() error                { return nil }
func (*quiet) Err() error                  { return nil }

// TestNoticeInBetween: another report takes the place of the one that a trial waits for, and the broker has it all the same.
func TestNoticeInBetween(t *testing.T) {
	s := &quiet{}
	d := &delivery{changed: make(chan struct{}, 1)}
	c := &link{delivery: d, s: s, noticeDue: true}
	confirmed := 0
	send := func() {
		t.Helper()
		if err := c.sendNotice(); err != nil {
			t.Fatal(err)
		}
	}
	d.announce(&notice{payload: []byte("trial"), answered: func(error) { confirmed++ }})
	d.announce(&notice{payload: []byte("report")})
	send()
	c.noticeAnswered(mqtt.Ack{ID: noticeID, Kind: mqtt.Puback})
	if confirmed != 1 || len(s.sent) != 1 || string(s.sent[0].Payload) != "report" {
		t.Fatalf("confirmed %d times, sent %+v", confirmed, s.sent)
	}
	d.announce(&notice{payload: []byte("another")})
	c.noticeDue = true
	send()
	c.noticeAnswered(mqtt.Ack{ID: noticeID, Kind: mqtt.Puback})
	if confirmed != 1 || len(s.sent) != 2 {
		t.Fatalf("confirmed %d times after another report, sent %+v", confirmed, s.sent)
	}
}
