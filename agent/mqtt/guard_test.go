package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// input is a connection that ends when its bytes do.
type input struct {
	net.Conn
	io.Reader
	done chan struct{}
}

func (i *input) Read(p []byte) (int, error)       { return i.Reader.Read(p) }
func (i *input) Close() error                     { close(i.done); return nil }
func (i *input) SetReadDeadline(time.Time) error  { return nil }
func (i *input) SetWriteDeadline(time.Time) error { return nil }

// closed waits for Close, which the guard leaves to another goroutine.
func (i *input) closed() bool {
	select {
	case <-i.done:
		return true
	case <-time.After(10 * time.Second):
		return false
	}
}

// guarded is a guard that has seen CONNACK and now gets raw; subs are the SUBSCRIBEs that wait for an answer.
func guarded(raw []byte, subs map[uint16]int) (*guard, *input) {
	in := &input{Reader: bytes.NewReader(raw), done: make(chan struct{})}
	g := newGuard(in, settings())
	g.connected = true
	g.subs = subs
	g.s = &Session{g: g, acks: make(chan []Ack, 64), subs: map[uint16]chan []byte{}}
	return g, in
}

func publish(qos byte, id uint16, topic, payload string) []byte {
	return appendPublish(nil, Publish{QoS: qos, ID: id, Topic: topic, Payload: []byte(payload)})
}

func TestGuardRefuses(t *testing.T) {
	many := []byte{}
	for id := range uint16(maxHeldCount + 1) {
		many = append(many, publish(2, id+1, "a", "")...)
	}
	heavy := []byte{}
	for id := range uint16(50) {
		heavy = append(heavy, publish(2, id+1, "a", strings.Repeat("x", 100<<10))...)
	}
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"length of five bytes":     {[]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}, "more than four bytes"},
		"256 MB":                   {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "PUBLISH of 268435455 bytes, the limit is 131072"},
		"a large PUBACK":           {[]byte{0x40, 0xff, 0xff, 0x03}, "PUBACK of 65535 bytes, the limit is 1024"},
		"a PUBACK of three bytes":  {[]byte{0x40, 3, 0, 1, 0}, "PUBACK of 3 bytes"},
		"a PUBACK without id":      {[]byte{0x40, 2, 0, 0}, "PUBACK without packet id"},
		"a PUBREC of one byte":     {[]byte{0x50, 1, 0}, "PUBREC of 1 bytes"},
		"a PUBCOMP with flags":     {[]byte{0x72, 2, 0, 1}, "PUBCOMP with flags 2"},
		"a PUBREL without flags":   {[]byte{0x60, 2, 0, 1}, "PUBREL with flags 0"},
		"a PUBREL of four bytes":   {[]byte{0x62, 4, 0, 1, 0, 1}, "PUBREL of 4 bytes"},
		"QoS 3":                    {[]byte{0x36, 5, 0, 1, 'a', 0, 1}, "PUBLISH with flags 6"},
		"QoS 0 with DUP":           {[]byte{0x38, 3, 0, 1, 'a'}, "PUBLISH with flags 8"},
		"a topic beyond the end":   {[]byte{0x30, 4, 0, 9, 'a', 'b'}, "PUBLISH of 4 bytes with a topic of 9"},
		"a PUBLISH of nothing":     {[]byte{0x30, 0}, "PUBLISH of 0 bytes"},
		"QoS 1 with no room":       {[]byte{0x32, 3, 0, 1, 'a'}, "PUBLISH of 3 bytes"},
		"QoS 1 without id":         {publish(1, 0, "a", "x"), "PUBLISH at QoS 1 without packet id"},
		"an empty topic":           {publish(0, 0, "", "x"), "empty topic"},
		"a topic with wildcards":   {publish(0, 0, "a/#", "x"), "wildcards"},
		"a topic that is no text":  {publish(0, 0, "a\xff", "x"), "not UTF-8"},
		"a topic with NUL":         {publish(0, 0, "a\x00", "x"), "not UTF-8"},
		"a SUBACK nobody asked":    {[]byte{0x90, 3, 0, 8, 0}, "SUBACK with 1 codes for packet id 8, which asked for 0"},
		"a SUBACK with more codes": {[]byte{0x90, 5, 0, 7, 0, 1, 2}, "SUBACK with 3 codes for packet id 7, which asked for 2"},
		"a SUBACK with code 7":     {[]byte{0x90, 4, 0, 7, 0, 7}, "SUBACK with code 7"},
		"a SUBACK twice":           {[]byte{0x90, 4, 0, 7, 0, 0, 0x90, 4, 0, 7, 0, 0}, "which asked for 0"},
		"a SUBACK of two bytes":    {[]byte{0x90, 2, 0, 7}, "SUBACK of 2 bytes"},
		"a PINGRESP with a body":   {[]byte{0xd0, 1, 0}, "PINGRESP of 1 bytes"},
		"an UNSUBACK":              {[]byte{0xb0, 2, 0, 1}, "UNSUBACK from a broker"},
		"a second CONNACK":         {[]byte{0x20, 2, 0, 0}, "CONNACK from a broker"},
		"a client's packet":        {[]byte{0xc0, 0}, "PINGREQ from a broker"},
		"a reserved type":          {[]byte{0x00, 0}, "reserved 0 from a broker"},
		"messages never released":  {many, "1025 messages at QoS 2 that are never released"},
		"megabytes never released": {heavy, "messages at QoS 2 that are never released"},
	} {
		g, in := guarded(c.raw, map[uint16]int{7: 2})
		_, err := io.Copy(io.Discard, g)
		if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if !in.closed() {
			t.Errorf("%s: the connection stays open", name)
		}
	}
}

