package five

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
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

	"fieldagent/integration/broker"

	"github.com/gorilla/websocket"
)

const mqttjs = "5.16.0" // of npm's package mqtt

//go:embed peer.mjs
var peerProgram []byte

// library installs MQTT.js into the user's cache once and returns the folder it is in.
func library(t *testing.T) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "fieldagent", "mqttjs-"+mqttjs)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "mqtt", "package.json")); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "mqttjs-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", tmp, "mqtt@"+mqttjs).CombinedOutput(); err != nil {
		t.Fatalf("npm install mqtt@%s: %v\n%s", mqttjs, err, out)
	}
	if err := os.Rename(tmp, dir); err != nil && !os.IsExist(err) {
		if _, e := os.Stat(filepath.Join(dir, "node_modules")); e != nil { // nobody else was faster
			t.Fatal(err)
		}
	}
	return dir
}

// fromPeer is a line of the peer's.
type fromPeer struct {
	Topic, Payload, ContentType, Correlation, Error string
	QoS                                             int
	Retain, Ready                                   bool
}

// peer is a running MQTT.js client.
type peer struct {
	t     *testing.T
	in    io.WriteCloser
	lines chan fromPeer
}

func newPeer(t *testing.T, url, version string) *peer {
	t.Helper()
	program := filepath.Join(t.TempDir(), "peer.mjs")
	if err := os.WriteFile(program, peerProgram, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", program, library(t), url, version)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := broker.StartChild(cmd); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, in: in, lines: make(chan fromPeer, 10000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			var l fromPeer
			if json.Unmarshal(s.Bytes(), &l) == nil {
				p.lines <- l
			}
		}
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended; cmd.Wait() })
	p.wait("the subscription", func(l fromPeer) bool { return l.Ready })
	return p
}

// wait reads until a line fits.
func (p *peer) wait(what string, fits func(fromPeer) bool) fromPeer {
	p.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case l, ok := <-p.lines:
			if !ok || l.Error != "" {
				p.t.Fatalf("%s: the peer ended: %s", what, l.Error)
			}
			if fits(l) {
				return l
			}
		case <-limit:
			p.t.Fatalf("in vain: %s", what)
		}
	}
}

func (p *peer) publish(topic, payload string, qos int, more string) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, `{"topic":%q,"payload":%q,"qos":%d%s}`+"\n", topic, payload, qos, more); err != nil {
		p.t.Fatal(err)
	}
}

// overWebSocket is a server that passes MQTT in WebSocket on to a broker.
func overWebSocket(t *testing.T, b broker.Broker) string {
	up := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	var all sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		c, err := net.Dial("tcp", b.Addr())
		if err != nil {
			return
		}
		defer c.Close()
		all.Go(func() {
			defer ws.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if err != nil || ws.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
					return
				}
			}
		})
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				return
			}
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close(); all.Wait() })
	return "ws://" + strings.TrimPrefix(s.URL, "http://") + "/mqtt"
}

// MQTT.js hears everything, commands at each QoS and configures at each QoS, over mqtt and ws, with versions 4 (3.1.1) and 5.
func TestMQTTjs(t *testing.T) {
	for _, way := range []string{"mqtt", "ws"} {
		for _, version := range []string{"4", "5"} {
			t.Run(way+" "+version, func(t *testing.T) {
				b := mosquitto(t)
				url := "mqtt://" + b.Addr()
				if way == "ws" {
					url = overWebSocket(t, b)
				}
				p := newPeer(t, url, version)
				d := start(t, t.TempDir(), url, map[string]string{"4": "  version: \"3.1.1\"\n", "5": five}[version], "sensors: [{name: cabinet, driver: simulated, every: 200ms}]\n", nil)
				root := "fieldagent/pump-7/"
				on := func(topic, text string) func(fromPeer) bool {
					return func(l fromPeer) bool { return l.Topic == root+topic && strings.Contains(l.Payload, text) }
				}
				p.wait("online", on("status", "online"))
				p.wait("a reading", on("sensor/cabinet", "temperature_celsius"))
				await(t, "the subscription", func() bool { s := d.Status().Broker; return s.Connected && s.Error == "" })
				for qos := range 3 {
					id := d.stored(fmt.Sprintf(`{"type":"vend","qos":%d}`, max(qos, 1)))
					if l := p.wait("an event", on("event/vend", id.String())); l.QoS != max(qos, 1) || l.Retain || version == "5" && l.ContentType != contentEvents {
						t.Errorf("%+v", l)
					}
					p.publish(root+"cmd/ping", fmt.Sprintf(`{"id":"js-%d"}`, qos), qos, "")
					if l := p.wait("a result", on("cmd/ping/result", fmt.Sprintf(`"id":"js-%d","status":"ok"`, qos))); l.QoS != 1 {
						t.Errorf("%+v", l)
					}
					p.publish(root+"config/set", fmt.Sprintf("sensors: [{name: js%d, driver: simulated, every: 200ms}]", qos), qos, "")
					p.wait("the configuration in force", func(l fromPeer) bool {
						return on("config/state", `"result":"applied"`)(l) && strings.Contains(l.Payload, `"source":"remote"`)
					})
					p.wait("a reading of the new sensor", on(fmt.Sprintf("sensor/js%d", qos), "temperature_celsius"))
				}
				if version == "5" {
					p.publish(root+"cmd/ping", "", 2, `,"responseTopic":"js/reply","correlation":"c7"`)
					if l := p.wait("a reply", func(l fromPeer) bool { return l.Topic == "js/reply" }); l.Correlation != "c7" || !strings.Contains(l.Payload, `"status":"ok"`) {
						t.Errorf("%+v", l)
					}
				}
				d.stop()
				p.wait("offline", on("status", "offline"))
			})
		}
	}
}

const contentEvents = "application/cloudevents+json"
