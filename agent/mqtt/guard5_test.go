package mqtt

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"
)

// guarded5 is a guard with MQTT 5 that has seen CONNACK and now gets raw.
func guarded5(raw []byte, subs map[uint16]int) *guard {
	g, _ := guarded(raw, subs)
	g.Conn = silent{g.Conn}
	g.five = &five{connack: make(chan error, 1), done: make(chan struct{}), message: func(Message) {}, receive: 4, pending: map[uint16]byte{}, aliases: map[string]uint16{}}
	return g
}

// silent takes whatever is written.
type silent struct{ net.Conn }

func (silent) Write(p []byte) (int, error) { return len(p), nil }

func props(p ...byte) []byte { return append([]byte{byte(len(p))}, p...) }

func framed(kind byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(appendLength([]byte{kind}, len(body)), body...)
}

func TestGuard5Refuses(t *testing.T) {
	topic := []byte{0, 1, 'a'}
	var many []byte
	for id := range maxPending + 1 {
		many = append(many, framed(0x32, topic, []byte{byte((id + 1) >> 8), byte(id + 1), 0})...)
	}
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"properties beyond the packet":       {framed(0x30, topic, []byte{9, 1, 1}), "longer than the packet"},
		"property length of five bytes":      {framed(0x30, topic, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1}), "longer than the packet"},
		"an unknown property":                {framed(0x30, topic, props(0x7f, 1)), "property 127"},
		"a property of another packet":       {framed(0x30, topic, props(propServerKeepalive, 0, 1)), "property 19"},
		"a property twice":                   {framed(0x30, topic, props(propPayloadFormat, 1, propPayloadFormat, 1)), "property 1 twice"},
		"a string cut short":                 {framed(0x30, topic, props(propContentType, 0, 9, 'x')), "broken property 3"},
		"a string that is no text":           {framed(0x30, topic, props(propContentType, 0, 1, 0xff)), "broken property 3"},
		"subscription identifier 0":          {framed(0x30, topic, props(propSubscriptionID, 0)), "broken property 11"},
		"an alias that was not offered":      {framed(0x30, topic, props(propTopicAlias, 0, 1)), "not offered"},
		"an alias in place of the topic":     {framed(0x30, []byte{0, 0}, props(propTopicAlias, 0, 1)), "empty topic"},
		"more at once than we take":          {many, "1025 messages at once, 4 were asked for"},
		"PUBREL before PUBREC":               {append(framed(0x34, topic, []byte{0, 1, 0}), 0x62, 2, 0, 1), "without PUBREC"},
		"SUBACK that nobody waits for":       {framed(0x90, []byte{0, 8}, props(), []byte{0}), "asked for 0"},
		"SUBACK with an impossible code":     {framed(0x90, []byte{0, 7}, props(), []byte{3, 0}), "code 3"},
		"PUBACK with rubbish":                {framed(0x40, []byte{4, 0, 0}, props(), []byte{1, 2}), "too many"},
		"PUBACK without id":                  {framed(0x40, []byte{0, 0}), "without packet id"},
		"DISCONNECT with rubbish":            {framed(0xe0, []byte{0x8e}, props(propReasonString, 0, 5)), "broken property 31"},
		"AUTH, which nobody began":           {framed(0xf0, []byte{0x18}, props()), "AUTH from a broker"},
		"CONNACK twice":                      {framed(0x20, []byte{0, 0}, props()), "CONNACK from a broker"},
		"a large PUBACK":                     {[]byte{0x40, 0xff, 0xff, 0x03}, "the limit is 8192"},
		"PUBLISH with QoS 3":                 {framed(0x36, topic, []byte{0, 1, 0}), "flags 6"},
		"UNSUBACK that nobody waits for":     {framed(0xb0, []byte{0, 7}, props(), []byte{0}), "UNSUBACK from a broker"},
		"a PUBLISH that ends in its topic":   {framed(0x30, []byte{0, 9, 'a'}), "topic of 9"},
		"a topic with a wildcard":            {framed(0x30, []byte{0, 1, '#'}, props()), "wildcards"},
		"a user property with half a string": {framed(0x30, topic, props(propUser, 0, 1, 'k', 0, 9)), "broken property 38"},
	} {
		g := guarded5(c.raw, map[uint16]int{7: 2})
		go g.write()
		g.read5()
		if !errors.Is(g.err, ErrProtocol) || !strings.Contains(g.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, g.err, c.want)
		}
	}
}

