package mqtt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const maxHops = 3 // redirections in a row, so that two brokers cannot send a device to and fro for ever

// route returns the servers to try, in order: the one that a broker sent us to, then those of the configuration.
func (c *Client) route() []Server {
	if c.next == nil {
		return c.servers
	}
	first := *c.next
	c.next = nil
	return append([]Server{first}, c.servers...)
}

// redirected says whether the connection ended with the name of another server, which is tried next (MQTT 5.0 section 4.13).
// "Server moved" stays for the life of the process: the new server is tried first, and the one that named it when that does not answer. The file is the owner's.
func (c *Client) redirected(from Server, err error) bool {
	var r *ReasonError
	if !errors.As(err, &r) || r.Code != reasonAnotherServer && r.Code != reasonServerMoved || r.Reference == "" || !c.opt.Config.Redirect {
		return false
	}
	to, bad := c.reference(from, r.Reference)
	if c.hops++; bad == nil && c.hops > maxHops {
		bad = fmt.Errorf("%d redirections in a row", c.hops)
	}
	if bad != nil {
		c.opt.Log.Error("the broker names another server, which is not followed", "server", from.String(), "reference", r.Reference, "err", bad)
		return false
	}
	c.opt.Log.Warn("the broker names another server", "server", from.String(), "to", to.String(), "reason", Reason(r.Code, r.Text))
	if r.Code == reasonServerMoved {
		if i := slices.Index(c.servers, from); i >= 0 && !slices.Contains(c.servers, to) {
			c.servers = slices.Insert(slices.Clone(c.servers), i, to)
		}
	}
	c.next = &to
	return true
}

// reference reads a Server Reference: the first of host, host:port or a URL. The connection must not become weaker: a device that speaks TLS
// stays with TLS, and it goes the same way, with the same path and the same proxy.
func (c *Client) reference(from Server, text string) (Server, error) {
	f := strings.Fields(text)
	if len(f) == 0 {
		return Server{}, errors.New("it is empty")
	}
	if !strings.Contains(f[0], "://") {
		f[0] = strings.Replace(from.Scheme, "unix", "mqtt", 1) + "://" + f[0]
	}
	to, err := ParseServer(f[0])
	switch {
	case err != nil:
		return Server{}, err
	case to.Scheme == "unix":
		return Server{}, errors.New("it is a socket on this device")
	case from.Secure() && !to.Secure():
		return Server{}, errors.New("it has no TLS, and this connection has")
	case to.WebSocket() && from.WebSocket():
		to.Path = from.Path
	}
	to.origin = from.origin
	return to, nil
}
