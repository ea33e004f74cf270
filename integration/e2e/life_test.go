package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// The main job on real input: this machine's own sensors, a real broker, an independent client.
func TestReadingsStatusAndWill(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sub := subscribe(t, b)
	d := newDevice(t, local(b, "sensors:\n  - {name: board, driver: host, every: 1s}\n  - {name: tank, driver: simulated, every: 1s}\n"))
	d.run()
	_, n := sub.wait("status", 0, is("online"))
	m, _ := sub.wait("sensor/board", 0, nil)
	var reading map[string]any
	if err := json.Unmarshal([]byte(m.Payload), &reading); err != nil || m.QoS != 0 || m.Retain != 0 {
		t.Errorf("reading %+v: %v", m, err)
	}
	at, err := time.Parse(time.RFC3339, reading["time"].(string))
	if err != nil || time.Since(at) > patience || len(reading) < 4 {
		t.Errorf("reading %s: %v", m.Payload, err)
	}
	if m, _ := sub.wait("sensor/board/status", 0, is("ok")); m.QoS != 0 {
		t.Errorf("%+v", m)
	}
	sub.wait("sensor/tank", 0, nil)
	m, _ = sub.wait("info", 0, nil)
	var info struct {
		Agent, Version, Device, Boot string
		Protocol                     int
		Sensors                      []struct {
			Name   string
			Values []struct{ Name, Unit string }
		}
	}
	for _, topic := range []string{"status", "info"} { // each once a connection
		n := 0
		sub.mu.Lock()
		for _, m := range sub.got {
			if m.Topic == sub.root+topic {
				n++
			}
		}
		sub.mu.Unlock()
		if n != 1 {
			t.Errorf("%s was sent %d times", topic, n)
		}
	}
	if err := json.Unmarshal([]byte(m.Payload), &info); err != nil || info.Agent != "fieldagent" || info.Version != "v0.0.0-e2e" || info.Device != "pump-7" || info.Protocol < 1 || info.Boot == "" || len(info.Sensors) != 2 {
		t.Errorf("info %s: %v", m.Payload, err)
	}
	m, _ = sub.wait("health", 0, nil)
	var health struct {
		Uptime *float64 `json:"uptime_seconds"`
		Clock  string
		Outbox struct {
			Depth, Bytes *int64
			Limit        *int64 `json:"limit_bytes"`
		}
		Readings struct{ Sent, Dropped *int64 }
		Memory   struct {
			Resident int64 `json:"resident_bytes"`
		}
		Sensors map[string]struct{ State, Error string }
	}
	if err := json.Unmarshal([]byte(m.Payload), &health); err != nil || health.Uptime == nil || health.Clock == "" || health.Outbox.Depth == nil || health.Outbox.Limit == nil ||
		health.Readings.Sent == nil || health.Readings.Dropped == nil || len(health.Sensors) != 2 {
		t.Errorf("health %s: %v", m.Payload, err)
	}

	sub.wait("config/state", 0, contains(`"source":"local"`))
	d.kill()
	m, n = sub.wait("status", n, nil)
	if m.Payload != "offline" || m.QoS != 1 {
		t.Errorf("after kill -9 the status is %+v", m)
	}
	d.run()
	_, n = sub.wait("status", n, is("online"))
	code, took := d.stop()
	if code != 0 || took > 2*time.Second {
		t.Errorf("SIGTERM: exit code %d after %v", code, took)
	}
	sub.wait("status", n, is("offline"))
	if last := find(d.log.String(), "stopped"); last == "" {
		t.Error("the end is not logged")
	}
	// A line per change of state, none per reading.
	if n := strings.Count(d.log.String(), "\n"); n > 40 {
		t.Errorf("%d lines of log for two short lives", n)
	}
	// What is retained is there for who comes later.
	late := subscribeAs(t, b, "late")
	for _, topic := range []string{"status", "info", "sensor/board/status", "config/state", "config/current"} {
		if m, _ := late.wait(topic, 0, nil); m.Retain != 1 {
			t.Errorf("%s is not retained", topic)
		}
	}
}

func TestStopWithoutABroker(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	d := newDevice(t, local(b, "sensors: [{name: board, driver: host, every: 1s}]\n"))
	d.run()
	d.connected()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	d.log.line(t, "connection lost")
	d.log.line(t, "no connection to the broker, will be tried again", "nothing listens there (connection refused)")
	d.until("a dropped reading", func() bool { return d.get("/v1/status")["readings"].(map[string]any)["dropped"].(float64) > 0 })
	if code, took := d.stop(); code != 0 || took > 2*time.Second {
		t.Errorf("SIGTERM: exit code %d after %v", code, took)
	}
}
