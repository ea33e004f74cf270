package mqtt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A broker that falls silent, though the connection stays, is found within one and a half keepalives; a quiet one that answers pings is not.
func TestSilenceIsFound(t *testing.T) {
	for _, keepalive := range []time.Duration{2 * time.Second, 30 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			const good = 7
			var silent time.Time
			var pings atomic.Int32
			w := &world{t: t, serve: func(_ string, p *peer) {
				if !p.accept(false) {
					return
				}
				for {
					in, err := receive(p.r)
					if err != nil {
						return
					}
					if in.kind == typePingreq {
						if pings.Add(1) > good {
							continue // it reads, it does not answer: half-open
						}
						silent = time.Now()
						_, _ = p.Write([]byte{typePingresp << 4, 0})
					}
				}
			}}
			cfg := settings("mqtt://broker:1")
			cfg.Keepalive = keepalive
			var lost time.Time
			var why error
			c, stop := w.run(cfg, nil, func(ctx context.Context, s *Session) error {
				<-ctx.Done()
				if lost.IsZero() {
					lost, why = time.Now(), s.Err()
				}
				return s.Err()
			})
			<-time.After(20 * keepalive)
			stop()
			if d := lost.Sub(silent); lost.IsZero() || d > keepalive*3/2 || d < keepalive/2 {
				t.Errorf("keepalive %v: silence found after %v (%v)", keepalive, d, c.State())
			}
			if why == nil || !strings.Contains(why.Error(), "no sign of life from the broker for") {
				t.Errorf("keepalive %v: %v", keepalive, why)
			}
		})
	}
}

// Nothing but pings goes out on an idle connection, one for each half keepalive; keepalive 0 sends none and waits for ever.
func TestKeepaliveOnTheWire(t *testing.T) {
	for _, keepalive := range []time.Duration{0, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			pings, said := 0, uint16(0)
			w := &world{t: t, serve: func(_ string, p *peer) {
				if !p.accept(false) {
					return
				}
				said = binary.BigEndian.Uint16(p.connect.body[8:])
				for {
					in, err := receive(p.r)
					if err != nil || in.kind == typeDisconnect {
						return
					}
					if in.kind != typePingreq {
						t.Errorf("an idle client sends %s", typeNames[in.kind])
					}
					pings++
					_, _ = p.Write([]byte{typePingresp << 4, 0})
				}
			}}
			cfg := settings("mqtt://broker:1")
			cfg.Keepalive = keepalive
			_, stop := w.run(cfg, nil, hold)
			<-time.After(24 * time.Hour)
			stop()
			if len(w.dials) != 1 || time.Duration(said)*time.Second != keepalive {
				t.Errorf("keepalive %v: %d connections, CONNECT says %d s", keepalive, len(w.dials), said)
			}
			if keepalive == 0 && pings != 0 {
				t.Errorf("%d pings with keepalive 0", pings)
			}
			if least := int(24 * time.Hour / (30 * time.Second)); keepalive > 0 && (pings < least || pings > 3*least) {
				t.Errorf("%d pings in a day at 30 s", pings)
			}
		})
	}
}

// Pauses double to their bound with full jitter, and start anew only after a minute that held.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		cfg := settings("mqtt://nobody:1")
		_, stop := w.run(cfg, nil, hold)
		<-time.After(10 * time.Hour)
		stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		longest, sum, n := time.Duration(0), time.Duration(0), 0
		for i := 1; i < len(w.at); i++ {
			pause := w.at[i].Sub(w.at[i-1])
			if bound := cfg.Reconnect.Min << min(i-1, 10); pause > min(bound, cfg.Reconnect.Max) {
				t.Fatalf("pause %d is %v, above %v", i, pause, bound)
			}
			if i > 10 {
				longest, sum, n = max(longest, pause), sum+pause, n+1
			}
		}
		if mean := sum / time.Duration(n); mean < 25*time.Second || mean > 35*time.Second || longest < 55*time.Second {
			t.Errorf("%d pauses of %v on average, %v at most: want full jitter up to a minute", n, mean, longest)
		}
	})
}

