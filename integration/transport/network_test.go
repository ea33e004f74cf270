package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/integration/proxy"

	"github.com/nats-io/nats-server/v2/server"
)

// natsServer serves MQTT inside WebSocket, with or without TLS, and plain MQTT. It returns the port of the WebSocket.
func natsServer(t *testing.T, a *authority) int {
	t.Helper()
	opts := &server.Options{ServerName: "judge", Host: "127.0.0.1", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	opts.MQTT.Host, opts.MQTT.Port = "127.0.0.1", freePort(t)
	opts.Websocket.Host, opts.Websocket.Port, opts.Websocket.NoTLS = "127.0.0.1", freePort(t), a == nil
	if a != nil {
		opts.Websocket.TLSConfig = a.server()
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("NATS does not become ready")
	}
	return opts.Websocket.Port
}

func TestWebSocket(t *testing.T) {
	a := newAuthority(t)
	plain, secure := natsServer(t, nil), natsServer(t, a)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }))
	t.Cleanup(page.Close)
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
	}))
	t.Cleanup(endless.Close)
	for name, c := range map[string]struct {
		server string
		tls    mqtt.TLS
		want   string
	}{
		"ws":                 {fmt.Sprintf("ws://127.0.0.1:%d", plain), mqtt.TLS{}, ""},
		"ws with a path":     {fmt.Sprintf("ws://127.0.0.1:%d/mqtt", plain), mqtt.TLS{}, ""},
		"wss":                {fmt.Sprintf("wss://127.0.0.1:%d", secure), mqtt.TLS{CAFile: a.file}, ""},
		"wss, not checked":   {fmt.Sprintf("wss://127.0.0.1:%d", secure), mqtt.TLS{InsecureSkipVerify: true}, ""},
		"wss, not trusted":   {fmt.Sprintf("wss://127.0.0.1:%d", secure), mqtt.TLS{}, "the broker's certificate is signed by an authority that is not trusted: set mqtt.tls.ca_file to that authority's certificate"},
		"a page":             {"ws" + strings.TrimPrefix(page.URL, "http") + "/broker", mqtt.TLS{}, "WebSocket: the server answers 404 Not Found to /broker: check the path in mqtt.servers"},
		"an endless answer":  {"ws" + strings.TrimPrefix(endless.URL, "http"), mqtt.TLS{}, "WebSocket: the answer to the handshake is too long"},
		"ws to wss":          {fmt.Sprintf("ws://127.0.0.1:%d", secure), mqtt.TLS{}, "WebSocket: the server answers 400 Bad Request to /mqtt: check the path in mqtt.servers, and whether it wants wss"},
		"wss to ws":          {fmt.Sprintf("wss://127.0.0.1:%d", plain), mqtt.TLS{}, "the broker does not speak TLS on this port: use mqtt:// or ws://, or the broker's TLS port"},
		"mqtt to a web page": {"mqtt" + strings.TrimPrefix(page.URL, "http"), mqtt.TLS{}, `the broker breaks the MQTT protocol: the answer to CONNECT begins with "HTTP/1.1 400": is this an MQTT broker?`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(c.server, "3.1.1")
			cfg.ClientID, cfg.TLS = "dev-"+fmt.Sprint(time.Now().UnixNano()), c.tls
			client := run(t, cfg, nil)
			if c.want != "" {
				client.fails(t, c.want)
				return
			}
			s := client.connected(t)
			if err := s.Subscribe(t.Context(), mqtt.Subscription{Filter: "dev/in", QoS: 2}); err != nil {
				t.Error(err)
			}
			roundTrip(t, s)
			s.Close(fmt.Errorf("cut by the test"))
			if s = client.connected(t); !s.Present() {
				t.Error("the session is gone after a cut line")
			}
			roundTrip(t, s)
		})
	}
}

func TestNobodyThere(t *testing.T) {
	refused := freePort(t)
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() }) // the kernel takes connections, nobody answers
	r := resolver(nameserver(t, nil))
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{Resolver: r}).DialContext(ctx, network, address)
	}
	for name, c := range map[string]struct{ server, want string }{
		"refused":       {fmt.Sprintf("mqtt://127.0.0.1:%d", refused), "nothing listens there (connection refused): is the broker running, and is the port right?"},
		"unknown host":  {"mqtts://broker.example.net", "the name broker.example.net cannot be looked up (no such host): check mqtt.servers and the network's DNS"},
		"no answer":     {"mqtt://" + mute.Addr().String(), "no answer to CONNECT within 1s: is this an MQTT broker?"},
		"no TLS answer": {"mqtts://" + mute.Addr().String(), "no answer within 1s (mqtt.connect_timeout): check address, port and firewalls"},
		"no web answer": {"ws://" + mute.Addr().String(), "no answer within 1s (mqtt.connect_timeout): check address, port and firewalls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(c.server, "3.1.1")
			cfg.ConnectTimeout = time.Second
			run(t, cfg, dial).fails(t, c.want)
		})
	}
}

// nameserver knows the same addresses for every name: what address says for a kind of record, nil for none. Without addresses there is no such name
// (RFC 1035 section 4.1, RCODE 3).
func nameserver(t *testing.T, address func(kind uint16) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12
			for end < n && b[end] != 0 {
				end += 1 + int(b[end])
			}
			if end+5 > n {
				continue
			}
			answer := append([]byte(nil), b[:end+5]...)
			binary.BigEndian.PutUint16(answer[2:], 0x8183)
			binary.BigEndian.PutUint64(answer[4:], 1<<48) // the question, nothing else
			if address != nil {
				binary.BigEndian.PutUint16(answer[2:], 0x8180)
				kind := binary.BigEndian.Uint16(b[end+1:])
				if data := address(kind); data != nil {
					binary.BigEndian.PutUint64(answer[4:], 1<<48|1<<32)
					answer = binary.BigEndian.AppendUint16(append(answer, 0xc0, 12), kind)
					answer = append(answer, 0, 1, 0, 0, 0, 60, 0, byte(len(data)))
					answer = append(answer, data...)
				}
			}
			_, _ = c.WriteTo(answer, from)
		}
	}()
	return c.LocalAddr().String()
}

// resolver asks one name server only.
func resolver(dns string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", dns)
	}}
}

// A line that swallows everything while both ends stay open is found, and left behind for a new connection.
func TestHalfOpen(t *testing.T) {
	b := startBroker(t, 0)
	p, err := proxy.Listen(b.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	cfg := config("mqtt://"+p.Addr(), "3.1.1")
	cfg.Keepalive = 2 * time.Second
	c := run(t, cfg, nil)
	roundTrip(t, c.connected(t))
	p.Freeze()
	roundTrip(t, c.connected(t))
	c.await(t, "the reason", func(lines []string) bool {
		return count(lines, "connection lost: no sign of life from the broker for 3s (one and a half keepalives): connection given up") == 1
	})
	c.stop()
}
