package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"fieldagent/agent"
	"fieldagent/agent/mqtt"
)

// broker goes step by step, so that the first broken one is named.
func (d *doctor) broker(ctx context.Context, cfg agent.Config) {
	if len(cfg.MQTT.Servers) == 0 {
		d.check("broker", fmt.Errorf("no address yet, events are stored meanwhile: set mqtt.servers in %s, then sudo systemctl reload fieldagent", d.p.config))
	}
	for _, s := range cfg.MQTT.Servers {
		if server, err := mqtt.ParseServer(s); err == nil { // else said by the configuration's check
			d.server(ctx, cfg, server)
		}
	}
}

// server stops at the first step that fails: name, TCP, TLS or WebSocket, MQTT, subscribe, publish.
func (d *doctor) server(ctx context.Context, cfg agent.Config, s mqtt.Server) {
	step := func(what string, fn func(context.Context) error) bool {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return d.check(what, fn(ctx))
	}
	if net.ParseIP(s.Host) == nil && !step("name "+s.Host, func(ctx context.Context) error {
		_, err := net.DefaultResolver.LookupHost(ctx, s.Host)
		if err != nil {
			err = fmt.Errorf("%w; correct mqtt.servers, or the name servers (resolvectl status, /etc/resolv.conf)", err)
		}
		return err
	}) {
		return
	}
	address := net.JoinHostPort(s.Host, s.Port)
	if !step("TCP to "+address, func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("%w; is the broker running, are address and port right, is a firewall between? try: nc -vz %s %s", err, s.Host, s.Port)
		}
		return c.Close()
	}) {
		return
	}
	mc := cfg.MQTT.Config
	mc.Servers, mc.CleanSession, mc.ClientID = []string{s.String()}, true, "fieldagent-doctor-"+cfg.ID()
	topic := cfg.Source() + "/doctor"
	mc.Will = mqtt.Will{Topic: topic, Payload: "gone"}
	client, err := mqtt.New(mqtt.Options{Config: mc, Secret: d.secret})
	if err != nil {
		d.check("MQTT to "+s.String(), err)
		return
	}
	switch {
	case s.Secure() && s.WebSocket():
		if !step("TLS and WebSocket to "+address, func(ctx context.Context) error { return client.Reach(ctx, s) }) {
			return
		}
	case s.Secure():
		if !step("TLS to "+address, func(ctx context.Context) error { return client.Reach(ctx, s) }) {
			return
		}
	case s.WebSocket():
		if !step("WebSocket to "+address, func(ctx context.Context) error { return client.Reach(ctx, s) }) {
			return
		}
	}
	d.talk(ctx, client, s, topic)
}

// talk makes one connection beside the agent's own and sends itself a message at QoS 1.
func (d *doctor) talk(ctx context.Context, client *mqtt.Client, s mqtt.Server, topic string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	connected := false
	_ = client.Run(ctx, func(ctx context.Context, session *mqtt.Session) error {
		defer cancel()
		connected = d.check("MQTT to "+s.String(), nil)
		if !d.check("subscribe to "+topic, session.Subscribe(ctx, mqtt.Subscription{Filter: topic, QoS: 1})) {
			return nil
		}
		err := session.Send(mqtt.Publish{ID: mqtt.FirstID, QoS: 1, Topic: topic, Payload: []byte("?")})
		if err == nil {
			_ = session.Flush()
			select {
			case <-session.Acks():
			case <-ctx.Done():
				err = errors.New("the broker does not confirm a message at QoS 1: check its access list for this user and topic")
			}
		}
		d.check("publish to "+topic, err)
		return nil
	})
	if !connected {
		d.check("MQTT to "+s.String(), errors.New(client.State().LastError))
	}
}
