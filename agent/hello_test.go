package agent

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"fieldagent/agent/mqtt"
	"fieldagent/queue"
)

// TestOnlineListens: a command that is sent when the status says online is heard, also at a broker that does not know the device yet.
func TestOnlineListens(t *testing.T) {
	b := newBroker(t)
	for range 10 {
		r := start(t, t.TempDir(), localFile(b.addr, ""), nil)
		b.wait("online", func() bool {
			ok := b.retained["fieldagent/pump-7/status"].payload == "online"
			if ok && b.sessions["pump-7"].subs["fieldagent/pump-7/cmd/+"] == 0 {
				t.Error("the status says online before the device listens")
			}
			return ok
		})
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		b.wait("offline", func() bool { return b.retained["fieldagent/pump-7/status"].payload == "offline" })
		b.mu.Lock()
		b.sessions = map[string]*brokerSession{}
		b.mu.Unlock()
	}
}

// TestOwnWill: whatever the owner's will says, the device says it too when it goes.
func TestOwnWill(t *testing.T) {
	b := newBroker(t)
	r := start(t, t.TempDir(), strings.Replace(localFile(b.addr, ""), "mqtt:\n", "mqtt:\n  will: {payload: gone}\n", 1), nil)
	b.wait("online", func() bool { return b.retained["fieldagent/pump-7/status"].payload == "online" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.wait("the goodbye", func() bool { return b.retained["fieldagent/pump-7/status"].payload == "gone" })
}

// TestStartReason: info says how the last run ended.
func TestStartReason(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	w := newWrist(7)
	run := func(want string) *rig {
		t.Helper()
		b.mu.Lock()
		delete(b.retained, "fieldagent/pump-7/info")
		b.mu.Unlock()
		r := start(t, dir, localFile(b.addr, ""), func(o *Options) { o.Clock = NewClock(w.read) })
		var info struct{ Reason, Board string }
		b.wait("info", func() bool { return json.Unmarshal([]byte(b.retained["fieldagent/pump-7/info"].payload), &info) == nil })
		if info.Reason != want || info.Board == "" {
			t.Errorf("%+v, want %q", info, want)
		}
		return r
	}
	if err := run("first start").stop(); err != nil {
		t.Fatal(err)
	}
	r := run("stopped and started")
	b.publish("fieldagent/pump-7/cmd/restart", `{"id":"r-1"}`, false)
	b.wait("the end", func() bool { return b.retained["fieldagent/pump-7/status"].payload == "offline" })
	if err := r.stop(); !errors.Is(err, ErrRestart) {
		t.Fatal(err)
	}
	if err := run("command restart").stop(); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.boot = 8
	w.mu.Unlock()
	if err := run("the board was restarted").stop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ended       string
		before, now uint32
		want        string
	}{{"", 8, 8, "crashed or killed"}, {"", 8, 9, "power cut, or the board was reset"}} {
		if got := startReason(c.ended, c.before, c.now); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestForgottenSensor: what went away while the agent was off does not stay at the broker.
func TestForgottenSensor(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	r := start(t, dir, localFile(b.addr, "sensors: [{name: old, driver: fake, every: 1h}, {name: kept, driver: fake, every: 1h}]\n"), nil)
	status := func(name string) string { return b.retained["fieldagent/pump-7/sensor/"+name+"/status"].payload }
	b.wait("the states", func() bool { return status("old") == "ok" && status("kept") == "ok" })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, localFile(b.addr, "sensors: [{name: kept, driver: fake, every: 1h}]\n"), nil)
	b.wait("the end of the old one", func() bool { return status("old") == "" && status("kept") == "ok" })
	kept := ""
	for late := time.After(20 * time.Second); kept != `["sensor/kept/status"]`; {
		select {
		case <-late:
			t.Fatalf("on disk is %s", kept)
		case <-time.After(5 * time.Millisecond):
		}
		_ = r.queue.View(func(tx *queue.Tx) error {
			b, err := tx.Get(queue.Misc, topicsKey)
			kept = string(b)
			return err
		})
	}
}

// TestKeptReading: a reading that goes through the outbox has the form of any other, and what proves that none is missing.
func TestKeptReading(t *testing.T) {
	b := newBroker(t)
	r := start(t, t.TempDir(), localFile(b.addr, "sensors: [{name: tank, driver: fake, every: 1h, offline: keep}]\n"), nil)
	b.wait("a reading", func() bool { return len(b.topic("sensor/tank")) == 1 })
	b.mu.Lock()
	m := b.topic("sensor/tank")[0]
	b.mu.Unlock()
	var got struct {
		Time, Source, ID, Sequence, Specversion string
		Temperature                             json.Number `json:"temperature_celsius"`
	}
	if err := json.Unmarshal([]byte(m.payload), &got); err != nil || m.qos != 1 || m.retain {
		t.Fatalf("%+v: %v", m, err)
	}
	want := r.queue.Store()
	if got.Temperature != "21.53" || got.Source != "fieldagent/pump-7" || got.ID != bootString(want)+"-"+got.Sequence || len(got.Sequence) != 16 || got.Time == "" || got.Specversion != "" {
		t.Errorf("%s", m.payload)
	}
	unset := queue.Record{Event: queue.Event{Topic: "sensor/tank", Data: []byte(`{"time":"1970-01-01T00:00:09.000Z","clock":"unsynced","x_volts":1.5}`)}}
	at := queue.Stamp{Wall: oldest, Clock: queue.ClockCorrected}
	if s := string(appendKept(nil, "s", unset, at, true)); s != `{"time":"2024-01-01T00:00:00.000Z","clock":"corrected","x_volts":1.5,"source":"s","id":"00000000-0000000000000000","sequence":"0000000000000000","duplicate":"possible"}` {
		t.Error(s)
	}
}

// TestSameMessageAgain: a command that the broker sends once more has one answer while that is on its way; one that somebody asks again has another.
func TestSameMessageAgain(t *testing.T) {
	r := start(t, t.TempDir(), localFile("127.0.0.1:1", ""), nil)
	results := func() (n int) {
		rows, err := r.queue.Next(0, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if row.Topic == "cmd/ping/result" {
				n++
			}
		}
		return n
	}
	send := func(dup bool) {
		t.Helper()
		if err := r.commands.receive(t.Context(), "ping", "", mqtt.Message{Topic: "x", Payload: []byte(`{"id":"a"}`), QoS: 1, Dup: dup}); err != nil {
			t.Fatal(err)
		}
	}
	send(false)
	for results() == 0 {
		<-r.queue.Added()
	}
	send(true)
	if n := results(); n != 1 {
		t.Errorf("%d answers to one message", n)
	}
	send(false)
	if n := results(); n != 2 {
		t.Errorf("%d answers to two", n)
	}
}
