package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// cloudEvent is what a consumer proves its gaplessness with.
type cloudEvent struct {
	SpecVersion, Source, ID, Sequence, Type, Time, Clock, Boot, DataContentType string
	Data                                                                        struct{ N int }
}

// judge checks that n events came in order, once, at their QoS, and without a gap in their sequence.
// mosquitto_sub shows a message at QoS 2 when it is released, so that one at QoS 1 overtakes it there: with both, order is judged for each.
func judge(t *testing.T, all []message, n int, qos func(n int) int) {
	t.Helper()
	if len(all) != n {
		t.Errorf("%d events, want %d", len(all), n)
	}
	ids, numbers, last := map[string]bool{}, map[string]int{}, map[int]int{}
	for i, m := range all {
		var e cloudEvent
		if err := json.Unmarshal([]byte(m.Payload), &e); err != nil {
			t.Fatalf("event %d: %v: %s", i, err, m.Payload)
		}
		if e.SpecVersion != "1.0" || e.Source != "fieldagent/pump-7" || !strings.HasSuffix(e.ID, "-"+e.Sequence) || len(e.Sequence) != 16 || e.Time == "" || e.Clock == "" || e.Boot == "" {
			t.Errorf("event %d is no whole CloudEvent: %s", i, m.Payload)
		}
		if m.QoS != qos(e.Data.N) || m.Retain != 0 {
			t.Errorf("event %d: %+v", i, m)
		}
		if e.Data.N <= last[m.QoS] {
			t.Errorf("event %d came after %d", e.Data.N, last[m.QoS])
		}
		last[m.QoS] = e.Data.N
		if ids[e.ID] {
			t.Errorf("event %s came twice", e.ID)
		}
		ids[e.ID], numbers[e.Sequence] = true, e.Data.N
	}
	for i := 1; i <= n; i++ { // the store is new, and holds nothing else
		if got := numbers[fmt.Sprintf("%016d", i)]; got != i {
			t.Errorf("sequence %d is event %d: a gap, or out of order", i, got)
		}
	}
}

// Events made while the broker is away arrive when it is back: in order, once, without a gap, also when the agent is killed in between.
func TestEventsWhileTheBrokerIsAway(t *testing.T) {
	both := func(n int) int { return 1 + n%2 }
	for name, c := range map[string]struct {
		killed bool
		qos    func(n int) int
	}{
		"QoS 1, killed": {true, func(int) int { return 1 }},
		"QoS 2, killed": {true, func(int) int { return 2 }},
		"both":          {false, both},
		"both, killed":  {true, both},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t)
			sub := subscribe(t, b)
			d := newDevice(t, local(b, ""))
			d.run()
			d.connected()
			n := 0
			emit := func(state string) (id string) {
				t.Helper()
				n++
				data, qos := fmt.Sprintf(`{"n":%d}`, n), c.qos(n)
				if n%3 == 0 {
					return d.post(fmt.Sprintf(`{"type":"vend","qos":%d,"data":%s}`, qos, data))
				}
				out := d.cli(0, "emit", "vend", data, "--qos", fmt.Sprint(qos))
				id, got, ok := strings.Cut(strings.TrimSpace(out), " ")
				if !ok || got != state {
					t.Fatalf("emit printed %q", out)
				}
				return id
			}
			for range 4 {
				emit("stored")
			}
			sub.events("vend", 4)
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			d.log.line(t, "connection lost")
			var first string
			for range 9 {
				if id := emit("stored"); first == "" {
					first = id
				}
			}
			out := d.get("/v1/outbox")
			if out["depth"].(float64) != 9 || len(out["events"].([]any)) != 9 {
				t.Errorf("nine events wait, the outbox says %v", out)
			}
			if c.killed {
				d.kill()
				// The command line looks at the state file itself.
				if text := d.cli(0, "outbox", "ls"); !strings.Contains(text, "the agent does not run; this is its state file") || strings.Count(text, "queued") != 9 {
					t.Errorf("outbox ls without an agent:\n%s", text)
				}
				if text := d.cli(0, "outbox", "show", first); !strings.Contains(text, "queued") {
					t.Errorf("outbox show without an agent:\n%s", text)
				}
				if text := d.cli(0, "outbox", "stats"); !strings.Contains(text, `"depth": 9`) {
					t.Errorf("outbox stats without an agent:\n%s", text)
				}
				if text := d.cli(0, "outbox", "export"); strings.Count(text, `"specversion"`)+strings.Count(text, `"vend"`) < 9 {
					t.Errorf("outbox export without an agent:\n%s", text)
				}
				d.run()
			}
			for range 5 {
				emit("stored")
			}
			if text := d.cli(0, "outbox", "ls", "--limit", "3"); strings.Count(text, "vend") != 3 || !strings.Contains(text, "14 events wait in all") {
				t.Errorf("outbox ls:\n%s", text)
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			n++
			text := d.cli(0, "emit", "vend", fmt.Sprintf(`{"n":%d}`, n), "--qos", fmt.Sprint(c.qos(n)), "--wait", "--timeout", patience.String())
			if !strings.Contains(text, " acknowledged") {
				t.Errorf("emit --wait printed %q", text)
			}
			judge(t, sub.events("vend", n), n, c.qos)
			life := d.get("/v1/events/" + first)
			if life["state"] != "acknowledged" || life["sent"].(float64) < 1 || life["accepted_at"] == nil || life["first_sent_at"] == nil || life["acknowledged_at"] == nil || life["server"] != "mqtt://"+b.Addr() {
				t.Errorf("the life of %s: %v", first, life)
			}
			if text := d.cli(0, "outbox", "show", first); !strings.Contains(text, "acknowledged") || !strings.Contains(text, b.Addr()) {
				t.Errorf("outbox show:\n%s", text)
			}
			if text := d.cli(0, "outbox", "stats"); !strings.Contains(text, `"depth": 0`) {
				t.Errorf("outbox stats:\n%s", text)
			}
		})
	}
}

// Stored and "handshake complete" are two answers.
func TestStoredAndConfirmed(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, ""))
	d.run()
	d.connected()
	status, body, err := d.request("POST", "/v1/events?wait=30s", `{"type":"vend","qos":2,"data":{"n":1}}`)
	if err != nil || status != 201 || !strings.Contains(string(body), `"state":"acknowledged"`) || !strings.Contains(string(body), `"sequence":"00000000000000`) {
		t.Errorf("POST with wait: %d %v %s", status, err, body)
	}
	sub.events("vend", 1)
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	d.log.line(t, "connection lost")
	status, body, err = d.request("POST", "/v1/events?wait=100ms", `{"type":"vend","data":{"n":2}}`)
	if err != nil || status != 202 || !strings.Contains(string(body), `"state":"queued"`) {
		t.Errorf("POST with wait, no broker: %d %v %s", status, err, body)
	}
	if text := d.cli(1, "emit", "vend", "--wait", "--timeout", "100ms"); !strings.Contains(text, "queued") || !strings.Contains(text, "it is stored and will be sent") {
		t.Errorf("emit --wait, no broker: %s", text)
	}
	status, body, err = d.request("POST", "/v1/events", `{"type":"vend"}`)
	if err != nil || status != 201 || !strings.Contains(string(body), `"id":"`) || !strings.Contains(string(body), `"sequence":"`) {
		t.Errorf("POST: %d %v %s", status, err, body)
	}
}
