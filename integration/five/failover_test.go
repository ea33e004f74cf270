package five

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"fieldagent/agent"
	"fieldagent/integration/proxy"
	"fieldagent/integration/wire"
	"fieldagent/queue"
)

// Two brokers. The first takes a QoS 2 event whole, but the agent does not hear of it; then the first is gone, and later back.
func TestFailover(t *testing.T) {
	for _, version := range []string{"3.1.1", "5"} {
		for _, policy := range []string{"resend", "hold"} {
			t.Run(version+" "+policy, func(t *testing.T) { failover(t, version, policy) })
		}
	}
}

func failover(t *testing.T, version, policy string) {
	first, second := mosquitto(t), mosquitto(t)
	atFirst := client(t, first, "mosquitto_sub", "-q", "2", "-t", "+/+/event/#", "-F", "SUB %p")
	atSecond := client(t, second, "mosquitto_sub", "-q", "2", "-t", "+/+/event/#", "-F", "SUB %p")
	p, err := proxy.Listen(first.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	gone := make(chan struct{})
	p.Set(proxy.Rule{Dir: proxy.ToAgent, Kind: wire.PUBCOMP, Nth: 1, Do: proxy.Drop, Then: func() { p.Refuse(true); close(gone) }})
	d := start(t, t.TempDir(), p.Addr(), fmt.Sprintf("  version: %q\n  failover: {return_after: 1h, events: %s}\n", version, policy), "", func(o *agent.Options) {
		o.Config.MQTT.Servers = append(o.Config.MQTT.Servers, "mqtt://"+second.Addr())
		o.Config.MQTT.Failover.ReturnAfter = 100e6
	})
	id := d.stored(`{"type":"vend","qos":2}`)
	<-gone
	if got := next(t, atFirst); !strings.Contains(got, id.String()) {
		t.Fatalf("the first broker delivered %q", got)
	}
	await(t, "the second broker", func() bool { s := d.Status().Broker; return s.Connected && strings.HasSuffix(s.Server, second.Addr()) })
	switch policy {
	case "resend":
		if got := next(t, atSecond); !strings.Contains(got, id.String()) || !strings.Contains(got, `"duplicate":"possible"`) {
			t.Errorf("the second broker delivered %q", got)
		}
		if l := d.end(id); l.State != queue.StateAcked || !strings.HasSuffix(l.Server, second.Addr()) {
			t.Errorf("%+v", l)
		}
		if o := d.Status().Outbox; o.HandedOver != 1 || o.Ambiguous != 1 {
			t.Errorf("nobody counted it: %+v", o)
		}
	case "hold":
		await(t, "the reason why nothing is sent", func() bool {
			return strings.Contains(d.Status().Broker.Held, "may have been delivered by another broker")
		})
	}
	other := d.stored(`{"type":"vend","qos":2}`)
	if policy == "resend" {
		if got := next(t, atSecond); !strings.Contains(got, other.String()) || strings.Contains(got, "duplicate") {
			t.Errorf("the second broker delivered %q", got)
		}
	}
	p.Refuse(false)
	await(t, "the first broker again", func() bool { s := d.Status().Broker; return s.Connected && strings.HasSuffix(s.Server, p.Addr()) })
	last := d.stored(`{"type":"vend","qos":2}`)
	for _, id := range []queue.ID{id, other, last} {
		if l := d.end(id); l.State != queue.StateAcked {
			t.Errorf("%+v", l)
		}
	}
	if policy == "hold" {
		if got := next(t, atFirst); !strings.Contains(got, other.String()) || strings.Contains(got, "duplicate") {
			t.Errorf("the first broker delivered %q", got)
		}
	}
	if got := next(t, atFirst); !strings.Contains(got, last.String()) || strings.Contains(got, "duplicate") {
		t.Errorf("the first broker delivered %q", got)
	}
	select {
	case more := <-atFirst:
		t.Errorf("doubled at the first broker: %q", more)
	case more := <-atSecond:
		t.Errorf("at the second broker: %q", more)
	default:
	}
	if held := d.Status().Broker.Held; held != "" {
		t.Errorf("still held: %s", held)
	}
}