func TestGuardBeforeConnack(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"a large CONNACK": {"\x20\xff\xff\xff\x7f", "CONNACK of 268435455 bytes, the limit is 2"},
		"a PUBLISH":       {"\x30\x02\x00\x00", `the answer to CONNECT begins with "0\x02\x00\x00"`},
		"code 6":          {"\x20\x02\x00\x06", "CONNACK 0 6"},
		"present and no":  {"\x20\x02\x01\x05", "CONNACK 1 5"},
		"flags":           {"\x20\x02\x02\x00", "the answer to CONNECT is CONNACK"},
		"HTTP":            {"HTTP/1.1 400 Bad Request\r\n", `the answer to CONNECT begins with "HTTP/1.1 400": is this an MQTT broker?`},
		"SSH":             {"SSH-2.0-OpenSSH_9.2\r\n", `the answer to CONNECT begins with "SSH-2.0-Open": is this an MQTT broker?`},
		"TLS":             {"\x15\x03\x03\x00\x02\x02\x16", "it answers with TLS: use mqtts:// or wss://"},
	} {
		g, _ := guarded([]byte(c.raw), nil)
		g.connected = false
		if _, err := io.Copy(io.Discard, g); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A header that promises much must not take memory: 5 bytes would be 256 MB, before login too.
func TestGuardTakesNoMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, raw := range []string{"\x30\xff\xff\xff\x7f", "\x40\xff\xff\xff\x7f", "\x90\xff\xff\xff\x7f"} {
		for _, connected := range []bool{false, true} {
			g, _ := guarded([]byte(raw), nil)
			g.connected = connected
			_, _ = io.Copy(io.Discard, g)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d KiB were allocated", n>>10)
	}
}

// What concerns the engine goes to the session in the order of the wire, what came together in one slice; paho sees the rest, byte for byte.
func TestGuardSorts(t *testing.T) {
	for1, for2 := publish(1, 9, "a/b", "hello"), publish(0, 0, "c", "")
	raw := bytes.Join([][]byte{{0x40, 2, 4, 0}, for1, {0x50, 2, 4, 1}, {0x62, 2, 0, 9}, {0x70, 2, 4, 2}, {0xd0, 0}, {0x90, 4, 0, 7, 2, 0x80}, for2}, nil)
	g, _ := guarded(raw, map[uint16]int{7: 2})
	granted := make(chan []byte, 1)
	g.s.subs[7] = granted
	var seen []byte
	for piece := make([]byte, 3); ; { // paho reads in small pieces
		n, err := g.Read(piece)
		seen = append(seen, piece[:n]...)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
	}
	if want := bytes.Join([][]byte{for1, {0x62, 2, 0, 9}, {0xd0, 0}, for2}, nil); !bytes.Equal(seen, want) {
		t.Errorf("paho sees %x, want %x", seen, want)
	}
	acks := <-g.s.acks
	if want := []Ack{{Kind: Puback, ID: 1024}, {Kind: Pubrec, ID: 1025}, {Kind: Pubcomp, ID: 1026}}; len(acks) != 3 || acks[0] != want[0] || acks[1] != want[1] || acks[2] != want[2] {
		t.Errorf("the engine gets %v, want %v", acks, want)
	}
	if codes := <-granted; !bytes.Equal(codes, []byte{2, 0x80}) {
		t.Errorf("the subscription gets %x", codes)
	}
}

// A released message makes room again.
func TestGuardReleases(t *testing.T) {
	var raw []byte
	for id := range uint16(3 * maxHeldCount) {
		raw = append(raw, publish(2, id+1, "a", "x")...)
		raw = append(raw, appendAck(nil, typePubrel, id+1)...)
	}
	g, _ := guarded(raw, nil)
	if _, err := io.Copy(io.Discard, g); !errors.Is(err, io.ErrUnexpectedEOF) && err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if g.heldBytes != 0 || len(g.held) != 0 {
		t.Errorf("%d bytes of %d messages are held", g.heldBytes, len(g.held))
	}
}

// paho writes in pieces; a message of its own above QoS 0, or a subscription, must never get out.
func TestGuardWrites(t *testing.T) {
	g, in := guarded(nil, nil)
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ClientIdentifier, connect.ProtocolName, connect.ProtocolVersion = "x", "MQTT", 4
	var b bytes.Buffer
	if err := connect.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Clone(b.Bytes()), publish(0, 0, "a", "b")...)
	for _, c := range want {
		if n, err := g.Write([]byte{c}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if !bytes.Equal(g.out, want) {
		t.Errorf("%x is to be written, want %x", g.out, want)
	}
	if _, err := g.Write(publish(1, 3, "a", "b")); err == nil || !strings.Contains(err.Error(), "PUBLISH of its own") || !in.closed() {
		t.Errorf("a PUBLISH at QoS 1 of paho's own: %v", err)
	}
	g, _ = guarded(nil, nil)
	if _, err := g.Write(appendSubscribe(nil, 1, []Subscription{{Filter: "a", QoS: 1}})); err == nil || !strings.Contains(err.Error(), "SUBSCRIBE of its own") {
		t.Errorf("a SUBSCRIBE of paho's own: %v", err)
	}
}

// A broker that does not read drops readings first, then loses the connection; memory does not grow.
func TestSlowReader(t *testing.T) {
	g, in := guarded(nil, nil)
	dropped := 0
	for range 1000 {
		if err := g.s.live(Publish{Topic: "a", Payload: make([]byte, 1000)}); err != nil {
			dropped++
		}
	}
	if dropped == 0 || len(g.out) > maxLive+2000 {
		t.Errorf("%d dropped, %d bytes wait", dropped, len(g.out))
	}
	var err error
	for n := 0; err == nil && n < 3000; n++ {
		err = g.s.Send(Publish{QoS: 1, ID: 1024, Topic: "a", Payload: make([]byte, 1000)})
	}
	if !errors.Is(err, errBusy) || !in.closed() || len(g.out) > maxUnwritten+2000 {
		t.Errorf("%v, closed %v, %d bytes wait", err, in.closed(), len(g.out))
	}
}

func TestPacketsAsPahoReadsThem(t *testing.T) {
	long := strings.Repeat("x", 20000)
	for _, p := range []Publish{{Topic: "a/b", Payload: []byte("hello")}, {ID: 65535, QoS: 2, Dup: true, Retain: true, Topic: "ä", Payload: []byte(long)}, {ID: 1, QoS: 1, Topic: long[:60000%20000+1]}} {
		cp, err := packets.ReadPacket(bytes.NewReader(appendPublish(nil, p)))
		got, ok := cp.(*packets.PublishPacket)
		if err != nil || !ok || got.MessageID != p.ID || got.Qos != p.QoS || got.Dup != p.Dup || got.Retain != p.Retain || got.TopicName != p.Topic || !bytes.Equal(got.Payload, p.Payload) {
			t.Errorf("%.60v: %v", cp, err)
		}
	}
	cp, err := packets.ReadPacket(bytes.NewReader(appendAck(nil, typePubrel, 4711)))
	if got, ok := cp.(*packets.PubrelPacket); err != nil || !ok || got.MessageID != 4711 || got.Qos != 1 {
		t.Errorf("%v: %v", cp, err)
	}
	subs := []Subscription{{Filter: "a/+", QoS: 2}, {Filter: strings.Repeat("b/", 100) + "#", QoS: 1}}
	cp, err = packets.ReadPacket(bytes.NewReader(appendSubscribe(nil, 12, subs)))
	if got, ok := cp.(*packets.SubscribePacket); err != nil || !ok || got.MessageID != 12 || len(got.Topics) != 2 || got.Topics[1] != subs[1].Filter || !bytes.Equal(got.Qoss, []byte{2, 1}) {
		t.Errorf("%v: %v", cp, err)
	}
}

// Whatever a broker sends: no panic, no memory, and paho gets only what it can read.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{0x40, 2, 4, 0, 0x30, 3, 0, 1, 'a'})
	f.Add(publish(2, 9, "a/b", "hello"))
	f.Add([]byte{0x90, 4, 0, 7, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, _ := guarded(raw, map[uint16]int{7: 2})
		g.s.acks = make(chan []Ack, len(raw)+1)
		seen, err := io.ReadAll(g)
		if err == nil && len(raw) > 0 && g.err == nil {
			t.Fatal("the end of the connection is no error")
		}
		for r := bytes.NewReader(seen); r.Len() > 0; {
			if _, err := packets.ReadPacket(r); err != nil {
				if _, _, kept := readPacket(bufio.NewReader(bytes.NewReader(seen)), nil, g.limit); kept != nil {
					return // cut at the end of the input
				}
				t.Fatalf("paho gets %x, which it cannot read: %v", seen, err)
			}
		}
	})
}

// What is written is read again as it was, whatever it holds.
func FuzzPublish(f *testing.F) {
	f.Add("a/b", []byte("x"), uint16(7), byte(2), true)
	f.Fuzz(func(t *testing.T, topic string, payload []byte, id uint16, qos byte, dup bool) {
		if qos %= 3; len(topic) > 65535 || qos > 0 && id == 0 {
			return
		}
		raw := appendPublish(nil, Publish{ID: id, QoS: qos, Dup: dup && qos > 0, Topic: topic, Payload: payload})
		got, body, err := readPacket(bufio.NewReader(bytes.NewReader(raw)), nil, func(byte) int { return len(raw) })
		if err != nil || !bytes.Equal(got, raw) {
			t.Fatal(err)
		}
		n := 2 + int(binary.BigEndian.Uint16(got[body:]))
		if string(got[body+2:body+n]) != topic {
			t.Fatalf("topic %q became %q", topic, got[body+2:body+n])
		}
		rest := got[body+n:]
		if qos > 0 {
			if binary.BigEndian.Uint16(rest) != id {
				t.Fatal("the packet id changed")
			}
			rest = rest[2:]
		}
		if !bytes.Equal(rest, payload) {
			t.Fatal("the payload changed")
		}
		if size, _, _, ok := complete(raw); !ok || size != len(raw) {
			t.Fatalf("complete says %d, %v of %d bytes", size, ok, len(raw))
		}
	})
}

// A message above the limit loses its end instead of the connection: the broker would send it again on each connection, for ever.
func TestGuardShortensWhatIsTooLong(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 300<<10)
	raw := appendPublish(nil, Publish{ID: 7, QoS: 1, Topic: "a/b", Payload: payload})
	raw = append(raw, typePingresp<<4, 0)
	g, _ := guarded(raw, nil)
	g.connected = true
	r := bufio.NewReader(g)
	packet, body, err := readPacket(r, nil, func(byte) int { return 1 << 20 })
	if err != nil || packet[0]>>4 != typePublish || len(packet)-body != g.max || string(packet[body:body+7]) != "\x00\x03a/b\x00\x07" {
		t.Fatalf("%d bytes, %v", len(packet), err)
	}
	if packet, _, err = readPacket(r, nil, func(byte) int { return 1 << 20 }); err != nil || packet[0] != typePingresp<<4 {
		t.Fatalf("the packet after it: %x, %v", packet, err)
	}
}
