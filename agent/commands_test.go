package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fieldagent/queue"
)

// resultsOf returns the data of all results of a command; the broker must be locked.
func (b *broker) resultsOf(name string) (out []result) {
	for _, m := range b.topic("cmd/" + name + "/result") {
		var e struct{ Data result }
		if json.Unmarshal([]byte(m.payload), &e) == nil {
			out = append(out, e.Data)
		}
	}
	return out
}

// ask sends a command and returns its n-th result.
func (b *broker) ask(name, body string, n int) result {
	b.t.Helper()
	b.publish("fieldagent/pump-7/cmd/"+name, body, false)
	return b.result(name, n)
}

func (b *broker) result(name string, n int) (r result) {
	b.t.Helper()
	b.wait(fmt.Sprintf("result %d of %s", n, name), func() bool {
		all := b.resultsOf(name)
		if len(all) >= n {
			r = all[n-1]
		}
		return len(all) >= n
	})
	return r
}

func (b *broker) ready() {
	b.t.Helper()
	b.wait("subscriptions", func() bool { return b.subscribed("cmd/+") && len(b.conns) > 0 })
}

const owners = `commands:
  - {name: note, argv: [/bin/sh, -c, 'echo "$0" >> "$1"; echo said "$0"', "{word}", "FILE"], args: {word: {values: [one, two, "; rm -rf /"]}}}
  - {name: slow, argv: [/bin/sh, -c, "sleep 60 & sleep 60"], timeout: 300ms}
  - {name: wait, argv: [/bin/sleep, "{seconds}"], args: {seconds: {type: number, min: 0, max: 5}}}
  - {name: loud, argv: [/bin/sh, -c, "yes | head -c 100000"], max_output: 1KiB}
  - {name: bad, argv: [/bin/false]}
  - {name: whoami, argv: [/usr/bin/id, -un], user: nobody}
`

func TestCommandsAnswerAlways(t *testing.T) {
	b := newBroker(t)
	file := filepath.Join(t.TempDir(), "words")
	r := start(t, t.TempDir(), localFile(b.addr, strings.ReplaceAll(owners, "FILE", file)+"sensors: [{name: cabinet, driver: fake, every: 1h}]\n"), nil)
	b.ready()
	for i, c := range []struct {
		name, body, status, text string // text is part of the result or the error
	}{
		{"ping", `{"id":"p1"}`, "ok", `time`},
		{"ping", `{"id":"p2","args":{"x":1}}`, "failed", `unknown field`},
		{"ping", `{"id":"p3","expires":"2001-01-01T00:00:00Z"}`, "expired", "expired at"},
		{"ping", `{"id":"p4","expires":"tomorrow"}`, "failed", "expires"},
		{"ping", `{"id":"p5","expirse":"2030-01-01T00:00:00Z"}`, "failed", "expirse"},
		{"ping", `no json`, "failed", "JSON"},
		{"ping", ``, "failed", "JSON"},
		{"ping", `{"id":""}`, "failed", "id"},
		{"ping", `{"id":7}`, "failed", "quotes"},
		{"ping", `{"id":"p10","id":"p11"}`, "failed", "twice"},
		{"ping", `{"ID":"p12"}`, "failed", "unknown"},
		{"ping", `{"id":"p6"} {"id":"p7"}`, "failed", "after"},
		{"ping", `{"id":"` + strings.Repeat("x", 200) + `"}`, "failed", "id"},
		{"ping", `{"id":"p8","args":[1]}`, "failed", "object"},
		{"ping", `{"id":"p9","args":{"pad":"` + strings.Repeat("x", maxCommand) + `"}}`, "failed", "limit"},
		{"nonsense", `{"id":"n1"}`, "failed", "no command"},
		{"read", `{"id":"r1","args":{"sensor":"cabinet"}}`, "ok", "21.53"},
		{"read", `{"id":"r2","args":{"sensor":"none"}}`, "failed", "none"},
		{"read", `{"id":"r3"}`, "ok", "cabinet"},
		{"publish-info", `{"id":"i1"}`, "ok", "pump-7"},
		{"config-rollback", `{"id":"c1"}`, "failed", "local"},
		{"note", `{"id":"o1","args":{"word":"one"}}`, "ok", "said one"},
		{"note", `{"id":"o2","args":{"word":"; rm -rf /"}}`, "ok", "said ; rm"},
		{"note", `{"id":"o3","args":{"word":"three"}}`, "failed", "one of"},
		{"note", `{"id":"o4","args":{"word":"one","more":1}}`, "failed", "not declared"},
		{"note", `{"id":"o5"}`, "failed", "missing"},
		{"wait", `{"id":"w1","args":{"seconds":"1; reboot"}}`, "failed", "number"},
		{"wait", `{"id":"w2","args":{"seconds":6}}`, "failed", "outside"},
		{"slow", `{"id":"s1"}`, "failed", "300ms"},
		{"loud", `{"id":"l1"}`, "ok", `"truncated":true`},
		{"bad", `{"id":"b1"}`, "failed", "exit"},
	} {
		b.mu.Lock()
		n := len(b.resultsOf(c.name))
		b.mu.Unlock()
		got := b.ask(c.name, c.body, n+1)
		if text := string(mustJSON(got)); got.Status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%d: %s %.80s: %.300s; want %s with %q", i, c.name, c.body, text, c.status, c.text)
		}
	}
	if words, err := os.ReadFile(file); err != nil || string(words) != "one\n; rm -rf /\n" {
		t.Errorf("the program saw %q, %v", words, err)
	}
	if os.Getuid() == 0 {
		if got := b.ask("whoami", `{"id":"u1"}`, 1); !strings.Contains(string(mustJSON(got)), "nobody") {
			t.Errorf("run as another user: %+v", got)
		}
	}
	if s := r.Status().Commands; s.Executed == 0 || s.Refused == 0 {
		t.Errorf("status %+v", s)
	}
}

