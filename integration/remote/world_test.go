package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"fieldagent/agent"
	"fieldagent/agent/config"
	"fieldagent/queue"
	"fieldagent/sensors/drivers"
)

const root = "fieldagent/pump-7"

// world is a network in a bubble of virtual time: names that lead to brokers, and to worse.
type world struct {
	t       *testing.T
	dir     string
	version string           // of MQTT
	good    map[string]*host // by host:port
	units   []*unit

	mu     sync.Mutex
	faults map[string]func(ctx context.Context) (net.Conn, error)
	conns  sync.WaitGroup
}

// host is one broker that people reach by a name.
type host struct {
	srv        *mqtt.Server
	cert       *tls.Config // nil: in the clear
	user       string      // the only one who may connect; "" anybody
	refuse     string      // filters with this suffix are refused
	mute       string      // messages on topics with this suffix are refused
	noSecond   bool        // refuses client ids it does not know
	onlyTrials bool        // refuses the one it should know

	mu       sync.Mutex
	connects int // of the device itself
	got      map[string][]string
	news     chan struct{}
}

type hooks struct {
	mqtt.HookBase
	h *host
}

func (k *hooks) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

func (k *hooks) OnConnectAuthenticate(_ *mqtt.Client, p packets.Packet) bool {
	if p.Connect.ClientIdentifier == "pump-7" {
		k.h.mu.Lock()
		k.h.connects++
		k.h.mu.Unlock()
	}
	return (k.h.user == "" || string(p.Connect.Username) == k.h.user) && (!k.h.noSecond || p.Connect.ClientIdentifier == "pump-7") && (!k.h.onlyTrials || p.Connect.ClientIdentifier != "pump-7")
}

func (k *hooks) OnACLCheck(_ *mqtt.Client, topic string, write bool) bool {
	no := k.h.refuse
	if write {
		k.h.mu.Lock()
		no = k.h.mute
		k.h.mu.Unlock()
	}
	return no == "" || !strings.HasSuffix(topic, no)
}

func newWorld(t *testing.T, dir, version string) *world {
	return &world{t: t, dir: dir, version: version, good: map[string]*host{}, faults: map[string]func(context.Context) (net.Conn, error){}}
}

// broker adds a broker under an address.
func (w *world) broker(addr string, change func(*host)) *host {
	h := &host{got: map[string][]string{}, news: make(chan struct{})}
	if change != nil {
		change(h)
	}
	h.srv = mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	must(w.t, h.srv.AddHook(&hooks{h: h}, nil))
	must(w.t, h.srv.Serve())
	must(w.t, h.srv.Subscribe("#", 1, func(_ *mqtt.Client, _ packets.Subscription, p packets.Packet) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got[p.TopicName] = append(h.got[p.TopicName], string(p.Payload))
		close(h.news)
		h.news = make(chan struct{})
	}))
	w.good[addr] = h
	return h
}

func (w *world) close() {
	for _, u := range w.units { // a test that failed has not stopped its own
		u.stop()
	}
	for _, h := range w.good {
		must(w.t, h.srv.Close())
	}
	w.conns.Wait()
	<-time.After(time.Minute) // connections that were closed end by their deadlines
}

func (w *world) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.mu.Lock()
	fault := w.faults[addr]
	w.mu.Unlock()
	h := w.good[addr]
	switch {
	case fault != nil:
		return fault(ctx)
	case h == nil && strings.HasPrefix(addr, "broker."): // a wrong port
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case h == nil:
		name, _, _ := net.SplitHostPort(addr)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}}
	}
	ours, theirs := net.Pipe()
	server := net.Conn(newBuffered(theirs))
	if h.cert != nil {
		server = tls.Server(server, h.cert)
	}
	w.conns.Go(func() {
		_ = h.srv.EstablishConnection("pipe", server)
		server.Close()
	})
	return newBuffered(ours), nil
}

