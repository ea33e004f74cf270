package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// connection is one paho client on one guarded connection.
type connection struct {
	s      *Session
	g      *guard
	client paho.Client   // nil with MQTT 5
	done   chan struct{} // closed when the goroutines of the connection have ended
}

// connect dials and shakes hands within connect_timeout.
func (c *Client) connect(ctx context.Context, server Server, clean bool) (*connection, error) {
	cfg := c.opt.Config
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	password, err := c.password(ctx)
	if err != nil {
		return nil, err
	}
	nc, err := c.dial(ctx, server)
	if err != nil {
		return nil, err
	}
	g := newGuard(nc, cfg)
	s := &Session{g: g, server: server.String(), key: server.String() + " " + cfg.ClientID, limits: Limits{Window: cfg.Window, MaxQoS: 2}, acks: make(chan []Ack, 64), leave: make(chan struct{}), subs: map[uint16]chan []byte{}}
	g.s = s
	conn := &connection{s: s, g: g, done: make(chan struct{})}
	if cfg.Version == "5" {
		go conn.write()
		if err := c.connect5(ctx, conn, server, clean, password); err != nil {
			conn.close(err)
			return nil, err
		}
		return conn, nil
	}
	o := paho.NewClientOptions()
	o.AddBroker("tcp://guarded.invalid:1") // never looked up: the connection is made above
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return g, nil })
	o.SetClientID(cfg.ClientID).SetUsername(cfg.Username).SetPassword(password)
	o.SetProtocolVersion(4).SetCleanSession(clean)
	o.SetKeepAlive(cfg.Keepalive).SetPingTimeout(cfg.Keepalive*3 + time.Second) // the guard finds silence earlier
	o.SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false)
	o.SetAutoAckDisabled(true).SetOrderMatters(true).SetWriteTimeout(0)
	o.SetConnectTimeout(24 * time.Hour) // ctx ends it earlier, with words of our own
	if !c.opt.NoWill {
		o.SetBinaryWill(cfg.Will.Topic, []byte(cfg.Will.Payload), byte(cfg.Will.QoS), cfg.Will.Retain)
	}
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		c.opt.Message(Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retained: m.Retained(), Dup: m.Duplicate(), Ack: m.Ack})
	})
	conn.client = paho.NewClient(o)
	go conn.write()
	token := conn.client.Connect()
	select {
	case <-token.Done():
		err = token.Error()
	case <-ctx.Done():
		_ = g.fail(fmt.Errorf("no answer to CONNECT within %v: is this an MQTT broker?", cfg.ConnectTimeout))
		err = context.Cause(ctx)
	}
	g.mu.Lock()
	why, code := g.err, g.code
	s.present = g.present && !clean
	g.mu.Unlock()
	switch {
	case code != 0:
		err = refusal(code)
	case err == nil && why == nil:
		go conn.ping(cfg.Keepalive)
		return conn, nil
	case ended(why):
		err = fmt.Errorf("%w: %w", errNoAnswer, why)
	case why != nil && !errors.Is(why, net.ErrClosed):
		err = why
	}
	conn.close(err)
	return nil, err
}

func (c *connection) write() {
	defer close(c.done)
	c.g.write()
}

// ping asks for a sign of life when half a keepalive has passed without one, so that one and a half are enough to be sure.
func (c *connection) ping(keepalive time.Duration) {
	if keepalive <= 0 {
		return
	}
	tick := time.NewTicker(keepalive / 4)
	defer tick.Stop()
	for {
		select {
		case <-c.g.closed:
			return
		case now := <-tick.C:
			if c.g.idle(now) >= keepalive/2 {
				c.g.mu.Lock()
				_ = c.g.put([]byte{typePingreq << 4, 0}, maxUnwritten)
				c.g.mu.Unlock()
				c.g.signal()
			}
		}
	}
}

// close ends the connection, with DISCONNECT when there is no reason to let the broker send the will, and waits for its goroutines.
func (c *connection) close(reason error) {
	if reason == nil || errors.Is(reason, context.Canceled) {
		c.g.mu.Lock()
		if c.g.connected && c.g.err == nil {
			_ = c.g.put([]byte{typeDisconnect << 4, 0}, maxUnwritten)
		}
		c.g.mu.Unlock()
		c.g.signal()
		limit := time.AfterFunc(time.Second, func() { _ = c.g.fail(net.ErrClosed) })
		c.g.drain()
		limit.Stop()
		reason = net.ErrClosed
	}
	_ = c.g.fail(reason)
	if c.client != nil {
		c.client.Disconnect(0)
	} else {
		<-c.g.five.done
	}
	<-c.done
}

// ErrConnectRefused is returned when the broker answered CONNECT with a refusal (MQTT 3.1.1 section 3.2.2.3, MQTT 5.0 section 3.2.2.2).
var ErrConnectRefused = errors.New("connection refused by the broker")

// refused is a refusal in words.
type refused string

func (r refused) Error() string        { return string(r) }
func (r refused) Is(target error) bool { return target == ErrConnectRefused }

func refusal(code byte) error {
	switch code {
	case 1:
		return refused("the broker refuses MQTT 3.1.1")
	case 2:
		return refused("the broker refuses the client id: set another mqtt.client_id")
	case 3:
		return errors.New("the broker is not available now")
	case 4:
		return refused("bad user name or password: check mqtt.username and mqtt.password_file")
	case 5:
		return refused("not authorised: check mqtt.username, mqtt.password_file and the broker's access list")
	}
	return refused(fmt.Sprintf("the broker refuses the connection with code %d", code))
}

func init() {
	// paho's own loggers are silent unless set; keep them so, they print packets.
	paho.ERROR, paho.CRITICAL, paho.WARN, paho.DEBUG = quiet, quiet, quiet, quiet
}

var quiet = log.New(io.Discard, "", 0)
