// Package mqtt is the device's connection to its broker.
//
// Run connects, hands the connection to a function for its life, and connects again, for ever. paho speaks CONNECT and keeps inbound messages;
// the outbox's messages and subscriptions are written and read past it, by a guard around the network connection that checks every packet in
// both directions. There is one paho client for each connection, so nothing of paho's survives a connection: see docs/decisions/0003.
package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a client.
type Options struct {
	Config    Config
	ClientID  string // when the configuration has none
	WillTopic string // when the configuration has none
	Secret    func(file string) (string, error)
	Log       *slog.Logger
	Message   func(Message)                                                        // called one at a time, from CONNACK on; must not block for long
	Dial      func(ctx context.Context, network, address string) (net.Conn, error) // for tests; in place of interface and source address
	Now       func() time.Time                                                     // wall clock, for certificates
	Unset     func() bool                                                          // nobody has set that clock; for "the clock is not set"
	NoWill    bool                                                                 // for a connection beside the device's own, whose end says nothing about the device
	Failed    func(error)                                                          // hears of every attempt that came to nothing; may be nil
}

// Message came from the broker.
type Message struct {
	Topic    string
	Payload  []byte
	QoS      byte
	Retained bool
	Dup      bool

	// MQTT 5
	Subscription  int // number of the subscription that it is for; 0 unknown
	ResponseTopic string
	Correlation   []byte

	Ack func() // confirms it to the broker; call it once the message is durable. Nothing happens at QoS 0
}

// Client is a device's connection, whether it is up or not.
type Client struct {
	opt     Options
	servers []Server
	current atomic.Pointer[Session]
	clean   atomic.Bool // throw the session away first

	// Run's own
	next *Server // where a broker sent us, for the next attempt
	hops int     // how often, without a connection that held

	mu       sync.Mutex
	state    State
	certs    []Certificate // of the newest TLS handshake
	log      repeats
	conceded map[string]concessions // by server
}

// ErrNoServer is a client's last error while its configuration names no broker: it waits for a new configuration.
var ErrNoServer = errors.New("no address is configured yet; set mqtt.servers, then reload the agent (systemctl reload fieldagent)")

// State is the connection as people want to see it.
type State struct {
	Connected bool
	Server    string
	Since     time.Time // of Connected, or of its loss
	Attempts  int       // since the last connection
	LastError string
}

