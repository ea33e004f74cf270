package transport

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/integration/broker"

	"github.com/gorilla/websocket"
)

// world is a broker and the ways to it.
type world struct {
	t *testing.T
	b broker.Broker
}

// serve takes connections on a listener of network and address until the test ends.
func (w *world) serve(network, address string, handle func(net.Conn)) net.Listener {
	w.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.serveOn(l, handle)
}

func (w *world) serveOn(l net.Listener, handle func(net.Conn)) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				handle(c)
			})
		}
	})
	w.t.Cleanup(func() { cancel(); l.Close(); all.Wait() })
	return l
}

// relay connects a stream with the broker until one side ends.
func (w *world) relay(c io.ReadWriteCloser) {
	b, err := net.Dial("tcp", w.b.Addr())
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(b, c); b.Close() })
	wg.Go(func() { io.Copy(c, b); c.Close() })
	wg.Wait()
}

// connects runs a client until it has an acknowledgement from the broker, or says why not.
func (w *world) connects(server string, change func(*mqtt.Config)) error {
	w.t.Helper()
	cfg := config(server, "5")
	if change != nil {
		change(&cfg)
	}
	c, err := mqtt.New(mqtt.Options{Config: cfg})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	done := errors.New("done")
	var result error = errors.New("never connected")
	ctx, end := context.WithCancelCause(ctx)
	go func() { // the first failure ends it
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if s := c.State(); s.Attempts > 0 {
					end(errors.New(s.LastError))
				}
			}
		}
	}()
	_ = c.Run(ctx, func(ctx context.Context, s *mqtt.Session) error {
		if err := s.Send(mqtt.Publish{ID: 2000, QoS: 1, Topic: "way", Payload: []byte("x")}); err != nil {
			return err
		}
		_ = s.Flush()
		select {
		case acks := <-s.Acks():
			if acks[0].Kind == mqtt.Puback && acks[0].ID == 2000 {
				result = nil
			}
		case <-ctx.Done():
		}
		end(done)
		return nil
	})
	if cause := context.Cause(ctx); result != nil && cause != nil {
		return cause
	}
	return result
}

func newWorld(t *testing.T) *world {
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &world{t: t, b: b}
}

func (w *world) want(name string, err error, text string) {
	w.t.Helper()
	switch {
	case text == "" && err != nil:
		w.t.Errorf("%s: %v", name, err)
	case text != "" && (err == nil || !strings.Contains(err.Error(), text)):
		w.t.Errorf("%s: %v, want %q", name, err, text)
	}
}

func secret(t *testing.T, text string) string {
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestHTTPProxy(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	asked := ""
	l := w.serve("tcp", "127.0.0.1:0", func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		mu.Lock()
		asked = r.Method + " " + r.Host
		mu.Unlock()
		if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("u:p")) {
			fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
			return
		}
		if strings.HasPrefix(r.Host, "forbidden") {
			fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\n\r\n")
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")
		w.relay(c)
	})
	proxy := "http://" + l.Addr().String()
	login := func(c *mqtt.Config) {
		c.Transport = mqtt.Transport{Proxy: proxy, ProxyUser: "u", ProxyFile: secret(t, "p")}
	}
	w.want("with login", w.connects("mqtt://broker.invalid:1883", login), "") // only the proxy knows the name
	mu.Lock()
	if asked != "CONNECT broker.invalid:1883" {
		t.Errorf("asked for %q", asked)
	}
	mu.Unlock()
	w.want("without login", w.connects("mqtt://broker.invalid", func(c *mqtt.Config) { c.Transport.Proxy = proxy }), "proxy_user")
	w.want("forbidden", w.connects("mqtt://forbidden.invalid", login), "403 Forbidden")
	w.want("for one server", w.connects("mqtt://broker.invalid", func(c *mqtt.Config) {
		login(c)
		c.PerServer, c.Transport = []mqtt.ServerConfig{{Server: "mqtt://broker.invalid:1883", Transport: c.Transport}}, mqtt.Transport{Proxy: "http://127.0.0.1:1"}
	}), "")
	w.want("no proxy for one server", w.connects("mqtt://"+w.b.Addr(), func(c *mqtt.Config) {
		c.PerServer, c.Transport = []mqtt.ServerConfig{{Server: "mqtt://" + w.b.Addr(), Transport: mqtt.Transport{Proxy: "none"}}}, mqtt.Transport{Proxy: "http://127.0.0.1:1"}
	}), "")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	w.want("the environment is not asked", w.connects("mqtt://"+w.b.Addr(), nil), "")
	w.want("no proxy at all", w.connects("mqtt://broker.invalid", func(c *mqtt.Config) { c.Transport.Proxy = "http://" + w.b.Addr(); c.ConnectTimeout = 3 * time.Second }), "proxy")
}

