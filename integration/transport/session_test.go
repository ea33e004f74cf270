package transport

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/integration/broker"
)

func config(server, version string) mqtt.Config {
	return mqtt.Config{Servers: []string{server}, Version: version, ClientID: "dev", Keepalive: 5 * time.Second, ConnectTimeout: 5 * time.Second,
		Reconnect: mqtt.Reconnect{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond}, Window: 16, MaxPacket: 128 << 10, Will: mqtt.Will{Topic: "dev/status", Payload: "offline", QoS: 1, Retain: true}}
}

// TestHandshakes sends at QoS 1 and 2 with ids of the caller's, and takes its own messages back with manual acknowledgement; then the session is there again.
func TestHandshakes(t *testing.T) {
	for _, c := range []struct{ name, version string }{{"mosquitto", "3.1.1"}, {"nats", "3.1.1"}, {"mosquitto", "5"}, {"mochi", "5"}} {
		name, version := c.name, c.version
		t.Run(name+" "+version, func(t *testing.T) {
			b, err := broker.Start(name, t.TempDir(), broker.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			got := make(chan mqtt.Message, 10)
			c, err := mqtt.New(mqtt.Options{Config: config("mqtt://"+b.Addr(), version), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Message: func(m mqtt.Message) { m.Ack(); got <- m }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			round := 0
			err = c.Run(ctx, func(ctx context.Context, s *mqtt.Session) error {
				round++
				if want := round > 1; s.Present() != want {
					t.Errorf("round %d: session present %v", round, s.Present())
				}
				if err := s.Subscribe(ctx, mqtt.Subscription{Filter: "dev/in/#", QoS: 2}); err != nil {
					return err
				}
				next := func(kind mqtt.AckKind, id uint16) error {
					select {
					case acks := <-s.Acks():
						if len(acks) != 1 || acks[0].Kind != kind || acks[0].ID != id {
							return fmt.Errorf("%+v, want %v %d", acks, kind, id)
						}
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				for _, p := range []mqtt.Publish{{ID: 2000, QoS: 1, Topic: "dev/in/1", Payload: []byte("one")}, {ID: 2001, QoS: 2, Topic: "dev/in/2", Payload: []byte("two")}} {
					if err := s.Send(p); err != nil {
						return err
					}
					_ = s.Flush()
					if p.QoS == 1 {
						if err := next(mqtt.Puback, p.ID); err != nil {
							return err
						}
					} else {
						if err := next(mqtt.Pubrec, p.ID); err != nil {
							return err
						}
						if err := s.Release(p.ID); err != nil {
							return err
						}
						_ = s.Flush()
						if err := next(mqtt.Pubcomp, p.ID); err != nil {
							return err
						}
					}
					for again := true; again; {
						select {
						case m := <-got:
							again = m.Dup // of the round before, whose end came before its handshake's
							if !again && (m.Topic != p.Topic || string(m.Payload) != string(p.Payload) || m.QoS != p.QoS) {
								t.Errorf("got %+v", m)
							}
						case <-ctx.Done():
							return ctx.Err()
						}
					}
				}
				if round == 2 {
					cancel()
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if round != 2 {
				t.Fatalf("%d rounds; %+v", round, c.State())
			}
		})
	}
}
