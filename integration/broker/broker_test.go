package broker

import (
	"bufio"
	"net"
	"testing"
	"time"

	"fieldagent/integration/wire"
)

// Each broker must come back on its own address; mosquitto and NATS must keep a session over it.
func TestRestart(t *testing.T) {
	for _, name := range []string{"mosquitto", "nats", "mochi"} {
		t.Run(name, func(t *testing.T) {
			b, err := Start(name, t.TempDir(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
			if present(t, b.Addr(), true) {
				t.Error("a session nobody made is present")
			}
			if name == "mochi" {
				return
			}
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			if _, err := net.DialTimeout("tcp", b.Addr(), time.Second); err == nil {
				t.Error("a stopped broker takes connections")
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			if !present(t, b.Addr(), false) {
				t.Error("the session did not survive a restart")
			}
			if err := Forget(b.Addr(), "someone"); err != nil {
				t.Fatal(err)
			}
			if present(t, b.Addr(), false) {
				t.Error("Forget left the session")
			}
		})
	}
}

// present connects as someone and tells whether the broker knew the session; the first time it subscribes, so that there is one.
func present(t *testing.T, addr string, subscribe bool) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(conn)
	conn.Write(wire.Connect("someone", false, 0).Raw)
	ack, err := wire.Read(in, 1000)
	if err != nil || ack.Code() != 0 {
		t.Fatalf("connect: %v %v", ack, err)
	}
	if subscribe {
		conn.Write(wire.Subscribe(1, "a/#", 2).Raw)
		if sub, err := wire.Read(in, 1000); err != nil || sub.Code() != 2 {
			t.Fatalf("subscribe: %v %v", sub, err)
		}
	}
	conn.Write(wire.Disconnect().Raw)
	return ack.SessionPresent()
}