func TestSOCKS(t *testing.T) {
	w := newWorld(t)
	l := w.serve("tcp", "127.0.0.1:0", func(c net.Conn) {
		in := make([]byte, 300)
		read := func(n int) []byte { _, _ = io.ReadFull(c, in[:n]); return in[:n] }
		if n := int(read(2)[1]); strings.Contains(string(read(n)), "\x02") {
			c.Write([]byte{5, 2})
			user := string(read(int(read(2)[1])))
			password := string(read(int(read(1)[0])))
			if user != "u" || password != "p" {
				c.Write([]byte{1, 1})
				return
			}
			c.Write([]byte{1, 0})
		} else {
			c.Write([]byte{5, 0})
		}
		host := ""
		switch head := read(4); head[3] {
		case 1:
			host = net.IP(read(4)).String()
		case 3:
			host = string(read(int(read(1)[0])))
		case 4:
			host = net.IP(read(16)).String()
		}
		read(2)
		if host == "closed.invalid" {
			c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
			return
		}
		c.Write(append(append([]byte{5, 0, 0, 3, 4}, "here"...), 0, 1))
		w.relay(c)
	})
	way := func(user, password string) func(*mqtt.Config) {
		return func(c *mqtt.Config) {
			c.Transport.Proxy = "socks5://" + l.Addr().String()
			if user != "" {
				c.Transport.ProxyUser, c.Transport.ProxyFile = user, secret(t, password)
			}
		}
	}
	w.want("a name", w.connects("mqtt://broker.invalid", way("", "")), "")
	w.want("an address", w.connects("mqtt://192.0.2.1", way("u", "p")), "")
	w.want("an IPv6 address", w.connects("mqtt://[2001:db8::1]:1883", way("", "")), "")
	w.want("bad login", w.connects("mqtt://broker.invalid", way("u", "wrong")), "refuses user and password")
	w.want("nobody listens", w.connects("mqtt://closed.invalid", way("", "")), "connection refused")
}

func TestWebSocketHeaders(t *testing.T) {
	w := newWorld(t)
	up := websocket.Upgrader{Subprotocols: []string{"mqttv3.1", "mqtt"}}
	mux := http.NewServeMux()
	mux.HandleFunc("/deep/path", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Site") != "north" || r.Header.Get("Authorization") != "Bearer t" {
			http.Error(rw, "no", http.StatusUnauthorized)
			return
		}
		ws, err := up.Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		w.relay(&stream{Conn: ws})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	address := "ws://" + strings.TrimPrefix(s.URL, "http://")
	headers := func(c *mqtt.Config) {
		c.Transport.Headers, c.Transport.HeadersFile = map[string]string{"X-Site": "north"}, secret(t, "Authorization: Bearer t")
	}
	w.want("path and headers", w.connects(address+"/deep/path", headers), "")
	w.want("another sub-protocol", w.connects(address+"/deep/path", func(c *mqtt.Config) { headers(c); c.Transport.SubProtocol = "mqttv3.1" }), "")
	w.want("no headers", w.connects(address+"/deep/path", nil), "401")
	w.want("another path", w.connects(address+"/mqtt", headers), "404")
	w.want("an unknown sub-protocol", w.connects(address+"/deep/path", func(c *mqtt.Config) { headers(c); c.Transport.SubProtocol = "amqp" }), "sub-protocol")
	w.want("a broken headers file", w.connects(address+"/deep/path", func(c *mqtt.Config) { c.Transport.HeadersFile = secret(t, "no header") }), "line 1 is no header")
}

// stream is a WebSocket connection as a stream of bytes.
type stream struct {
	*websocket.Conn
	r io.Reader
}

