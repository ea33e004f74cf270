package mqtt

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// open makes the connection below TLS, WebSocket and MQTT: straight, or through a proxy.
func (c *Client) open(ctx context.Context, s Server) (net.Conn, error) {
	t := c.opt.Config.transport(s)
	dial := c.opt.Dial
	if dial == nil {
		dial = dialer(t)
	}
	if s.Scheme == "unix" {
		return dial(ctx, "unix", s.Path)
	}
	address := s.address()
	proxy, user, err := proxyFor(t, s)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return dial(ctx, "tcp", address)
	}
	password := ""
	if t.ProxyFile != "" {
		if password, err = c.opt.Secret(t.ProxyFile); err != nil {
			return nil, fmt.Errorf("mqtt.transport.proxy_password_file: %w", err)
		}
	}
	nc, err := dial(ctx, "tcp", proxy.Host)
	if err != nil {
		return nil, &proxyError{proxy.Host, err}
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	through := connectHTTP
	if proxy.Scheme != "http" {
		through = connectSOCKS
	}
	if err := through(nc, address, user, password); err != nil {
		nc.Close()
		return nil, &proxyError{proxy.Host, err}
	}
	return nc, nil
}

// proxyError is what went wrong before the broker was reached.
type proxyError struct {
	proxy string
	err   error
}

func (e *proxyError) Error() string { return fmt.Sprintf("proxy %s: %v", e.proxy, e.err) }
func (e *proxyError) Unwrap() error { return e.err }

func proxyFor(t Transport, s Server) (*url.URL, string, error) {
	switch t.Proxy {
	case "", "none":
		return nil, "", nil
	case "environment":
		u, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: net.JoinHostPort(s.Host, s.Port)}})
		if u == nil || err != nil {
			return nil, "", err
		}
		user := u.User.Username()
		u.User = nil
		u, err = parseProxy(u.String())
		return u, user, err
	}
	u, err := parseProxy(t.Proxy)
	return u, t.ProxyUser, err
}

// connectHTTP asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6). The answer is read byte by byte: what follows it belongs to the broker.
func connectHTTP(nc net.Conn, address, user, password string) error {
	auth := ""
	if user != "" {
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	}
	if _, err := fmt.Fprintf(nc, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", address, address, auth); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(&byteReader{r: nc, left: maxHandshake}, 16), &http.Request{Method: http.MethodConnect})
	switch {
	case err != nil:
		return fmt.Errorf("no answer to CONNECT: is it an HTTP proxy? %w", err)
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return errors.New("it wants a user and a password: set mqtt.transport.proxy_user and proxy_password_file")
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it answers %s to a connection to %s", resp.Status, address)
	}
	return nil
}

// byteReader hands out single bytes, so that a buffer above it never holds more than was asked for.
type byteReader struct {
	r    io.Reader
	left int
}

func (b *byteReader) Read(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, errHandshake
	}
	return b.r.Read(p[:1])
}

// connectSOCKS asks a SOCKS5 proxy, which looks the name up itself (RFC 1928, RFC 1929).
func connectSOCKS(nc net.Conn, address, user, password string) error {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || len(host) > 255 || len(user) > 255 || len(password) > 255 {
		return fmt.Errorf("%s cannot be asked of a SOCKS5 proxy", address)
	}
	hello := []byte{5, 1, 0}
	if user != "" {
		hello = []byte{5, 2, 0, 2}
	}
	var in [4]byte
	if _, err := nc.Write(hello); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, in[:2]); err != nil || in[0] != 5 {
		return fmt.Errorf("it does not speak SOCKS5: %v", err)
	}
	switch in[1] {
	case 0:
	case 2:
		b := append([]byte{1, byte(len(user))}, user...)
		if _, err := nc.Write(append(append(b, byte(len(password))), password...)); err != nil {
			return err
		}
		if _, err := io.ReadFull(nc, in[:2]); err != nil || in[1] != 0 {
			return errors.New("it refuses user and password: check mqtt.transport.proxy_user and proxy_password_file")
		}
	default:
		return errors.New("it wants a login that is not known here: set mqtt.transport.proxy_user and proxy_password_file")
	}
	ask := []byte{5, 1, 0}
	if a, err := netip.ParseAddr(host); err != nil {
		ask = append(append(ask, 3, byte(len(host))), host...)
	} else if a.Is4() {
		ask = append(append(ask, 1), a.AsSlice()...)
	} else {
		ask = append(append(ask, 4), a.AsSlice()...)
	}
	if _, err := nc.Write(binary.BigEndian.AppendUint16(ask, uint16(port))); err != nil {
		return err
	}
	if _, err := io.ReadFull(nc, in[:4]); err != nil || in[0] != 5 {
		return fmt.Errorf("no answer to CONNECT: %v", err)
	}
	if in[1] != 0 {
		return fmt.Errorf("it does not connect to %s: %s", address, socksReply(in[1]))
	}
	n := map[byte]int{1: 4, 4: 16}[in[3]]
	if in[3] == 3 {
		if _, err := io.ReadFull(nc, in[:1]); err != nil {
			return err
		}
		n = int(in[0])
	}
	_, err = io.CopyN(io.Discard, nc, int64(n+2))
	return err
}

func socksReply(code byte) string {
	words := []string{"", "general failure", "forbidden by its rules", "network unreachable", "host unreachable", "connection refused", "too many hops", "command not supported", "kind of address not supported"}
	if int(code) < len(words) {
		return words[code]
	}
	return fmt.Sprintf("code %d", code)
}
