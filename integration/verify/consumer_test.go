package verify

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/wire"
)

// Both brokers deliver to the consumer over a restart, each message once and in order.
func TestConsumer(t *testing.T) {
	for _, name := range []string{"mosquitto", "nats"} {
		t.Run(name, func(t *testing.T) {
			b, err := broker.Start(name, t.TempDir(), broker.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			log, err := wire.CreateLog(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			j := NewJudge()
			c := &Consumer{Addr: b.Addr(), ClientID: "judge", Filter: "fieldagent/+/event/#", Log: log, Judge: j}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			select {
			case <-c.Ready():
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(10 * time.Second):
				t.Fatal("no subscription")
			}
			const half = 200
			publish(t, b.Addr(), 1, half)
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			publish(t, b.Addr(), half+1, 2*half)
			for n := 1; n <= 2*half; n++ {
				j.Accept("fieldagent/a", fmt.Sprintf("0badcafe-%016d", n), Mark{0, n})
			}
			for end := time.Now().Add(20 * time.Second); j.Missing() > 0 && time.Now().Before(end); {
				<-time.After(10 * time.Millisecond)
			}
			if v := j.Verdict(); !v.Clean() || v.Delivered != 2*half {
				t.Error(v, v.Lost, v.Strange, v.Doubled)
				log.Flush()
				data, _ := os.ReadFile(log.Name())
				os.WriteFile("/tmp/natslog", data, 0o600)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// publish is a plain QoS 2 publisher, one message at a time.
func publish(t *testing.T, addr string, from, to int) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	expect := func(kind byte) {
		if p, err := wire.Read(in, 1000); err != nil || p.Type() != kind {
			t.Fatalf("%v, %v; want %s", p, err, wire.Name(kind))
		}
	}
	conn.Write(wire.Connect("publisher", false, 0).Raw)
	expect(wire.CONNACK)
	for n := from; n <= to; n++ {
		conn.Write(wire.Publish(uint16(n), "fieldagent/a/event/t", body(n, 0, n), 2, false).Raw)
		expect(wire.PUBREC)
		conn.Write(wire.Ack(wire.PUBREL, uint16(n)).Raw)
		expect(wire.PUBCOMP)
	}
	conn.Write(wire.Disconnect().Raw)
}
