package transport

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	agentconfig "fieldagent/agent/config"
	"fieldagent/agent/mqtt"
	"fieldagent/integration/broker"
)

// patience is how long a condition may take on a slow machine.
const patience = 60 * time.Second

// journal keeps the log's lines, the err of each in place of its message where it has one.
type journal struct {
	mu    sync.Mutex
	lines []string
	ch    chan struct{}
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			line = r.Message + ": " + a.Value.String()
		}
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	j.wakeLocked()
	return nil
}

func (j *journal) wakeLocked() {
	if j.ch != nil {
		close(j.ch)
		j.ch = nil
	}
}

// await waits until cond is true of the lines.
func (j *journal) await(t *testing.T, what string, cond func(lines []string) bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		j.mu.Lock()
		ok := cond(j.lines)
		if j.ch == nil {
			j.ch = make(chan struct{})
		}
		ch := j.ch
		j.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-ch:
		case <-timeout:
			j.mu.Lock()
			defer j.mu.Unlock()
			t.Fatalf("in vain: %s; the log says %q", what, j.lines)
		}
	}
}

func count(lines []string, line string) (n int) {
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// client runs until the test ends.
type client struct {
	*mqtt.Client
	*journal
	up   chan *mqtt.Session // each connection
	stop func()
}

func run(t *testing.T, cfg mqtt.Config, dial func(context.Context, string, string) (net.Conn, error)) *client {
	t.Helper()
	c := &client{journal: &journal{}, up: make(chan *mqtt.Session, 100)}
	var err error
	if c.Client, err = mqtt.New(mqtt.Options{Config: cfg, Log: slog.New(c.journal), Secret: agentconfig.Secret, Dial: dial}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Run(ctx, func(ctx context.Context, s *mqtt.Session) error {
			c.up <- s
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(c.stop)
	return c
}

// connected waits for the next connection.
func (c *client) connected(t *testing.T) *mqtt.Session {
	t.Helper()
	select {
	case s := <-c.up:
		return s
	case <-time.After(patience):
		t.Fatalf("no connection: %+v", c.State())
		return nil
	}
}

// roundTrip sends at QoS 2 and takes every step of the handshake from the wire.
func roundTrip(t *testing.T, s *mqtt.Session) {
	t.Helper()
	step := func(err error, want mqtt.AckKind) {
		t.Helper()
		if err == nil {
			err = s.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case acks := <-s.Acks():
			if len(acks) != 1 || acks[0].Kind != want {
				t.Fatalf("%+v, want %v", acks, want)
			}
		case <-time.After(patience):
			t.Fatalf("no %v", want)
		}
	}
	step(s.Send(mqtt.Publish{ID: mqtt.FirstID, QoS: 2, Topic: "dev/event", Payload: make([]byte, 20000)}), mqtt.Pubrec)
	step(s.Release(mqtt.FirstID), mqtt.Pubcomp)
}

func startBroker(t *testing.T, port int, lines ...string) broker.Broker {
	t.Helper()
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{Port: port, Lines: lines})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := broker.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
