package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// A full outbox refuses, says so everywhere, keeps what it has, and makes an event of what it refused.
func TestFullOutbox(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, "outbox: {max_size: 4MiB}\n"))
	d.run()
	d.connected()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	d.log.line(t, "connection lost")
	stored := 0
	body := fmt.Sprintf(`{"type":"big","data":"%s"}`, strings.Repeat("x", 60<<10))
	for ; ; stored++ {
		status, answer, err := d.request("POST", "/v1/events", body)
		if err != nil || stored > 100 {
			t.Fatalf("after %d: %d %v", stored, status, err)
		}
		if status == 507 {
			if !strings.Contains(string(answer), "full") {
				t.Errorf("507: %s", answer)
			}
			break
		}
		if status != 201 {
			t.Fatalf("%d: %s", status, answer)
		}
	}
	if stored < 5 {
		t.Errorf("only %d events of 60 KiB fit into 4 MiB", stored)
	}
	if text := d.cli(1, "emit", "big", `"`+strings.Repeat("x", 60<<10)+`"`); !strings.Contains(text, "full") {
		t.Errorf("emit into a full outbox: %s", text)
	}
	if s := d.get("/v1/outbox"); s["refused"].(float64) < 2 {
		t.Errorf("outbox: refused %v", s["refused"])
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if n := len(sub.events("big", stored)); n != stored {
		t.Errorf("%d of %d events", n, stored)
	}
	gap := sub.events("gap", 1)
	if !strings.Contains(gap[0].Payload, `"refused":`) {
		t.Errorf("the gap says %s", gap[0].Payload)
	}
}