func TestBackOffAfterShortAndLongConnections(t *testing.T) {
	for _, held := range []time.Duration{time.Second, 2 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			var ended []time.Time
			w := &world{t: t}
			w.serve = func(_ string, p *peer) {
				if p.accept(false) {
					time.AfterFunc(held, func() { p.Close() })
					p.answer(nil)
					w.mu.Lock()
					ended = append(ended, time.Now())
					w.mu.Unlock()
				}
			}
			_, stop := w.run(settings("mqtt://broker:1"), nil, hold)
			<-time.After(8 * time.Hour)
			stop()
			w.mu.Lock()
			defer w.mu.Unlock()
			longest := time.Duration(0)
			for i := 1; i < len(w.at); i++ {
				longest = max(longest, w.at[i].Sub(ended[i-1]))
			}
			if held < stable && longest < 50*time.Second || held >= stable && longest > time.Second {
				t.Errorf("connections that held %v: pauses up to %v", held, longest)
			}
		})
	}
}

// Servers are tried in their order at every attempt; the first that answers is taken.
func TestServersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		w.serve = func(address string, p *peer) {
			if p.accept(false) {
				time.AfterFunc(time.Hour, func() { p.Close() })
				p.answer(nil)
			}
		}
		var log bytes.Buffer
		c, stop := w.run(settings("mqtt://nobody-1:1", "mqtt://nobody-2", "mqtt://broker:3", "mqtt://broker:4"), &log, hold)
		<-time.After(time.Minute)
		if s := c.State(); !s.Connected || s.Server != "mqtt://broker:3" {
			t.Errorf("%+v", s)
		}
		<-time.After(90 * time.Minute)
		stop()
		if got := strings.Join(w.dials, " "); got != "nobody-1:1 nobody-2:1883 broker:3 nobody-1:1 nobody-2:1883 broker:3" {
			t.Errorf("dialled %s", got)
		}
		if n := strings.Count(log.String(), "no connection to the broker"); n != 4 {
			t.Errorf("%d lines for four failures:\n%s", n, log.String())
		}
	})
}

