package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
)

const maxHandshake = 16 << 10 // bytes of the answer to a WebSocket handshake

// dial opens the connection of a server up to the point where MQTT begins.
func (c *Client) dial(ctx context.Context, s Server) (net.Conn, error) {
	nc, err := c.open(ctx, s)
	if err != nil {
		return nil, err
	}
	c.userTimeout(nc)
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := nc
	if s.Secure() {
		cfg, err := c.tlsConfig(s)
		if err != nil {
			nc.Close()
			return nil, err
		}
		t := tls.Client(nc, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		c.noteCertificates(t.ConnectionState(), cfg.Certificates)
		conn = t
	}
	if s.WebSocket() {
		if conn, err = c.webSocket(ctx, s, conn); err != nil {
			nc.Close()
			return nil, err
		}
	}
	return conn, nil
}

// userTimeout makes the kernel give up on data that nobody acknowledges (tcp(7), TCP_USER_TIMEOUT).
func (c *Client) userTimeout(nc net.Conn) {
	t, ok := nc.(*net.TCPConn)
	if !ok || c.opt.Config.Keepalive == 0 {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		ms := int(c.opt.Config.Keepalive.Milliseconds() * 3 / 2)
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms) })
	}
}

// tlsConfig reads the files anew for each connection: renewed certificates need no restart.
func (c *Client) tlsConfig(s Server) (*tls.Config, error) {
	t := c.opt.Config.TLS
	cfg := &tls.Config{ServerName: s.Host, NextProtos: c.opt.Config.transport(s).ALPN, MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify, Time: c.opt.Now}
	if t.ServerName != "" {
		cfg.ServerName = t.ServerName
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("mqtt.tls.ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mqtt.tls.ca_file: %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := os.ReadFile(t.CertFile)
		if err != nil {
			return nil, fmt.Errorf("mqtt.tls.cert_file: %w", err)
		}
		key, err := c.opt.Secret(t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("mqtt.tls.key_file: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, []byte(key))
		if err != nil {
			return nil, fmt.Errorf("mqtt.tls.cert_file and key_file: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// webSocket shakes hands on an open connection, with a cap on the answer.
func (c *Client) webSocket(ctx context.Context, s Server, conn net.Conn) (net.Conn, error) {
	t := c.opt.Config.transport(s)
	header, err := c.headers(t)
	if err != nil {
		return nil, err
	}
	protocol := t.SubProtocol
	if protocol == "" {
		protocol = "mqtt"
	}
	capped := &handshakeConn{Conn: conn}
	capped.left.Store(maxHandshake)
	use := func(context.Context, string, string) (net.Conn, error) { return capped, nil }
	d := websocket.Dialer{NetDialContext: use, NetDialTLSContext: use, Subprotocols: []string{protocol}, ReadBufferSize: 4096, WriteBufferSize: 4096}
	host := net.JoinHostPort(s.Host, s.Port)
	ws, resp, err := d.DialContext(ctx, s.Scheme+"://"+host+s.Path, header)
	if resp != nil && resp.Body != nil {
		resp.Body.Close()
	}
	switch {
	case errors.Is(err, errHandshake):
		return nil, fmt.Errorf("WebSocket: %w", err)
	case err != nil && resp != nil && resp.StatusCode == http.StatusBadRequest && !s.Secure():
		return nil, fmt.Errorf("WebSocket: the server answers %s to %s: check the path in mqtt.servers, and whether it wants wss", resp.Status, s.Path)
	case err != nil && resp != nil:
		return nil, fmt.Errorf("WebSocket: the server answers %s to %s: check the path in mqtt.servers", resp.Status, s.Path)
	case err != nil:
		return nil, fmt.Errorf("WebSocket: %w", err)
	case ws.Subprotocol() != protocol:
		ws.Close()
		return nil, fmt.Errorf("WebSocket: the server does not speak the sub-protocol %q: check the path in mqtt.servers, and mqtt.transport.subprotocol", protocol)
	}
	capped.left.Store(-1)
	ws.SetReadLimit(32 << 20) // the guard caps packets; a frame may hold many
	return &wsConn{Conn: ws.NetConn(), ws: ws}, nil
}

// headers are those of the configuration and of the file, which is read anew for each connection.
func (c *Client) headers(t Transport) (http.Header, error) {
	h := http.Header{}
	for k, v := range t.Headers {
		h.Set(k, v)
	}
	if t.HeadersFile == "" {
		return h, nil
	}
	text, err := c.opt.Secret(t.HeadersFile)
	if err != nil {
		return nil, fmt.Errorf("mqtt.transport.headers_file: %w", err)
	}
	for i, line := range strings.Split(text, "\n") {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case name == "" && !ok:
		case !ok || !validHeader(name, value):
			return nil, fmt.Errorf("mqtt.transport.headers_file: line %d is no header like Authorization: Bearer …", i+1)
		default:
			h.Set(name, strings.TrimSpace(value))
		}
	}
	return h, nil
}

var errHandshake = errors.New("the answer to the handshake is too long")

// handshakeConn ends a handshake that has no end. left below zero: the handshake is over.
type handshakeConn struct {
	net.Conn
	left atomic.Int64
}

func (c *handshakeConn) Read(p []byte) (int, error) {
	left := c.left.Load()
	if left == 0 {
		return 0, errHandshake
	}
	if left > 0 && int64(len(p)) > left {
		p = p[:left]
	}
	n, err := c.Conn.Read(p)
	if left > 0 {
		c.left.Store(left - int64(n))
	}
	return n, err
}

// wsConn is a stream of bytes in binary messages (MQTT 3.1.1 section 6).
type wsConn struct {
	net.Conn
	ws *websocket.Conn
	r  io.Reader
}

func (c *wsConn) Read(p []byte) (int, error) {
	for {
		if c.r == nil {
			kind, r, err := c.ws.NextReader()
			if err != nil {
				var ce *websocket.CloseError
				if errors.As(err, &ce) {
					err = io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, protocol("WebSocket text message")
			}
			c.r = r
		}
		n, err := c.r.Read(p)
		if err == io.EOF {
			c.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *wsConn) SetReadDeadline(t time.Time) error  { return c.ws.SetReadDeadline(t) }
func (c *wsConn) SetWriteDeadline(t time.Time) error { return c.ws.SetWriteDeadline(t) }