func TestRetainedCommandsAreRefusedOnce(t *testing.T) {
	b := newBroker(t)
	file := filepath.Join(t.TempDir(), "words")
	start(t, t.TempDir(), localFile(b.addr, strings.ReplaceAll(owners, "FILE", file)), nil)
	b.ready()
	for range 2 {
		b.publish("fieldagent/pump-7/cmd/note", `{"id":"r1","args":{"word":"one"}}`, true)
	}
	if got := b.result("note", 1); got.Status != "failed" || !strings.Contains(got.Error, "retained") {
		t.Errorf("%+v", got)
	}
	if got := b.ask("note", `{"id":"r2","args":{"word":"two"}}`, 2); got.Status != "ok" {
		t.Errorf("%+v", got)
	}
	if words, _ := os.ReadFile(file); string(words) != "two\n" {
		t.Errorf("executed: %q", words)
	}
}

func TestCommandsRunOnceOneAtATimeInOrder(t *testing.T) {
	b := newBroker(t)
	file := filepath.Join(t.TempDir(), "words")
	start(t, t.TempDir(), localFile(b.addr, strings.ReplaceAll(owners, "FILE", file)), nil)
	b.ready()
	b.publish("fieldagent/pump-7/cmd/wait", `{"id":"w","args":{"seconds":0.5}}`, false)
	b.publish("fieldagent/pump-7/cmd/note", `{"id":"a","args":{"word":"one"}}`, false)
	b.publish("fieldagent/pump-7/cmd/note", `{"id":"b","args":{"word":"two"}}`, false)
	b.publish("fieldagent/pump-7/cmd/note", `{"id":"a","args":{"word":"one"}}`, false)
	b.publish("fieldagent/pump-7/cmd/ping", `{"id":"a"}`, false)
	b.wait("all results", func() bool { return len(b.resultsOf("wait"))+len(b.resultsOf("note"))+len(b.resultsOf("ping")) >= 4 })
	if got := b.result("ping", 1); got.Status != "failed" || !strings.Contains(got.Error, "was used") {
		t.Errorf("an id used twice: %+v", got)
	}
	if got := b.ask("note", `{"id":"b","args":{"word":"two"}}`, 3); got.ID != "b" || got.Status != "ok" {
		t.Errorf("asked again: %+v", got)
	}
	if words, _ := os.ReadFile(file); string(words) != "one\ntwo\n" {
		t.Errorf("executed: %q", words)
	}
}