// A server that takes the connection and says nothing costs connect_timeout, no more.
func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, serve: func(_ string, p *peer) { _, _ = p.r.WriteTo(&bytes.Buffer{}) }}
		cfg := settings("mqtt://mute:1")
		cfg.ConnectTimeout = 7 * time.Second
		began := time.Now()
		c, stop := w.run(cfg, nil, hold)
		<-time.After(7*time.Second - time.Nanosecond)
		synctest.Wait()
		if s := c.State(); s.Attempts != 0 {
			t.Errorf("given up after %v: %+v", time.Since(began), s)
		}
		<-time.After(time.Nanosecond)
		synctest.Wait()
		if s := c.State(); s.Attempts != 1 || s.LastError != "mqtt://mute:1: no answer to CONNECT within 7s: is this an MQTT broker?" {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// What stands in the configuration stands in the CONNECT (section 3.1).
func TestConnectPacket(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		flags  byte
		body   string // after protocol name, level, flags, keepalive
	}{
		"plain":         {func(*Config) {}, 0x2c, "\x00\x06pump-7\x00\x0dpump-7/status\x00\x07offline"},
		"clean session": {func(c *Config) { c.CleanSession = true }, 0x2e, "\x00\x06pump-7\x00\x0dpump-7/status\x00\x07offline"},
		"will": {func(c *Config) { c.Will = Will{Topic: "gone", Payload: `{"a":1}`, QoS: 2} }, 0x14,
			"\x00\x06pump-7\x00\x04gone\x00\x07{\"a\":1}"},
		"an empty will at QoS 0": {func(c *Config) { c.Will.Payload, c.Will.QoS = "", 0 }, 0x24, "\x00\x06pump-7\x00\x0dpump-7/status\x00\x00"},
		"user":                   {func(c *Config) { c.Username = "me" }, 0xac, "\x00\x06pump-7\x00\x0dpump-7/status\x00\x07offline\x00\x02me"},
		"user and password": {func(c *Config) { c.Username, c.PasswordFile, c.ClientID = "me", "pw", "other" }, 0xec,
			"\x00\x05other\x00\x0dpump-7/status\x00\x07offline\x00\x02me\x00\x07secret!"},
	} {
		synctest.Test(t, func(t *testing.T) {
			got := make(chan packet, 1)
			w := &world{t: t, serve: func(_ string, p *peer) {
				if p.accept(false) {
					got <- p.connect
					p.answer(nil)
				}
			}}
			cfg := settings("mqtt://broker:1")
			c.change(&cfg)
			client, err := New(Options{Config: cfg, Dial: w.dial, Secret: func(string) (string, error) { return "secret!", nil }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- client.Run(ctx, hold) }()
			p := <-got
			cancel()
			<-done
			head, body := "\x00\x04MQTT\x04"+string([]byte{c.flags})+"\x00\x1e", string(p.body)
			if body != head+c.body {
				t.Errorf("%s: CONNECT is %q, want %q", name, body, head+c.body)
			}
		})
	}
}

func TestSubscriptionRefusedOrDowngraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, serve: func(_ string, p *peer) {
			if p.accept(true) {
				p.answer(func(filter string) byte { return map[string]byte{"yes": 2, "no": 0x80, "less": 0}[filter] })
			}
		}}
		result := make(chan error, 1)
		_, stop := w.run(settings("mqtt://broker:1"), nil, func(ctx context.Context, s *Session) error {
			if !s.Present() {
				t.Error("the session is present, and nobody says so")
			}
			result <- s.Subscribe(ctx, Subscription{Filter: "yes", QoS: 2}, Subscription{Filter: "no", QoS: 1}, Subscription{Filter: "less", QoS: 1})
			return hold(ctx, s)
		})
		err := <-result
		if !errors.Is(err, ErrRefused) || !errors.Is(err, ErrDowngraded) {
			t.Errorf("%v", err)
		}
		const want = "subscription refused: no: allow it in the broker's access list\nsubscription downgraded: less at QoS 0, asked for 1"
		if err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
		stop()
	})
}

// A clean end says DISCONNECT, a bad one does not: then the broker sends the will.
func TestDisconnect(t *testing.T) {
	for _, bad := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			goodbye := make(chan bool, 10)
			w := &world{t: t, serve: func(_ string, p *peer) {
				if !p.accept(false) {
					return
				}
				for {
					in, err := receive(p.r)
					if err != nil {
						goodbye <- false
						return
					}
					if in.kind == typeDisconnect {
						goodbye <- true
						return
					}
				}
			}}
			_, stop := w.run(settings("mqtt://broker:1"), nil, func(ctx context.Context, s *Session) error {
				if bad {
					s.Close(errors.New("something broke"))
					return s.Err()
				}
				return nil
			})
			if got := <-goodbye; got == bad {
				t.Errorf("DISCONNECT %v at an end that was bad: %v", got, bad)
			}
			stop()
		})
	}
}

// TestRepeats: lines that take turns are repeats all the same.
func TestRepeats(t *testing.T) {
	var r repeats
	shown := 0
	for range 40 {
		for _, line := range []string{"one server", "another"} {
			if _, show := r.note(line); show {
				shown++
			}
		}
	}
	if shown != 2*3 { // at 1, 16 and 32
		t.Errorf("%d lines of 80", shown)
	}
	for i := range 2 * maxRepeats {
		if _, show := r.note(string(rune('a' + i))); !show {
			t.Error("a new line is not shown")
		}
	}
	if len(r.count) > maxRepeats {
		t.Errorf("%d lines are kept", len(r.count))
	}
}
