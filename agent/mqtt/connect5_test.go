package mqtt

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// text is a UTF-8 string as MQTT writes it, with its property id before it.
func text(id byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{id}, uint16(len(s))), s...)
}

// greet takes the CONNECT and answers with a reason and properties (MQTT 5.0 section 3.2).
func (p *peer) greet(reason byte, properties ...[]byte) bool {
	var err error
	if p.connect, err = receive(p.r); err != nil || p.connect.kind != typeConnect {
		return false
	}
	_, err = p.Write(framed(typeConnack<<4, []byte{0, reason}, props(bytes.Join(properties, nil)...)))
	return err == nil
}

func settings5(servers ...string) Config {
	cfg := settings(servers...)
	cfg.Version, cfg.Redirect, cfg.ReceiveMaximum = "5", true, 20
	return cfg
}

// What a broker assigns holds for the connection: its window, its limits, its keepalive, and the name of its session.
func TestAssigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var pings []time.Duration
		w := &world{t: t}
		w.serve = func(_ string, p *peer) {
			if !p.greet(0, []byte{0x21, 0, 3}, []byte{0x24, 1}, []byte{0x27, 0, 0, 4, 0}, text(0x12, "assigned-7"), []byte{0x13, 0, 10}) {
				return
			}
			began := time.Now()
			for {
				in, err := receive(p.r)
				if err != nil {
					return
				}
				if in.kind == typePingreq {
					mu.Lock()
					pings = append(pings, time.Since(began))
					mu.Unlock()
					_, _ = p.Write([]byte{typePingresp << 4, 0})
				}
			}
		}
		var limits Limits
		var key string
		_, stop := w.run(settings5("mqtt://broker:1"), nil, func(ctx context.Context, s *Session) error {
			mu.Lock()
			limits, key = s.Limits(), s.Key()
			mu.Unlock()
			return hold(ctx, s)
		})
		<-time.After(35 * time.Second)
		mu.Lock()
		if limits.Window != 3 || limits.MaxQoS != 1 || limits.MaxPacket != 1024 {
			t.Errorf("limits %+v", limits)
		}
		if !strings.HasSuffix(key, " assigned-7") {
			t.Errorf("the session is called %q", key)
		}
		if len(pings) < 3 || pings[2] > 31*time.Second {
			t.Errorf("PINGREQ at %v: the broker asked for a keepalive of 10 s, the file says 30 s", pings)
		}
		mu.Unlock()
		stop()
		if len(w.dials) != 1 {
			t.Errorf("dialled %v", w.dials)
		}
	})
}

// "Use another server" is followed once, "server moved" for good.
func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		name   string
		reason byte
		want   string // dials; the second broker ends the connection once, after a minute and a half
	}{
		{"another", reasonAnotherServer, "old:1 new:7 old:1 new:7"},
		{"moved", reasonServerMoved, "old:1 new:7 new:7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t}
				ended := false
				w.serve = func(address string, p *peer) {
					if address == "old:1" {
						p.greet(c.reason, text(0x1c, "new:7"))
						return
					}
					if !p.greet(0) {
						return
					}
					w.mu.Lock()
					first := !ended
					ended = true
					w.mu.Unlock()
					if first {
						time.AfterFunc(90*time.Second, func() { p.Close() })
					}
					p.answer(nil)
				}
				cl, stop := w.run(settings5("mqtt://old:1"), nil, hold)
				<-time.After(5 * time.Minute)
				if s := cl.State(); !s.Connected || s.Server != "mqtt://new:7" {
					t.Errorf("%+v", s)
				}
				stop()
				if got := strings.Join(w.dials, " "); got != c.want {
					t.Errorf("dialled %s, want %s", got, c.want)
				}
			})
		})
	}
}

// Two brokers that name each other do not send a device to and fro without a pause.
func TestRedirectInCircles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.serve = func(address string, p *peer) {
			other := "b:1"
			if address == "b:1" {
				other = "a:1"
			}
			p.greet(reasonAnotherServer, text(0x1c, other))
		}
		var log bytes.Buffer
		_, stop := w.run(settings5("mqtt://a:1"), &log, hold)
		<-time.After(10 * time.Minute)
		stop()
		if n := len(w.dials); n < 10 || n > 300 {
			t.Errorf("%d dials in ten minutes", n)
		}
		if !strings.Contains(log.String(), "redirections in a row") {
			t.Errorf("nobody is told:\n%.500s", log.String())
		}
	})
}

// A redirection never leads to a weaker connection, nor to a socket of the device's own.
func TestReference(t *testing.T) {
	c := &Client{}
	for _, x := range []struct{ from, text, want string }{
		{"mqtts://a:8883", "b", "mqtts://b:8883"},
		{"mqtts://a:8883", "b:99 c:1", "mqtts://b:99"},
		{"mqtts://a:8883", "mqtt://b", ""},
		{"mqtt://a", "mqtts://b", "mqtts://b:8883"},
		{"wss://a/mqtt", "wss://b", "wss://b:443/mqtt"},
		{"mqtt://a", "unix:///run/x", ""},
		{"mqtt://a", "  ", ""},
		{"mqtt://a", "http://b", ""},
	} {
		from, err := ParseServer(x.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := c.reference(from, x.text)
		switch {
		case x.want == "" && err == nil:
			t.Errorf("%s follows %q to %s", x.from, x.text, to)
		case x.want != "" && (err != nil || to.String() != x.want):
			t.Errorf("%s, %q: %s, %v; want %s", x.from, x.text, to, err, x.want)
		}
	}
}

// A broker that refuses the will as it is gets one that it can keep.
func TestConcededWill(t *testing.T) {
	for _, c := range []struct {
		reason byte
		flags  byte // of the second CONNECT: will QoS in bits 3 and 4, will retain in bit 5 (section 3.1.2.3)
	}{{reasonNoRetain, 2 << 3}, {reasonNoQoS, 1<<3 | 1<<5}} {
		synctest.Test(t, func(t *testing.T) {
			var flags []byte
			w := &world{t: t}
			w.serve = func(_ string, p *peer) {
				reason := byte(0)
				w.mu.Lock()
				if len(flags) == 0 {
					reason = c.reason
				}
				w.mu.Unlock()
				if p.greet(reason) {
					w.mu.Lock()
					flags = append(flags, p.connect.body[7])
					w.mu.Unlock()
					if reason == 0 {
						p.answer(nil)
					}
				}
			}
			cfg := settings5("mqtt://broker:1")
			cfg.Will.QoS = 2
			_, stop := w.run(cfg, nil, hold)
			<-time.After(2 * time.Minute)
			stop()
			if len(flags) != 2 || flags[0]&0x38 != 2<<3|1<<5 || flags[1]&0x38 != c.flags {
				t.Errorf("reason %#x: flags of CONNECT %#x, want the will's bits %#x in the second", c.reason, flags, c.flags)
			}
		})
	}
}
