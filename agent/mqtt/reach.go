package mqtt

import (
	"context"
	"errors"
	"net"
)

// Hop is where the way to a server begins.
type Hop struct {
	Network string // tcp or unix
	Address string // host:port, or the socket's path
	Proxy   bool   // it is the proxy's
}

// Hop returns the first address on the way to s: its own, or its proxy's.
func (c *Client) Hop(s Server) (Hop, error) {
	if s.Scheme == "unix" {
		return Hop{Network: "unix", Address: s.Path}, nil
	}
	proxy, _, err := proxyFor(c.opt.Config.transport(s), s)
	if err != nil {
		return Hop{}, err
	}
	if proxy != nil {
		return Hop{Network: "tcp", Address: proxy.Host, Proxy: true}, nil
	}
	return Hop{Network: "tcp", Address: s.address()}, nil
}

func (s Server) address() string { return net.JoinHostPort(s.Host, s.Port) }

// Knock connects to the first hop towards s, over the interface and from the address that are configured, and closes.
func (c *Client) Knock(ctx context.Context, s Server) error {
	hop, err := c.Hop(s)
	if err != nil {
		return err
	}
	conn, err := dialer(c.opt.Config.transport(s))(ctx, hop.Network, hop.Address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Reach opens a connection to s up to the point where MQTT begins (TCP, proxy, TLS, WebSocket) and closes it. Its error says what mends it.
func (c *Client) Reach(ctx context.Context, s Server) error {
	conn, err := c.dial(ctx, s)
	if err != nil {
		return errors.New(c.explain(s, err))
	}
	return conn.Close()
}
