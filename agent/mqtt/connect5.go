package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// concessions is what a broker has refused in a will, so that the next CONNECT does without.
type concessions struct {
	noRetain bool
	maxQoS   byte // of the will; valid when limited
	limited  bool
}

// connect5 shakes hands with MQTT 5 on a connection whose writer runs.
func (c *Client) connect5(ctx context.Context, conn *connection, server Server, clean bool, password string) error {
	g, s, cfg := conn.g, conn.s, c.opt.Config
	g.five = &five{connack: make(chan error, 1), done: make(chan struct{}), message: c.opt.Message, receive: cfg.ReceiveMaximum, pending: map[uint16]byte{}, aliases: map[string]uint16{}}
	var packet bytes.Buffer
	if _, err := c.connectPacket(server, clean, password).WriteTo(&packet); err != nil {
		close(g.five.done)
		return fmt.Errorf("encode CONNECT: %w", err)
	}
	g.mu.Lock()
	err := g.put(packet.Bytes(), maxUnwritten)
	g.mu.Unlock()
	g.signal()
	go g.read5()
	if err == nil {
		select {
		case err = <-g.five.connack:
		case <-g.five.done:
			err = s.Err()
		case <-ctx.Done():
			_ = g.fail(fmt.Errorf("no answer to CONNECT within %v: is this an MQTT broker?", cfg.ConnectTimeout))
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		c.concede(server, err)
		if why := s.Err(); ended(err) || ended(why) {
			err = fmt.Errorf("%w: %w", errNoAnswer, io.EOF)
		} else if why != nil && !errors.Is(why, net.ErrClosed) {
			err = why
		}
		return err
	}
	p := g.five.welcome
	s.present = g.present && !clean
	s.limits = Limits{Window: cfg.Window, MaxQoS: 2, Properties: true, SubscriptionIDs: p.SubIDAvailable == nil || *p.SubIDAvailable == 1}
	if p.ReceiveMaximum != nil {
		s.limits.Window = min(s.limits.Window, int(*p.ReceiveMaximum))
	}
	if p.MaximumPacketSize != nil {
		s.limits.MaxPacket = g.five.maxPacket
	}
	if p.MaximumQOS != nil {
		s.limits.MaxQoS = *p.MaximumQOS
	}
	if p.AssignedClientID != "" {
		s.key = server.String() + " " + p.AssignedClientID
	}
	if !cfg.TopicAlias {
		g.mu.Lock()
		g.five.aliasMax = 0
		g.mu.Unlock()
	}
	if want := cfg.expiry(); p.SessionExpiryInterval != nil && *p.SessionExpiryInterval < want && !clean {
		c.opt.Log.Warn("the broker keeps this device's session for a shorter time than asked for", "server", server.String(), "seconds", *p.SessionExpiryInterval)
	}
	keepalive := cfg.Keepalive
	if p.ServerKeepAlive != nil {
		keepalive = time.Duration(*p.ServerKeepAlive) * time.Second
	}
	go conn.ping(keepalive)
	return nil
}

// connectPacket is CONNECT as configured (section 3.1).
func (c *Client) connectPacket(server Server, clean bool, password string) *packets.Connect {
	cfg := c.opt.Config
	receive, largest := uint16(cfg.ReceiveMaximum), uint32(cfg.MaxPacket)+5
	p := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: cfg.ClientID, CleanStart: clean, KeepAlive: uint16(cfg.Keepalive / time.Second),
		Username: cfg.Username, UsernameFlag: cfg.Username != "", Password: []byte(password), PasswordFlag: password != "",
		Properties: &packets.Properties{ReceiveMaximum: &receive, MaximumPacketSize: &largest}}
	if !clean {
		e := cfg.expiry()
		p.Properties.SessionExpiryInterval = &e
	}
	if c.opt.NoWill {
		return p
	}
	p.WillFlag, p.WillTopic, p.WillMessage = true, cfg.Will.Topic, []byte(cfg.Will.Payload)
	p.WillQOS, p.WillRetain, p.WillProperties = byte(cfg.Will.QoS), cfg.Will.Retain, &packets.Properties{}
	if cfg.Will.Delay > 0 {
		d := uint32(cfg.Will.Delay / time.Second)
		p.WillProperties.WillDelayInterval = &d
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.conceded[server.String()]; ok {
		p.WillRetain = p.WillRetain && !k.noRetain
		if k.limited {
			p.WillQOS = min(p.WillQOS, k.maxQoS)
		}
	}
	return p
}

// concede learns from a refused will, so that a broker without retained messages, or with a lower QoS, can be used all the same.
func (c *Client) concede(server Server, err error) {
	var r *ReasonError
	if !errors.As(err, &r) || !r.Refused || r.Code != reasonNoRetain && r.Code != reasonNoQoS {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conceded == nil {
		c.conceded = map[string]concessions{}
	}
	k := c.conceded[server.String()]
	switch {
	case r.Code == reasonNoRetain:
		k.noRetain = true
	case !k.limited:
		k.limited, k.maxQoS = true, 1
	default:
		k.maxQoS = 0
	}
	c.conceded[server.String()] = k
	c.opt.Log.Warn("the broker does not take the will as configured: it is asked for less", "server", server.String(), "reason", Reason(r.Code, r.Text))
}

// expiry is the Session Expiry Interval in seconds; the largest means for ever (section 3.1.2.11.2).
func (c Config) expiry() uint32 {
	if c.SessionExpiry <= 0 || c.SessionExpiry/time.Second >= math.MaxUint32 {
		return math.MaxUint32
	}
	return uint32(c.SessionExpiry / time.Second)
}
