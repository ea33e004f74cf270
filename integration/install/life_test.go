package install

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fieldagent/integration/broker"
	"fieldagent/integration/verify"
)

const boxConfig = `device: {id: box}
mqtt: {servers: ["mqtt://127.0.0.1:1883"], keepalive: 5s, reconnect: {min: 100ms, max: 500ms}}
sensors: [{name: board, driver: host, every: 1s}]
`

const source = "fieldagent/box"

// watcher is the judge with a broker: events go to the judge, readings are kept.
type watcher struct {
	broker.Broker
	*verify.Judge
	mu   sync.Mutex
	last map[string]string
}

func watch(t *testing.T) *watcher {
	t.Helper()
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{InFlight: 100})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{Broker: b, Judge: verify.NewJudge(), last: map[string]string{}}
	c := &verify.Consumer{Addr: b.Addr(), ClientID: "judge", Filter: source + "/#", Message: func(topic string, payload []byte, qos byte) {
		if strings.HasPrefix(topic, source+"/event/") {
			w.Deliver(topic, payload, qos)
		}
		w.mu.Lock()
		w.last[strings.TrimPrefix(topic, source+"/")] = string(payload)
		w.mu.Unlock()
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = b.Close()
	})
	<-c.Ready()
	return w
}

func (w *watcher) topic(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[name]
}

func (w *watcher) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = map[string]string{}
}

func (w *watcher) promise(ids []string, first int) {
	for i, id := range ids {
		w.Accept(source, id, verify.Mark{Producer: 1, Number: first + i})
	}
}

// TestLifeCycle installs the package of the previous commit, upgrades it in the middle of a backlog, and goes on to removal and purge.
func TestLifeCycle(t *testing.T) {
	old, what := previous(t)
	now := build(t, "amd64")
	t.Logf("upgrade from %s (%s) to %s", versionOf(t, old), what, versionOf(t, now))
	w := watch(t)
	c := boot(t)
	g, err := newGate(c.leader, w.Addr())
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	c.must("dpkg -i " + c.put(old))
	if state := c.unit("ActiveState"); state != "active" {
		t.Fatalf("after installation the unit is %s: %s", state, c.unit("StatusText"))
	}
	if s := c.unit("StatusText"); !strings.Contains(s, "mqtt.servers") {
		t.Errorf("without an address the status is %q", s)
	}
	t.Logf("installed and started in %.1f s", time.Since(began).Seconds())
	c.write("/etc/fieldagent/fieldagent.yaml", boxConfig)
	g.open(0)
	c.must("systemctl restart fieldagent") // the device's id changes
	wait(t, "first reading", 30*time.Second, func() bool { return w.topic("sensor/board") != "" })
	w.promise(c.emit(1, 20), 1)
	wait(t, "20 events", 30*time.Second, func() bool { return w.Missing() == 0 })

	g.close()
	w.promise(c.emit(21, 1500), 21)
	g.open(12 << 10) // slow enough for an upgrade in the middle
	wait(t, "the first of the backlog", 30*time.Second, func() bool { return w.Missing() < 1450 })
	c.must("dpkg -i " + c.put(now))
	left := w.Missing()
	if left < 100 {
		t.Errorf("only %d events were left when the upgrade was done: that was no middle", left)
	}
	t.Logf("upgraded with %d of 1500 events not delivered", left)
	if v := c.must("fieldagent version"); strings.Contains(v, "previous") {
		t.Errorf("still the old version: %s", v)
	}
	g.open(0)
	wait(t, "the rest", time.Minute, func() bool { return w.Missing() == 0 })
	if n := c.unit("NRestarts"); n != "0" {
		t.Errorf("systemd had to start it again %s times", n)
	}

	t.Run("reload", func(t *testing.T) {
		c.write("/etc/fieldagent/conf.d/50-extra.yaml", "sensors: [{name: other, driver: host, every: 1s}]\n")
		c.must("systemctl reload fieldagent")
		wait(t, "the new sensor", 20*time.Second, func() bool { return w.topic("sensor/other") != "" })
		c.write("/etc/fieldagent/conf.d/50-extra.yaml", "sensors: [{name: other, driver: hots}]\n")
		c.try("systemctl reload fieldagent")
		wait(t, "the refusal", 20*time.Second, func() bool { return strings.Contains(c.try("journalctl -u fieldagent -o cat"), "reload refused") })
		if c.unit("ActiveState") != "active" {
			t.Error("a reload with faults ended the service")
		}
		c.must("systemctl restart fieldagent || true")
		wait(t, "the refusal to start", 20*time.Second, func() bool { return c.unit("ActiveState") == "failed" })
		if s := c.unit("StatusText"); !strings.Contains(s, "50-extra.yaml:1") || c.unit("ExecMainStatus") != "3" {
			t.Errorf("status %q, exit %s", s, c.unit("ExecMainStatus"))
		}
		c.must("rm /etc/fieldagent/conf.d/50-extra.yaml; systemctl restart fieldagent")
	})

	t.Run("newer state", func(t *testing.T) { newerState(t, c) })

	t.Run("downgrade", func(t *testing.T) {
		c.must("dpkg -i /root/" + filepath.Base(old))
		w.promise(c.emit(1521, 5), 1521)
		wait(t, "events of the old version", 30*time.Second, func() bool { return w.Missing() == 0 })
		c.must("dpkg -i /root/" + filepath.Base(now))
	})

	t.Run("power cut", func(t *testing.T) {
		g.close()
		w.promise(c.emit(1526, 50), 1526)
		c.cut()
		c.start()
		if g, err = newGate(c.leader, w.Addr()); err != nil {
			t.Fatal(err)
		}
		w.forget()
		g.open(0)
		wait(t, "the service after the boot", time.Minute, func() bool { return c.unit("ActiveState") == "active" })
		wait(t, "the events from before the cut", 30*time.Second, func() bool { return w.Missing() == 0 })
	})

	t.Run("remove", func(t *testing.T) {
		c.must("dpkg --remove fieldagent")
		if out := c.try("ls /usr/bin/fieldagent /run/fieldagent/fieldagent.sock /lib/systemd/system/fieldagent.service 2>/dev/null"); out != "" {
			t.Errorf("left behind: %s", out)
		}
		c.must("test -s /var/lib/fieldagent/fieldagent.db -a -s /etc/fieldagent/fieldagent.yaml")
		c.must("dpkg -i /root/" + filepath.Base(now))
		w.promise(c.emit(1576, 5), 1576) // the same store: the numbers go on
		wait(t, "events after coming back", 30*time.Second, func() bool { return w.Missing() == 0 })
	})

	t.Run("purge", func(t *testing.T) {
		c.must("dpkg --purge fieldagent")
		if out := c.try("ls -d /var/lib/fieldagent /etc/fieldagent /usr/share/doc/fieldagent /etc/systemd/system/multi-user.target.wants/fieldagent.service 2>/dev/null"); out != "" {
			t.Errorf("left behind: %s", out)
		}
	})
	v := w.Verdict()
	t.Log(v)
	if !v.Clean() || v.Accepted != 1580 || v.Redelivered != 0 {
		t.Errorf("lost %v doubled %v disorder %v gaps %v strange %v", v.Lost, v.Doubled, v.Disorder, v.Gaps, v.Strange)
	}
}