func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.r == nil {
			_, r, err := s.NextReader()
			if err != nil {
				return 0, err
			}
			s.r = r
		}
		n, err := s.r.Read(p)
		if err == io.EOF {
			s.r, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (s *stream) Write(p []byte) (int, error) {
	return len(p), s.WriteMessage(websocket.BinaryMessage, p)
}

func TestALPN(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"x-amzn-mqtt-ca", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	w.serveOn(l, func(c net.Conn) {
		s := c.(*tls.Conn)
		if s.Handshake() != nil || s.ConnectionState().NegotiatedProtocol != "x-amzn-mqtt-ca" { // another service has the port
			return
		}
		w.relay(c)
	})
	trust := func(alpn ...string) func(*mqtt.Config) {
		return func(c *mqtt.Config) { c.TLS.CAFile, c.Transport.ALPN = ca, alpn }
	}
	address := "mqtts://" + l.Addr().String()
	w.want("with ALPN", w.connects(address, trust("x-amzn-mqtt-ca")), "")
	w.want("without", w.connects(address, trust()), "closed the connection")
	w.want("another", w.connects(address, trust("h2")), "TLS")
	w.want("pre-shared key", w.connects(address, func(c *mqtt.Config) { c.TLS.PSK = "0123" }), "pre-shared keys is not supported")
}

func TestSocketsAndAddresses(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "broker.sock")
	w.serve("unix", path, func(c net.Conn) { w.relay(c) })
	w.want("unix socket", w.connects("unix://"+path, nil), "")
	w.want("no unix socket", w.connects("unix:///nowhere/broker.sock", nil), "no such file")

	l := w.serve("tcp", "[::1]:0", func(c net.Conn) { w.relay(c) })
	w.want("IPv6", w.connects("mqtt://"+l.Addr().String(), nil), "")
	from := make(chan string, 10)
	l = w.serve("tcp", "127.0.0.1:0", func(c net.Conn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		from <- host
		w.relay(c)
	})
	w.want("a source address", w.connects("mqtt://"+l.Addr().String(), func(c *mqtt.Config) { c.Transport.Source = "127.0.0.9" }), "")
	if host := <-from; host != "127.0.0.9" {
		t.Errorf("came from %s", host)
	}
	w.want("an interface", w.connects("mqtt://"+l.Addr().String(), func(c *mqtt.Config) { c.Transport.Interface = "lo" }), "")
	w.want("no such interface", w.connects("mqtt://"+l.Addr().String(), func(c *mqtt.Config) { c.Transport.Interface = "wwan77" }), `no interface "wwan77"`)
}

// A token is asked for at each connect; it never shows in an error.
func TestTokens(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", users, "dev", "tok-2").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{Lines: []string{"password_file " + users}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	w := &world{t: t, b: b}
	dir := t.TempDir()
	count := filepath.Join(dir, "count")
	program := filepath.Join(dir, "token")
	script := fmt.Sprintf("#!/bin/sh\necho run >>%s\nif [ $(wc -l <%s) -gt 1 ]; then echo tok-2; else echo old; fi\n", count, count)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	user := func(c *mqtt.Config) { c.Username, c.PasswordCommand = "dev", []string{program} }
	w.want("an old token", w.connects("mqtt://"+b.Addr(), user), "not authorized")
	w.want("a new token", w.connects("mqtt://"+b.Addr(), user), "")
	w.want("a program that fails", w.connects("mqtt://"+b.Addr(), func(c *mqtt.Config) { c.Username, c.PasswordCommand = "dev", []string{"/bin/false"} }), "password_command: /bin/false: exit status 1")
	w.want("a program that says nothing", w.connects("mqtt://"+b.Addr(), func(c *mqtt.Config) { c.Username, c.PasswordCommand = "dev", []string{"/bin/true"} }), "printed nothing")
	w.want("a program without a path", w.connects("mqtt://"+b.Addr(), func(c *mqtt.Config) { c.PasswordCommand = []string{"token"} }), "absolute path")
	w.want("a file", w.connects("mqtt://"+b.Addr(), func(c *mqtt.Config) { c.Username, c.PasswordFile = "dev", secret(t, "tok-2") }), "")
}