// New checks what can be checked without a network. Run starts it.
func New(opt Options) (*Client, error) {
	c := &Client{opt: opt}
	var faults []error
	opt.Config.Check(func(path, message, hint string) { faults = append(faults, fmt.Errorf("mqtt.%s: %s", path, message)) })
	for _, s := range opt.Config.Servers {
		if server, err := ParseServer(s); err == nil {
			c.servers = append(c.servers, server)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if c.opt.Config.ClientID == "" {
		c.opt.Config.ClientID = opt.ClientID
	}
	if c.opt.Config.Will.Topic == "" {
		c.opt.Config.Will.Topic = opt.WillTopic
	}
	if c.opt.Config.Window == 0 {
		c.opt.Config.Window = 16
	}
	if c.opt.Config.ReceiveMaximum == 0 {
		c.opt.Config.ReceiveMaximum = 16
	}
	if c.opt.Config.MaxPacket == 0 {
		c.opt.Config.MaxPacket = 128 << 10
	}
	if c.opt.Secret == nil {
		c.opt.Secret = func(file string) (string, error) {
			b, err := os.ReadFile(file)
			return strings.TrimRight(string(b), "\r\n"), err
		}
	}
	if c.opt.Log == nil {
		c.opt.Log = slog.New(slog.DiscardHandler)
	}
	if c.opt.Message == nil {
		c.opt.Message = func(m Message) { m.Ack() }
	}
	if c.opt.Now == nil {
		c.opt.Now = time.Now
	}
	if c.opt.Unset == nil {
		c.opt.Unset = func() bool { return false }
	}
	c.state.Since = c.opt.Now()
	if len(c.servers) == 0 {
		c.state.LastError = ErrNoServer.Error()
	}
	return c, nil
}

// State returns the connection now.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Live sends at QoS 0. It never waits: ErrOffline says that there is no connection, any other error that the broker does not read. Both mean that the message is dropped.
func (c *Client) Live(topic string, payload []byte, retain bool) error {
	return c.LiveMessage(Publish{Topic: topic, Payload: payload, Retain: retain})
}

// LiveMessage is Live with properties. QoS and packet id have no meaning.
func (c *Client) LiveMessage(p Publish) error {
	s := c.current.Load()
	if s == nil {
		return ErrOffline
	}
	p.ID, p.QoS, p.Dup = 0, 0, false
	return s.live(p)
}

// stable is how long a connection must hold for the pause to start from its minimum again.
const stable = time.Minute

// Run connects to the first server that answers and calls serve for the connection's life; without servers it only waits. The context that serve gets ends with the connection.
// When serve returns, the connection is closed, with DISCONNECT if serve returned nil. Run returns when ctx has ended and serve has returned.
func (c *Client) Run(ctx context.Context, serve func(context.Context, *Session) error) error {
	if len(c.servers) == 0 {
		c.opt.Log.Warn("no broker to connect to; events are stored until there is one", "remedy", "set mqtt.servers, then reload the agent")
		<-ctx.Done()
		return nil
	}
	failures := 0
	for ctx.Err() == nil {
		returning := false
		for _, server := range c.route() {
			if c.clean.Load() {
				if err := c.forget(ctx, server); err != nil {
					c.failed(server, err)
					continue
				}
				c.clean.Store(false)
			}
			held, err := c.connectAndServe(ctx, server, serve)
			if ctx.Err() != nil {
				return nil
			}
			if held >= stable {
				c.hops = 0
			}
			if c.redirected(server, err) {
				failures = max(failures-1, 0) // no pause is due: the broker is there, elsewhere
				break
			}
			if errors.Is(err, ErrReturn) {
				failures = 0
				returning = true
				break
			}
			if held > 0 {
				if held >= stable {
					failures = 0
				}
				if errors.Is(err, ErrForget) {
					c.CleanOnce()
				}
				break
			}
			c.failed(server, err)
		}
		wait := pause(c.opt.Config.Reconnect, failures)
		failures++
		if c.next != nil || returning {
			wait = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// pause is between nothing and a bound that doubles: full jitter, so that ten thousand devices do not come back in one second.
func pause(r Reconnect, failures int) time.Duration {
	bound := max(r.Min, time.Millisecond)
	for range failures {
		if bound *= 2; bound >= r.Max {
			bound = r.Max
			break
		}
	}
	bound = min(bound, max(r.Max, time.Millisecond))
	return time.Duration(rand.Int64N(int64(bound) + 1))
}

// failed notes an attempt that came to nothing, once for each different reason.
func (c *Client) failed(server Server, err error) {
	line := c.explain(server, err)
	if c.opt.Failed != nil {
		c.opt.Failed(err)
	}
	c.mu.Lock()
	c.state.Attempts++
	c.state.LastError = server.String() + ": " + line
	n, show := c.log.note(server.String() + line)
	c.mu.Unlock()
	if show {
		c.opt.Log.Error("no connection to the broker, will be tried again", "server", server.String(), "err", line, "repeats_before", n)
	}
}

// repeats counts equal lines, so that each is logged when it comes first and then ever more seldom, also when several take turns: one for each server,
// or what a broker does first and what the line says first.
type repeats struct{ count map[string]int }

const maxRepeats = 32 // different lines; then all are news again

func (r *repeats) note(line string) (before int, show bool) {
	if r.count == nil || r.count[line] == 0 && len(r.count) >= maxRepeats {
		r.count = map[string]int{}
	}
	r.count[line]++
	n := r.count[line]
	return n - 1, n == 1 || n&(n-1) == 0 && n >= 16
}

// connectAndServe returns how long the connection was up (0: it never was) and why it ended.
func (c *Client) connectAndServe(ctx context.Context, server Server, serve func(context.Context, *Session) error) (time.Duration, error) {
	if c.opt.Config.TLS.InsecureSkipVerify && server.Secure() {
		c.opt.Log.Warn("the broker's certificate is not checked: whoever is on the path can read and change everything", "server", server.String(), "remedy", "set mqtt.tls.ca_file and remove insecure_skip_verify")
	}
	conn, err := c.connect(ctx, server, c.opt.Config.CleanSession)
	if err != nil {
		return 0, err
	}
	defer conn.close(nil)
	began := time.Now()
	c.mu.Lock()
	c.state = State{Connected: true, Server: server.String(), Since: c.opt.Now()}
	c.log = repeats{}
	c.mu.Unlock()
	c.opt.Log.Info("connected", "server", server.String(), "session_present", conn.s.present)
	c.current.Store(conn.s)
	sctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, cancel)
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		select {
		case <-conn.s.Done():
			cancel()
		case <-sctx.Done():
		}
	}()
	if len(c.servers) > 0 && server != c.servers[0] {
		go c.watchFirst(sctx, conn.s)
	}
	err = serve(sctx, conn.s)
	c.current.Store(nil)
	stop()
	if why := conn.s.Err(); why != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = why
	}
	conn.close(err)
	cancel()
	<-watch
	held := max(time.Since(began), 1)
	c.mu.Lock()
	c.state = State{Since: c.opt.Now()}
	if err != nil {
		c.state.LastError = server.String() + ": " + c.explain(server, err)
	}
	c.mu.Unlock()
	if ctx.Err() == nil {
		c.opt.Log.Warn("connection lost", "server", server.String(), "after", held.Round(time.Millisecond), "err", err)
	}
	return held, err
}

// CleanOnce makes the next connection be preceded by a clean one, so that the broker throws this client's session away:
// for a new or salvaged store, whose packet ids must not meet those of an older one.
func (c *Client) CleanOnce() {
	if !c.clean.Swap(true) {
		c.opt.Log.Warn("the broker's session is thrown away at the next connect")
	}
}

// forget makes the broker throw the session away: a clean session under the same client id (section 3.1.2.4).
func (c *Client) forget(ctx context.Context, server Server) error {
	conn, err := c.connect(ctx, server, true)
	if err != nil {
		return err
	}
	conn.close(nil)
	return nil
}
