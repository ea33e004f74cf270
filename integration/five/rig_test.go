// Package five shows MQTT 5 on the wire: what the agent sends and obeys, read by a decoder that shares no code with it and by clients of others.
package five

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/integration/broker"
	"fieldagent/integration/wire"
	"fieldagent/queue"
	"fieldagent/sensors/drivers"
)

const patience = time.Minute

// tap passes one broker's connections on and keeps every packet.
type tap struct {
	net.Listener
	target string

	mu      sync.Mutex
	packets []seen
	changed chan struct{}
}

type seen struct {
	wire.Packet
	up bool // to the broker
}

func newTap(t *testing.T, target string) *tap {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{Listener: l, target: target, changed: make(chan struct{})}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(ctx, c) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	return p
}

func (p *tap) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	b, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer b.Close()
	stop := context.AfterFunc(ctx, func() { c.Close(); b.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(c, b, true); b.Close() })
	wg.Go(func() { p.pump(b, c, false); c.Close() })
	wg.Wait()
}

func (p *tap) pump(from io.Reader, to io.Writer, up bool) {
	r := bufio.NewReader(from)
	for {
		packet, err := wire.Read(r, 1<<22)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.packets = append(p.packets, seen{packet, up})
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if _, err := to.Write(packet.Raw); err != nil {
			return
		}
	}
}

// wait returns all packets once there are n to the broker that fit.
func (p *tap) wait(t *testing.T, n int, fits func(wire.Packet) bool) (list []wire.Packet) {
	t.Helper()
	limit := time.After(patience)
	for {
		p.mu.Lock()
		list = nil
		for _, s := range p.packets {
			if s.up && fits(s.Packet) {
				list = append(list, s.Packet)
			}
		}
		changed := p.changed
		p.mu.Unlock()
		if len(list) >= n {
			return list
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%d of %d packets", len(list), n)
		}
	}
}

func on(suffix string) func(wire.Packet) bool {
	return func(p wire.Packet) bool { return p.Type() == wire.PUBLISH && strings.HasSuffix(p.Topic(), suffix) }
}

func kind(k byte) func(wire.Packet) bool { return func(p wire.Packet) bool { return p.Type() == k } }

// device is an agent in this process.
type device struct {
	*agent.Agent
	t    *testing.T
	stop func()
	logs *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a device whose file has mqtt lines for server addr, indented by two, and more sections.
func start(t *testing.T, dir, addr, mqtt, more string, change func(*agent.Options)) *device {
	t.Helper()
	file := fmt.Sprintf("device: {id: pump-7, labels: {site: north}}\nmqtt:\n  servers: [%q]\n  reconnect: {min: 10ms, max: 100ms}\n%s%s", addr, mqtt, more)
	if !strings.Contains(addr, "://") {
		file = strings.Replace(file, `["`, `["mqtt://`, 1)
	}
	l := &lockedBuffer{}
	opt := agent.Options{Drivers: drivers.All, Version: "test", Clock: agent.NewClock(nil), Log: slog.New(slog.NewTextHandler(l, nil)), Sources: []config.Source{{Name: "fieldagent.yaml", Data: []byte(file)}}}
	if err := config.Load(&opt.Config, agent.ConfigOptions(opt.Drivers), opt.Sources...); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&opt)
	}
	qo := opt.Config.Outbox.QueueOptions()
	qo.Now, qo.Log = opt.Clock.Now, opt.Log
	q, err := queue.Open(dir, qo)
	if err != nil {
		t.Fatal(err)
	}
	opt.Queue = q
	a, err := agent.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	d := &device{Agent: a, t: t, logs: l}
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, q.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Log(l.String())
		}
	})
	return d
}

// post hands in an event as an application would and returns the answer.
func (d *device) post(body string) (status int, answer map[string]any) {
	d.t.Helper()
	w := httptest.NewRecorder()
	d.API().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(body)))
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		d.t.Fatal(err)
	}
	return w.Code, answer
}

// stored posts an event that must be taken and returns its id.
func (d *device) stored(body string) queue.ID {
	d.t.Helper()
	status, answer := d.post(body)
	if status != http.StatusCreated {
		d.t.Fatalf("%d %v", status, answer)
	}
	id, err := queue.ParseID(answer["id"].(string))
	if err != nil {
		d.t.Fatal(err)
	}
	return id
}

// end waits for the end of an event's life.
func (d *device) end(id queue.ID) queue.Life {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	l, err := d.Queue().Wait(ctx, id)
	if err != nil {
		d.t.Fatalf("%v: %+v, %v", id, l, err)
	}
	return l
}

// await polls a condition that nothing announces.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(10*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("in vain: %s", what)
		}
	}
}

func mosquitto(t *testing.T, lines ...string) broker.Broker {
	t.Helper()
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{Lines: lines})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// client runs one of mosquitto's programs with MQTT 5 and hands its lines to a channel; ready returns once it has subscribed.
func client(t *testing.T, b broker.Broker, program string, args ...string) <-chan string {
	t.Helper()
	host, port, _ := net.SplitHostPort(b.Addr())
	cmd := exec.CommandContext(t.Context(), "stdbuf", append([]string{"-oL", program, "-h", host, "-p", port, "-V", "5", "-d"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := broker.StartChild(cmd); err != nil {
		t.Fatal(err)
	}
	lines, subscribed := make(chan string, 1000), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		once := sync.OnceFunc(func() { close(subscribed) })
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.Contains(s.Text(), "received SUBACK") || strings.HasPrefix(s.Text(), "Subscribed") {
				once()
				continue
			}
			if strings.HasPrefix(s.Text(), "Client ") {
				continue
			}
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended; cmd.Wait() })
	select {
	case <-subscribed:
	case <-ended:
		t.Fatalf("%s ended", program)
	case <-time.After(patience):
		t.Fatalf("%s does not subscribe", program)
	}
	return lines
}

func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case l := <-lines:
		return l
	case <-time.After(patience):
		t.Fatal("no line")
	}
	return ""
}

// publish sends one message with MQTT 5.
func publish(t *testing.T, b broker.Broker, args ...string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(b.Addr())
	out, err := exec.CommandContext(t.Context(), "mosquitto_pub", append([]string{"-h", host, "-p", port, "-V", "5"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mosquitto_pub %q: %v\n%s", args, err, out)
	}
}
