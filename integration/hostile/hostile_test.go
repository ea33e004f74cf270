package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fieldagent/integration/device"
	"fieldagent/integration/wire"
)

const peakKB = 32 << 10 // resident memory that the agent may ever have had

// TestHostileBroker lets a broker attack the built agent in every way that we know of: it lives, stays small, takes nothing for a confirmation, and delivers as soon as the broker behaves.
func TestHostileBroker(t *testing.T) {
	program, err := device.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"mqtt", "mqtts", "ws"} {
		t.Run(scheme, func(t *testing.T) { besiege(t, program, scheme, "3.1.1", attacks) })
	}
	for _, scheme := range []string{"mqtt", "mqtts", "ws"} {
		t.Run(scheme+" with MQTT 5", func(t *testing.T) { besiege(t, program, scheme, "5", attacks5) })
	}
}

func besiege(t *testing.T, program, scheme, version string, attacks []attack) {
	t.Parallel() // mostly waiting
	dir, err := os.MkdirTemp("", "fa-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ca := filepath.Join(dir, "ca.pem")
	l, err := listen(scheme, version == "5", certificate(t, ca))
	if err != nil {
		t.Fatal(err)
	}
	defer l.tcp.Close()
	d, err := device.New(program, dir, fmt.Sprintf(`device: {id: hostile}
mqtt:
  version: %q
  servers: [%q]
  keepalive: 60s
  connect_timeout: 1s
  reconnect: {min: 10ms, max: 50ms}
  tls: {ca_file: %s}
`, version, l.url(), ca))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Kill()
	if err := errors.Join(d.Start(""), d.Await(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 6 {
		id, _, err := d.Emit("vend", 2-i/3, strings.Repeat("x", 100))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	n := 0
	for _, a := range attacks {
		if a.only != "" && a.only != scheme {
			continue
		}
		n++
		p, err := l.accept(a.raw)
		if err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		if err := a.run(p); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
		p.Close()
		if !d.Running() {
			log, _ := os.ReadFile(d.Log())
			t.Fatalf("%s: the agent ended with code %d\n%s", a.name, d.Exit(), log[max(0, len(log)-2000):])
		}
		if err := unconfirmed(d, ids); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
	}
	peak := peakMemory(t, d.PID())
	t.Logf("%d attacks, peak %d KB resident", n, peak)
	if peak > peakKB {
		t.Errorf("the agent had %d KB resident, the limit is %d", peak, peakKB)
	}
	d.Kill() // it may hold QoS 2 back from a broker that answered PUBACK
	if err := d.Start(""); err != nil {
		t.Fatal(err)
	}
	got, err := behave(l, len(ids))
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		if got[i] != id {
			t.Fatalf("delivered %v, want %v first", got, ids)
		}
	}
}

// unconfirmed makes sure that no event is taken for delivered.
func unconfirmed(d *device.Device, ids []string) error {
	for _, id := range ids {
		var e struct {
			State string `json:"state"`
		}
		if err := d.Get("/v1/events/"+id, &e); err != nil {
			return err
		}
		if e.State != "queued" && e.State != "sent" {
			return fmt.Errorf("event %s is %q", id, e.State)
		}
	}
	return nil
}

// behave is a faithful broker until n events are delivered.
func behave(l *listener, n int) (ids []string, err error) {
	for tries := 0; len(ids) < n && tries < 20; tries++ {
		p, err := l.accept(false)
		if err != nil {
			return ids, err
		}
		err = p.welcome()
		held := map[uint16]string{}
		for err == nil && len(ids) < n {
			var got wire.Packet
			if got, err = wire.Read(p.in, 1<<20); err != nil {
				break
			}
			switch got.Type() {
			case wire.SUBSCRIBE:
				err = p.packet(wire.SUBACK, 0, append(p.plain(byte(got.ID()>>8), byte(got.ID())), make([]byte, p.codes(got))...)...)
			case wire.PINGREQ:
				err = p.packet(wire.PINGRESP, 0)
			case wire.PUBLISH:
				switch got.QoS() {
				case 1:
					if id := wire.EventID(p.payload(got)); id != "" {
						ids = append(ids, id)
					}
					err = p.send(wire.Ack(wire.PUBACK, got.ID()).Raw...)
				case 2:
					held[got.ID()] = wire.EventID(p.payload(got))
					err = p.send(wire.Ack(wire.PUBREC, got.ID()).Raw...)
				}
			case wire.PUBREL:
				ids = append(ids, held[got.ID()])
				delete(held, got.ID())
				err = p.send(wire.Ack(wire.PUBCOMP, got.ID()).Raw...)
			}
		}
		p.Close()
	}
	if len(ids) < n {
		return ids, fmt.Errorf("%d events delivered in 20 connections, want %d", len(ids), n)
	}
	return ids, nil
}

// peakMemory is VmHWM of proc_pid_status(5), in KB.
func peakMemory(t *testing.T, pid int) (kb int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// certificate makes an authority that is its own server, and writes it to a file.
func certificate(t *testing.T, file string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
