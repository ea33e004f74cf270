package wire

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 20000)
	for _, c := range []struct {
		p    Packet
		want string
	}{
		{Connect("me", false, 10), "CONNECT id=0 client=me"},
		{Publish(7, "a/b", []byte("hello"), 2, false), "PUBLISH id=7 qos=2 dup=false topic=a/b"},
		{Publish(0, "a", long, 0, true), "PUBLISH id=0 qos=0 dup=false topic=a"},
		{Ack(PUBREL, 65535), "PUBREL id=65535"},
		{Subscribe(3, "#", 2), "SUBSCRIBE id=3"},
		{Make(CONNACK, 0, []byte{1, 0}), "CONNACK id=0 present=true code=0"},
		{Ping(), "PINGREQ id=0"},
	} {
		got, err := Read(bufio.NewReader(bytes.NewReader(c.p.Raw)), 1<<20)
		if err != nil || got.String() != c.want || !bytes.Equal(got.Raw, c.p.Raw) {
			t.Errorf("%v, %v; want %s", got, err, c.want)
		}
		if got.Type() == PUBLISH && !bytes.HasSuffix(c.p.Raw, got.Payload()) {
			t.Errorf("%v: payload %q", got, got.Payload())
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"\x30\xff\xff\xff\xff\x01": "four bytes",
		"\x30\xff\xff\x7f":         "limit",
		"\x30\x05ab":               "unexpected EOF",
	} {
		if _, err := Read(bufio.NewReader(strings.NewReader(raw)), 1000); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", raw, err, want)
		}
	}
}