// What a broker may say is understood, and answered as the standard wants it.
func TestGuard5Understands(t *testing.T) {
	topic := []byte{0, 1, 'a'}
	raw := bytes.Join([][]byte{
		framed(0x34, topic, []byte{0, 5}, props(propSubscriptionID, 3, propResponseTopic, 0, 1, 'r', propCorrelation, 0, 2, 0, 255, propUser, 0, 1, 'k', 0, 1, 'v', propUser, 0, 1, 'k', 0, 1, 'w'), []byte("hi")),
		{0x62, 2, 0, 5}, {0x62, 2, 0, 6}, // the second belongs to the connection before
		framed(0x50, []byte{4, 1, 0x97}, props(propReasonString, 0, 4, 'f', 'u', 'l', 'l')),
		framed(0x40, []byte{4, 2, 0x10}),
		framed(0xe0, []byte{0x9c}, props(propServerReference, 0, 3, 'b', ':', '2')),
	}, nil)
	g := guarded5(raw, nil)
	var got Message
	g.five.message = func(m Message) { got = m; m.Ack(); m.Ack() }
	g.read5()
	if got.Topic != "a" || string(got.Payload) != "hi" || got.QoS != 2 || got.Subscription != 3 || got.ResponseTopic != "r" || !bytes.Equal(got.Correlation, []byte{0, 255}) {
		t.Errorf("%+v", got)
	}
	if want := []byte{0x50, 2, 0, 5, 0x70, 2, 0, 5, 0x70, 2, 0, 6}; !bytes.Equal(g.out, want) {
		t.Errorf("answers %x, want %x", g.out, want)
	}
	var r *ReasonError
	if !errors.As(g.err, &r) || r.Refused || r.Code != 0x9c || r.Reference != "b:2" || r.Error() != `the broker ends the connection: use another server (0x9c), it names "b:2"` {
		t.Errorf("%v", g.err)
	}
	acks := g.acks
	if len(acks) != 2 || acks[0] != (Ack{Pubrec, 1025, 0x97, "full"}) || acks[1] != (Ack{Puback, 1026, 0x10, ""}) {
		t.Errorf("%+v", acks)
	}
}

// Aliases belong to one connection, only to readings, and never make a packet too large.
func TestAliases(t *testing.T) {
	g := guarded5(nil, nil)
	g.five.aliasMax = 1
	long := strings.Repeat("t", 40)
	for range 3 {
		if err := g.s.live(Publish{Topic: long, Payload: []byte("21.5")}); err != nil {
			t.Fatal(err)
		}
	}
	_ = g.s.live(Publish{Topic: "other", Payload: []byte("1")})
	_ = g.s.live(Publish{Topic: long, Payload: []byte("s"), Retain: true})
	_ = g.s.Send(Publish{ID: 2000, QoS: 1, Topic: long, Payload: []byte("e")})
	var topics []string
	var sizes []int
	for r := bytes.NewReader(g.out); r.Len() > 0; {
		before := r.Len()
		p, err := packets.ReadPacket(r)
		if err != nil {
			t.Fatal(err)
		}
		topics, sizes = append(topics, p.Content.(*packets.Publish).Topic), append(sizes, before-r.Len())
	}
	if want := []string{long, "", "", "other", long, long}; strings.Join(topics, ",") != strings.Join(want, ",") {
		t.Errorf("topics %q", topics)
	}
	if saved := int64(2*(sizes[4]+3-sizes[1]) - 3); g.s.AliasSaved() != saved {
		t.Errorf("saved %d by its own account, %d by sizes %v", g.s.AliasSaved(), saved, sizes)
	}
	g.five.maxPacket = 20
	before := len(g.out)
	var large *ErrTooLarge
	if err := g.s.Send(Publish{ID: 1, QoS: 1, Topic: long}); !errors.As(err, &large) || large.Max != 20 || large.Size != 2+2+40+2+1 || len(g.out) != before {
		t.Errorf("%v", err)
	}
}

// Whatever a broker sends: no panic, and no message without the checks.
func FuzzGuard5(f *testing.F) {
	f.Add(framed(0x34, []byte{0, 1, 'a', 0, 5}, props(propSubscriptionID, 3), []byte("hi")), true)
	f.Add(framed(0x20, []byte{0, 0}, props(propReceiveMaximum, 0, 9, propMaximumQoS, 1)), false)
	f.Add(framed(0xe0, []byte{0x9c}, props(propServerReference, 0, 3, 'b', ':', '2')), true)
	f.Add(framed(0x30, []byte{0, 1, 'a'}, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}), true)
	f.Fuzz(func(t *testing.T, raw []byte, connected bool) {
		g := guarded5(raw, map[uint16]int{7: 2})
		g.connected = connected
		g.s.acks = make(chan []Ack, len(raw)+1)
		g.five.message = func(m Message) {
			if m.Topic == "" || strings.ContainsAny(m.Topic, "#+\x00") {
				t.Fatalf("message on %q", m.Topic)
			}
			m.Ack()
		}
		go g.write()
		g.read5()
		if g.s.Err() == nil || len(raw) == 0 && !errors.Is(g.err, io.EOF) {
			t.Fatal("the end of the connection is no error")
		}
	})
}