func TestProgressInStatus(t *testing.T) {
	b := newBroker(t)
	r := start(t, t.TempDir(), localFile(b.addr, ""), nil)
	began, end := make(chan struct{}), make(chan struct{})
	r.commands.handle("block", &command{run: func(context.Context, json.RawMessage) (any, error) {
		close(began)
		<-end
		return nil, nil
	}})
	b.ready()
	b.publish("fieldagent/pump-7/cmd/block", `{"id":"x"}`, false)
	<-began
	s := r.Status().Commands
	close(end)
	if s.Running != "block x" || s.Since == nil || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	b.result("block", 1)
}

// A crash between "started" and "done": only a repeatable command runs again.
func TestCrashInTheMiddle(t *testing.T) {
	b := newBroker(t)
	file := filepath.Join(t.TempDir(), "words")
	local := localFile(b.addr, strings.ReplaceAll(owners, "FILE", file)+"  - {name: again, argv: [/bin/true], repeatable: true}\n")
	dir := t.TempDir()
	q, err := queue.Open(dir, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop := runQueue(t, q)
	err = q.Update(t.Context(), func(tx *queue.Tx) error {
		for _, name := range []string{"note", "again", "restart"} {
			if _, _, err := tx.Receive("id-"+name, name, fmt.Appendf(nil, `{"id":"id-%s"}`, name)); err != nil {
				return err
			}
			if err := tx.Start("id-" + name); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, stop()); err != nil {
		t.Fatal(err)
	}
	start(t, dir, local, nil)
	for name, want := range map[string]string{"note": "unknown", "again": "ok", "restart": "ok"} {
		if got := b.result(name, 1); got.Status != want {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a command that had begun was executed again")
	}
}

func TestGroupCommandsSpread(t *testing.T) {
	b := newBroker(t)
	start(t, t.TempDir(), "device: {id: pump-7, labels: {site: north, note: Not a name}}\nconfig: {spread: 300ms}\n"+strings.TrimPrefix(localFile(b.addr, ""), "device: {id: pump-7}\n"), nil)
	b.wait("group subscriptions", func() bool {
		return b.subscribed("fieldagent/all/cmd/+") && b.subscribed("fieldagent/group/site-north/cmd/+") && b.subscribed("fieldagent/group/site-north/config/set")
	})
	b.publish("fieldagent/group/site-north/cmd/ping", `{"id":"g1"}`, false)
	b.publish("fieldagent/all/cmd/ping", `{"id":"g2"}`, false)
	b.publish("fieldagent/group/site-south/cmd/ping", `{"id":"g3"}`, false)
	b.publish("fieldagent/pump-7/cmd/ping", `{"id":"own"}`, false)
	var ids []string
	b.wait("three results", func() bool {
		ids = nil
		for _, r := range b.resultsOf("ping") {
			ids = append(ids, r.ID)
		}
		return len(ids) == 3
	})
	slices.Sort(ids)
	if fmt.Sprint(ids) != "[g1 g2 own]" {
		t.Errorf("answered %v", ids)
	}
}

func TestSpreadIsEven(t *testing.T) {
	const devices, over = 10000, 30 * time.Second
	per := map[time.Duration]int{}
	for i := range devices {
		per[spread(fmt.Sprint("fieldagent/unit-", i), "c-19", over)/time.Second]++
	}
	for s := range over / time.Second {
		if n := per[s]; n < 250 || n > 420 { // 333 expected, standard deviation 18
			t.Errorf("second %d: %d devices", s, n)
		}
	}
	if first, again := spread("a", "x", over), spread("a", "x", over); first != again || first == spread("a", "y", over) {
		t.Error("a device's moment depends on the command, and on nothing else")
	}
}

func runQueue(t *testing.T, q *queue.Queue) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-done, q.Close())
	}
}
