package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
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

// server stops at the first step that fails: name, TCP or socket, proxy, TLS, WebSocket, MQTT, subscribe, publish.
func (d *doctor) server(ctx context.Context, cfg agent.Config, s mqtt.Server) {
	step := func(what string, fn func(context.Context) error) bool {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return d.check(what, fn(ctx))
	}
	mc := cfg.MQTT.Config
	mc.CleanSession, mc.ClientID = true, "fieldagent-doctor-"+cfg.ID()
	topic := cfg.Source() + "/doctor"
	mc.Will = mqtt.Will{Topic: topic, Payload: "gone"}
	client, err := mqtt.New(mqtt.Options{Config: mc.Only(s), Secret: d.secret})
	if err != nil {
		d.check("MQTT to "+s.String(), err)
		return
	}
	hop, err := client.Hop(s)
	if err != nil {
		d.check("way to "+s.String(), err)
		return
	}
	key, who := "mqtt.servers", "the broker"
	if hop.Proxy {
		key, who = "mqtt.transport.proxy", "the proxy"
	}
	host, port, _ := net.SplitHostPort(hop.Address)
	if hop.Network == "tcp" && net.ParseIP(host) == nil && !step("name "+host, func(ctx context.Context) error {
		_, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			err = fmt.Errorf("%w; correct %s, or the name servers (resolvectl status, /etc/resolv.conf)", err, key)
		}
		return err
	}) {
		return
	}
	if !step(map[string]string{"tcp": "TCP to ", "unix": "socket "}[hop.Network]+hop.Address, func(ctx context.Context) error {
		err := client.Knock(ctx, s)
		switch {
		case err != nil && hop.Network == "unix":
			return fmt.Errorf("%w; is the broker running, is the path right, may %s open it?", err, d.who.name)
		case err != nil:
			return fmt.Errorf("%w; is %s running, are address and port right, is a firewall between? try: nc -vz %s %s", err, who, host, port)
		}
		return nil
	}) {
		return
	}
	var more []string
	if hop.Proxy {
		more = append(more, "proxy")
	}
	if s.Secure() {
		more = append(more, "TLS")
	}
	if s.WebSocket() {
		more = append(more, "WebSocket")
	}
	if len(more) > 0 && !step(strings.Join(more, " and ")+" to "+net.JoinHostPort(s.Host, s.Port), func(ctx context.Context) error { return client.Reach(ctx, s) }) {
		return
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
			case acks := <-session.Acks():
				if len(acks) == 0 {
					err = session.Err()
				} else if acks[0].Reason >= 0x80 { // MQTT 5
					err = fmt.Errorf("the broker refuses it: %s; correct its access list for this user", mqtt.Reason(acks[0].Reason, acks[0].Text))
				}
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
