package transport

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fieldagent/integration/device"
)

// TestDoctorGoesTheAgentsWay: doctor reaches a broker over the ways that the agent takes, and finds fault only with what is broken.
func TestDoctorGoesTheAgentsWay(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	program, err := device.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "broker.sock")
	w.serve("unix", socket, func(c net.Conn) { w.relay(c) })
	proxy := w.serve("tcp", "127.0.0.1:0", func(c net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(c)); err != nil || r.Host != "broker.invalid:1883" {
			fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\n\r\n")
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		w.relay(c)
	}).Addr().String()
	from := make(chan string, 10)
	straight := w.serve("tcp", "127.0.0.1:0", func(c net.Conn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		from <- host
		w.relay(c)
	}).Addr().String()
	rules := filepath.Join(dir, "acl")
	if err := os.WriteFile(rules, []byte("topic read #\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	strict := startBroker(t, 0, "acl_file "+rules).Addr()
	for _, c := range []struct {
		name, mqtt string
		want       []string
	}{
		{"a socket", fmt.Sprintf(`servers: ["unix://%s"]`, socket), []string{"ok    socket " + socket, "ok    publish to "}},
		{"no socket", `servers: ["unix:///nowhere/broker.sock"]`, []string{"FAULT socket /nowhere/broker.sock: ", "is the path right"}},
		{"a proxy that alone knows the name", fmt.Sprintf(`servers: ["mqtt://broker.invalid"], transport: {proxy: "http://%s"}`, proxy), []string{"ok    TCP to " + proxy, "ok    proxy to broker.invalid:1883", "ok    publish to "}},
		{"a proxy that says no", fmt.Sprintf(`servers: ["mqtt://other.invalid"], transport: {proxy: "http://%s"}`, proxy), []string{"ok    TCP to " + proxy, "FAULT proxy to other.invalid:1883: ", "403 Forbidden"}},
		{"no proxy", `servers: ["mqtt://other.invalid"], transport: {proxy: "http://127.0.0.1:1"}`, []string{"FAULT TCP to 127.0.0.1:1: ", "is the proxy running"}},
		{"a source address for one server", fmt.Sprintf(`servers: ["mqtt://%s"], per_server: [{server: "mqtt://%s", source: 127.0.0.9}]`, straight, straight), []string{"ok    publish to "}},
		{"an interface that is not there", fmt.Sprintf(`servers: ["mqtt://%s"], transport: {interface: wwan77}`, straight), []string{"FAULT TCP to " + straight + ": ", `no interface "wwan77"`}},
		{"a broker that refuses messages", fmt.Sprintf(`servers: ["mqtt://%s"], version: "5"`, strict), []string{"ok    subscribe to ", "FAULT publish to fieldagent/box/doctor: the broker refuses it: not authorized"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fieldagent.yaml")
			if err := os.WriteFile(file, []byte("device: {id: box}\nmqtt: {"+c.mqtt+"}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "doctor", "--config", file, "--socket", filepath.Join(dir, "s"))
			out, _ := cmd.CombinedOutput() // it finds fault with this machine too
			for _, s := range c.want {
				if !strings.Contains(string(out), s) {
					t.Errorf("no %q in\n%s", s, out)
				}
			}
			if strings.Contains(strings.Join(c.want, "\n"), "ok    publish") && strings.Contains(string(out), "FAULT MQTT") {
				t.Errorf("%s", out)
			}
		})
	}
	close(from)
	for host := range from {
		if host != "127.0.0.9" {
			t.Errorf("came from %s", host)
		}
	}
}
