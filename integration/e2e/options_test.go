package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/integration/broker"
	"fieldagent/integration/wire"
)

// script is a broker that does what a test says, and keeps every CONNECT.
type script struct {
	changes
	l        net.Listener
	connects []wire.Packet
	granted  byte // to every filter that is asked for
}

func newScript(t *testing.T, granted byte) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{l: l, granted: granted}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *script) serve(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		p, err := wire.Read(in, 1<<20)
		if err != nil {
			return
		}
		var answer wire.Packet
		switch p.Type() {
		case wire.CONNECT:
			s.mu.Lock()
			s.connects = append(s.connects, p)
			s.note()
			s.mu.Unlock()
			answer = wire.Make(wire.CONNACK, 0, []byte{0, 0})
		case wire.SUBSCRIBE:
			body := []byte{byte(p.ID() >> 8), byte(p.ID())}
			head := 4 // type, length, packet id
			if p.Raw[1] >= 0x80 {
				head = 5
			}
			for rest := p.Raw[head:]; len(rest) > 2; rest = rest[3+int(rest[0])<<8+int(rest[1]):] {
				body = append(body, s.granted)
			}
			answer = wire.Make(wire.SUBACK, 0, body)
		case wire.PINGREQ:
			answer = wire.Make(wire.PINGRESP, 0, nil)
		case wire.PUBLISH:
			if p.QoS() == 0 {
				continue
			}
			answer = wire.Ack(wire.PUBACK+p.QoS()-1, p.ID())
		case wire.PUBREL:
			answer = wire.Ack(wire.PUBCOMP, p.ID())
		default:
			continue
		}
		if _, err := c.Write(answer.Raw); err != nil {
			return
		}
	}
}

// What stands in the file stands on the wire.
func TestOptionsOnTheWire(t *testing.T) {
	t.Parallel()
	const will = "\x00\x18fieldagent/pump-7/status\x00\x07offline"
	for name, c := range map[string]struct {
		mqtt string
		want string // CONNECT from the protocol's name on
	}{
		"defaults":            {"", "\x00\x04MQTT\x04\x2c\x00\x1e\x00\x06pump-7" + will},
		"keepalive 0":         {"keepalive: 0", "\x00\x04MQTT\x04\x2c\x00\x00\x00\x06pump-7" + will},
		"clean session":       {"clean_session: true", "\x00\x04MQTT\x04\x2e\x00\x1e\x00\x06pump-7" + will},
		"client id":           {"client_id: other", "\x00\x04MQTT\x04\x2c\x00\x1e\x00\x05other" + will},
		"will":                {"will: {topic: gone, payload: bye, qos: 2, retain: false}", "\x00\x04MQTT\x04\x14\x00\x1e\x00\x06pump-7\x00\x04gone\x00\x03bye"},
		"prefix":              {"prefix: plant/a", "\x00\x04MQTT\x04\x2c\x00\x1e\x00\x06pump-7\x00\x15plant/a/pump-7/status\x00\x07offline"},
		"user and credential": {"username: me, password_file: mqtt-password", "\x00\x04MQTT\x04\xec\x00\x1e\x00\x06pump-7" + will + "\x00\x02me\x00\x07s e cre"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, 2)
			d := newDevice(t, fmt.Sprintf("device: {id: pump-7}\nmqtt: {servers: [\"mqtt://%s\"], %s}\n", s.l.Addr(), c.mqtt))
			d.credentials = map[string]string{"mqtt-password": "s e cre\n"}
			d.run()
			if !s.await(func() bool { return len(s.connects) > 0 }) {
				t.Fatal("no CONNECT")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			raw := s.connects[0].Raw
			if got := string(raw[2:]); len(raw) > 127+2 || got != c.want {
				t.Errorf("CONNECT is\n%q, want\n%q", got, c.want)
			}
			if strings.Contains(d.log.String(), "s e cre") {
				t.Error("the password is logged")
			}
		})
	}
}

// A subscription that is refused or given less is said in the log, in the health and in the status, and readings and events go on.
func TestSubscriptionNotGranted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		granted byte
		want    string
	}{
		"refused":    {0x80, "subscription refused: fieldagent/pump-7/cmd/+: allow it in the broker's access list"},
		"downgraded": {0, "subscription downgraded: fieldagent/pump-7/cmd/+ at QoS 0, asked for 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, c.granted)
			d := newDevice(t, fmt.Sprintf("device: {id: pump-7}\nmqtt: {servers: [\"mqtt://%s\"]}\n", s.l.Addr()))
			d.run()
			d.log.line(t, "the device cannot be commanded as it should", c.want)
			d.until("the status", func() bool {
				return strings.Contains(fmt.Sprint(d.get("/v1/status")["broker"].(map[string]any)["error"]), c.want)
			})
			if text := d.cli(0, "status"); !strings.Contains(text, c.want) {
				t.Errorf("status:\n%s", text)
			}
			d.cli(0, "emit", "vend", "--wait")
			d.log.line(t, "msg=connected")
			if n := strings.Count(d.log.String(), "cannot be commanded"); n != 1 {
				t.Errorf("it is said %d times", n)
			}
		})
	}
}

// The servers are tried in their order, and the next one is taken while the first is away.
func TestServersInOrder(t *testing.T) {
	t.Parallel()
	first, second := startBroker(t), startBroker(t)
	d := newDevice(t, fmt.Sprintf("device: {id: pump-7}\nmqtt: {servers: [\"mqtt://%s\", \"mqtt://%s\"], reconnect: {min: 20ms, max: 100ms}}\n", first.Addr(), second.Addr()))
	at := func(b broker.Broker) {
		t.Helper()
		d.until("a connection to "+b.Addr(), func() bool {
			broker := d.get("/v1/status")["broker"].(map[string]any)
			return broker["connected"] == true && broker["server"] == "mqtt://"+b.Addr()
		})
		d.cli(0, "emit", "vend", "--wait", "--timeout", patience.String())
	}
	d.run()
	at(first)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	at(second)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	at(first)
}

// secrets writes the device's systemd credentials and returns their folder.
func (d *device) secrets() string {
	d.t.Helper()
	dir := filepath.Join(d.dir, "credentials")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	for name, text := range d.credentials {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
			d.t.Fatal(err)
		}
	}
	return dir
}