// buffered is an end of a pipe whose writes do not wait for the other end, as those of a socket.
type buffered struct {
	net.Conn
	out  chan []byte
	done chan struct{}
	once sync.Once
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 4096), done: make(chan struct{})}
	go func() {
		defer c.Close()
		for {
			select {
			case p := <-b.out:
				if _, err := c.Write(p); err != nil {
					return
				}
			case <-b.done: // what was written goes out first
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				for len(b.out) > 0 {
					_, _ = c.Write(<-b.out)
				}
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case b.out <- append([]byte(nil), p...):
		return len(p), nil
	case <-b.done:
		return 0, net.ErrClosed
	}
}

func (b *buffered) SetWriteDeadline(time.Time) error { return nil }
func (b *buffered) SetDeadline(t time.Time) error    { return b.SetReadDeadline(t) }

func (b *buffered) Close() error {
	b.once.Do(func() {
		close(b.done)
		time.AfterFunc(time.Second, func() { b.Conn.Close() }) // the other end may not read any more
	})
	return nil
}

// wait returns when a topic has had its n-th message and ok says yes to the last one; it fails after limit of virtual time.
func (h *host) wait(t *testing.T, what string, limit time.Duration, topic string, ok func(string) bool) string {
	t.Helper()
	late := time.After(limit)
	for {
		h.mu.Lock()
		all, news := h.got[topic], h.news
		last := ""
		if len(all) > 0 {
			last = all[len(all)-1]
		}
		h.mu.Unlock()
		if len(all) > 0 && ok(last) {
			return last
		}
		select {
		case <-news:
		case <-late:
			t.Fatalf("%s: not within %v; the last message on %s is %.500s", what, limit, topic, last)
		}
	}
}

func (h *host) connected() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.connects
}

// newest returns the last message on a topic.
func (h *host) newest(topic string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if all := h.got[topic]; len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// silence has the broker refuse messages on topics with a suffix from now on; "" none.
func (h *host) silence(suffix string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mute = suffix
}

// forget drops what was received so far.
func (h *host) forget(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.got, topic)
}

// unit is the device under test.
type unit struct {
	*agent.Agent
	stop func()
}

func (w *world) start(file string) *unit {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	}
	boot := time.Now()
	clock := agent.NewClock(func() queue.Stamp {
		return queue.Stamp{Wall: time.Now().UTC(), Clock: queue.ClockSynced, Boot: 0xb007, Uptime: time.Since(boot) + time.Minute}
	})
	opt := agent.Options{Sources: []config.Source{{Name: "fieldagent.yaml", Data: []byte(file)}}, Clock: clock, Drivers: drivers.All, Version: "test", Log: log, Dial: w.dial}
	must(w.t, config.Load(&opt.Config, agent.ConfigOptions(drivers.All), opt.Sources...))
	qo := opt.Config.Outbox.QueueOptions()
	qo.Now = clock.Now
	q, err := queue.Open(filepath.Join(w.dir, "state"), qo)
	must(w.t, err)
	opt.Queue = q
	a, err := agent.New(opt)
	must(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	u := &unit{a, sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, q.Close()); err != nil {
			w.t.Errorf("run: %v", err)
		}
	})}
	w.units = append(w.units, u)
	return u
}

// listens waits until the broker has granted the unit's subscriptions: a command before that is lost, as nobody is there.
func (u *unit) listens(t *testing.T) {
	t.Helper()
	tick, late := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !u.Status().Broker.Subscribed {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("not subscribed within a minute")
		}
	}
}

// state is config/state.
type state struct {
	Applied struct {
		Hash, Source, Group string
		Revision            uint64
	}
	Last *struct {
		Hash, Result string
		Errors       []string
	} `json:"last_attempt"`
}

func parseState(text string) (s state) {
	_ = json.Unmarshal([]byte(text), &s)
	return s
}

func hashOf(doc string) string {
	if doc == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(doc))
	return hex.EncodeToString(sum[:])
}

// authority makes certificates in the bubble's time.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) server(t *testing.T, name string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, Time: time.Now}
}

// hole takes a connection and never says anything.
func hole(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	return newBuffered(ours), nil
}

// says takes a connection and answers with text.
func says(text string) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() { _, _ = io.WriteString(theirs, text); theirs.Close() }()
		return newBuffered(ours), nil
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bubble runs fn in virtual time, with each version of MQTT.
func bubble(t *testing.T, fn func(t *testing.T, w *world)) {
	for _, version := range versions {
		t.Run("MQTT "+version, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, dir, version)
				defer w.close()
				fn(t, w)
			})
		})
	}
}

var versions = []string{"3.1.1", "5"}

// local is the unit's own file.
func (w *world) local(more string) string {
	return fmt.Sprintf(`device: {id: pump-7, labels: {site: north}}
mqtt:
  version: "%s"
  servers: ["mqtts://broker.test:8883"]
  username: pump-7
  connect_timeout: 10s
  reconnect: {min: 1s, max: 20s}
  tls: {ca_file: %s/ca.pem}
sensors:
  - {name: tank, driver: simulated, every: 10s}
config: {confirm_within: 2m, spread: 20s}
%s`, w.version, w.dir, more)
}