// newerState has a version from the future write the state; this one must refuse it, say so, and change nothing.
func newerState(t *testing.T, c *container) {
	dir := t.TempDir()
	file, err := filepath.Abs(repository + "/queue/queue.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	future := strings.Replace(string(text), "const Format = 1\n", "const Format = 99\n", 1)
	if future == string(text) {
		t.Fatal("queue.go has no Format = 1: correct this test")
	}
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{file: filepath.Join(dir, "queue.go")}})
	for name, b := range map[string][]byte{"queue.go": []byte(future), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "future"), "./cmd/fieldagent")
	cmd.Dir, cmd.Env = repository, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if err := run(cmd); err != nil {
		t.Fatal(err)
	}
	c.must("systemctl stop fieldagent; mv /var/lib/fieldagent /var/lib/fieldagent.kept; install -m 755 " + c.put(filepath.Join(dir, "future")) + " /usr/local/bin/future")
	c.must("install -d -o fieldagent -g fieldagent -m 700 /var/lib/fieldagent; runuser -u fieldagent -- timeout 2 future run --socket /tmp/s >/dev/null 2>&1; test -s /var/lib/fieldagent/fieldagent.db")
	sum := func() [32]byte {
		b, err := os.ReadFile(filepath.Join(c.root, "var/lib/fieldagent/fieldagent.db"))
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(b)
	}
	before := sum()
	c.try("systemctl start fieldagent")
	wait(t, "the refusal", 30*time.Second, func() bool { return strings.Contains(c.unit("StatusText"), "newer version") })
	if out := c.try("fieldagent doctor"); !strings.Contains(out, "FAULT state file: ") || !strings.Contains(out, "newer version") {
		t.Errorf("doctor:\n%s", out)
	}
	c.try("systemctl stop fieldagent")
	if sum() != before {
		t.Error("the newer database was changed")
	}
	c.must("rm -r /var/lib/fieldagent; mv /var/lib/fieldagent.kept /var/lib/fieldagent; systemctl start fieldagent")
}
