package mqtt

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What the schema takes for a server and what the loader takes are the same, and what a server is written as is read again.
func TestServerPattern(t *testing.T) {
	f, _ := reflect.TypeFor[Config]().FieldByName("Servers")
	if got := f.Tag.Get("each_schema"); got != serverPattern.String() {
		t.Errorf("the schema says\n%s\nthe loader\n%s", got, serverPattern)
	}
	good := []string{"mqtt://b", "mqtt://b:1", "mqtts://b.example.net:65535/", "tcp://b", "ssl://b", "tls://b:8883", "ws://b", "wss://b:443/a/b%20c", "MQTT://b", "mqtt://[::1]", "mqtt://[fe80::1%25eth0]:1883",
		"mqtt://my_broker", "mqtt://bröker.local", "unix:///run/b.sock", "unix:/run/b.sock", "ws://b/a@b"}
	bad := []string{"", "b", "b:1883", "http://b", "mqtt:b", "mqtt:/b", "mqtt://", "mqtt://:1883", "mqtt://b:0", "mqtt://b:65536", "mqtt://b:99999", "mqtt://b:100000", "mqtt://b:01883", "mqtt://b:", "mqtt://b:x", "mqtt://b:-1",
		"mqtt://u@b", "mqtt://u:p@b", "mqtt://b/x", "mqtt://b//", "ws://b/x?y", "ws://b/x#y", "mqtt://b?", "mqtt://b#", "ws://b/%zz", "ws://b/a b", "mqtt://a b", " mqtt://b", "mqtt://b ", "mqtt://b\n", "mqtt://b,mqtt://c",
		"unix:", "unix://", "unix:///", "unix://host/x", "unix://u@/x", "unix:///x?y", "unix:///x#y", "unix:run", "mqtt://[::1", "mqtt://[zz]"}
	check := func(s string, want bool) {
		t.Helper()
		server, err := ParseServer(s)
		if (err == nil) != want || serverPattern.MatchString(s) != want {
			t.Errorf("%q: the loader says %v, the schema %v; want %v", s, err, serverPattern.MatchString(s), want)
		}
		if err != nil {
			return
		}
		if again, err := ParseServer(server.String()); err != nil || again.String() != server.String() {
			t.Errorf("%q is written %q and read as %v, %v", s, server, again, err)
		}
	}
	for _, s := range good {
		check(s, true)
	}
	for _, s := range bad {
		check(s, false)
	}
}

func FuzzServerPattern(f *testing.F) {
	f.Add("mqtts://b:1/x%20y?z#[::1%25e]@")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseServer(s); (err == nil) != serverPattern.MatchString(s) {
			t.Errorf("%q: the loader says %v, the schema %v", s, err, err != nil)
		}
	})
}

// Values that no packet can carry.
func TestImpossibleValues(t *testing.T) {
	long := strings.Repeat("x", 65536)
	for want, change := range map[string]func(*Config){
		"username: has a NUL in it (MQTT does not allow it; remove it)":                                          func(c *Config) { c.Username = "a\x00b" },
		"username: 65536 bytes long, MQTT allows 65535 (make it shorter)":                                        func(c *Config) { c.Username = long },
		"will.topic: 65536 bytes long, MQTT allows 65535 (make it shorter)":                                      func(c *Config) { c.Will.Topic = long },
		"will.payload: 65536 bytes long, MQTT allows 65535 (make it shorter)":                                    func(c *Config) { c.Will.Payload = long },
		"will.topic: a topic to publish to has no wildcards (remove # and +, or leave it out for <root>/status)": func(c *Config) { c.Will.Topic = "a/#" },
		"will.delay: 1.5s is not a whole number of seconds (MQTT counts will.delay in seconds)":                  func(c *Config) { c.Version, c.Will.Delay = "5", 1500*time.Millisecond },
		"session_expiry: 1ms is not a whole number of seconds (MQTT counts session_expiry in seconds)":           func(c *Config) { c.Version, c.SessionExpiry = "5", time.Millisecond },
		"session_expiry: has no meaning with MQTT 3.1.1 (set mqtt.version to \"5\", or remove it)":               func(c *Config) { c.SessionExpiry = time.Millisecond },
		"client_id: too long or with control characters (128 bytes are the most, in one line)":                   func(c *Config) { c.ClientID = "a\nb" },
		"transport.alpn[1]: a protocol has 1 to 255 characters (such as mqtt or x-amzn-mqtt-ca)":                 func(c *Config) { c.Transport.ALPN = []string{"mqtt", ""} },
		"transport.proxy: there is no port 0; ports are 1 to 65535 (write it like http://10.0.0.1:3128 or socks5://10.0.0.1:1080)": func(c *Config) {
			c.Transport.Proxy = "http://10.0.0.1:0"
		},
		`servers[0]: "mqtt://b:70000": there is no port 70000; ports are 1 to 65535 (write it like "mqtts://broker.example.net:8883")`: func(c *Config) {
			c.Servers = []string{"mqtt://b:70000"}
		},
	} {
		c := settings("mqtt://b")
		c.Version = "3.1.1"
		change(&c)
		var got []string
		c.Check(func(path, message, hint string) { got = append(got, fmt.Sprintf("%s: %s (%s)", path, message, hint)) })
		if len(got) != 1 || got[0] != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
