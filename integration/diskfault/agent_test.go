// Package diskfault runs the built agent on disks that are full, fail, or refuse writes, and on state files that are damaged.
//
// Whatever the disk does: an event that was accepted is there, one that was refused is not, sensors go on, the status names what is wrong and
// the remedy, and the process is the same one all the time.
package diskfault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fieldagent/queue"
)

const patience = 2 * time.Minute // on a busy machine

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "diskfault")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "fieldagent")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/fieldagent")
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if program, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// agent is a running agent with one sensor, read ten times a second.
type agent struct {
	t      *testing.T
	state  string
	cmd    *exec.Cmd
	client http.Client
	log    syncBuffer
	ended  chan error

	accepted map[string]queue.ID
	refused  map[string]bool
	n        int
}

// start starts an agent; before is put in front of its command line.
func start(t *testing.T, state, server string, before ...string) *agent {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, socket := filepath.Join(dir, "fieldagent.yaml"), filepath.Join(dir, "socket")
	text := fmt.Sprintf("device: {id: disk}\nmqtt: {servers: [%q], reconnect: {min: 100ms, max: 1s}}\nsensors:\n  - {name: s, driver: simulated, every: 100ms}\n", server)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(before, program, "run", "--config", config, "--state", state, "--socket", socket)
	a := &agent{t: t, state: state, cmd: exec.Command(args[0], args[1:]...), ended: make(chan error, 1), accepted: map[string]queue.ID{}, refused: map[string]bool{}}
	a.cmd.Stderr = &a.log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	a.client.Timeout = patience
	a.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.ended <- a.cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-a.cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the agent's log:\n%s", &a.log)
		}
	})
	a.await("the agent to start", func(status) bool { return true })
	return a
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type status struct {
	Broker   struct{ Connected bool }
	Readings struct{ Sent, Dropped uint64 }
	Outbox   struct {
		Depth int
		Error string
	}
}

func (a *agent) status() (s status, err error) {
	r, err := a.client.Get("http://agent/v1/status")
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

// await waits until the status is as cond wants it.
func (a *agent) await(what string, cond func(status) bool) status {
	a.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		s, err := a.status()
		if err == nil && cond(s) {
			return s
		}
		select {
		case err := <-a.ended:
			a.t.Fatalf("the agent ended while waiting for %s: %v", what, err)
		case <-late:
			a.t.Fatalf("waited too long for %s: %+v %v", what, s, err)
		case <-tick.C:
		}
	}
}

// sensorsGoOn waits for ten more readings.
func (a *agent) sensorsGoOn() {
	a.t.Helper()
	s := a.await("the status", func(status) bool { return true })
	before := s.Readings.Sent + s.Readings.Dropped
	a.await("readings to go on", func(s status) bool { return s.Readings.Sent+s.Readings.Dropped >= before+10 })
}

// emit hands in an event of a size and notes what it was told. It returns the refusal, "" when the event was accepted.
func (a *agent) emit(size int) string {
	a.t.Helper()
	a.n++
	token := fmt.Sprintf("token-%d", a.n)
	body := fmt.Sprintf(`{"type":"test","qos":2,"data":{"token":"%s","pad":"%s"}}`, token, strings.Repeat("x", size))
	r, err := a.client.Post("http://agent/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		a.t.Fatalf("%s: %v", token, err)
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	var answer struct{ ID, Error string }
	if err := json.Unmarshal(text, &answer); err != nil {
		a.t.Fatalf("%s: %s %s", token, r.Status, text)
	}
	if r.StatusCode == http.StatusCreated {
		id, err := queue.ParseID(answer.ID)
		if err != nil {
			a.t.Fatal(err)
		}
		a.accepted[token] = id
		return ""
	}
	if r.StatusCode != http.StatusServiceUnavailable && r.StatusCode != http.StatusInsufficientStorage || answer.Error == "" {
		a.t.Errorf("%s: %s %s", token, r.Status, text)
	}
	if !strings.Contains(answer.Error, "unknown") {
		a.refused[token] = true
	}
	return answer.Error
}

// end stops the agent cleanly: it must be the process that was started.
func (a *agent) end() {
	a.t.Helper()
	a.client.CloseIdleConnections()
	if err := syscall.Kill(-a.cmd.Process.Pid, syscall.SIGTERM); err != nil {
		a.t.Fatalf("the agent is gone: %v", err)
	}
	select {
	case err := <-a.ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			a.t.Errorf("the agent ends with %v", err)
		}
	case <-time.After(patience):
		a.t.Error("the agent does not end")
	}
}

// judge compares what is in the state folder with what the producers were told. Nothing was delivered.
func (a *agent) judge() {
	a.t.Helper()
	q, err := queue.Open(a.state, queue.Options{})
	if err != nil {
		a.t.Fatal(err)
	}
	defer q.Close()
	found := map[string]queue.ID{}
	for after := uint64(0); ; {
		rows, err := q.Next(after, 100, 1<<20)
		if err != nil {
			a.t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			var data struct{ Token string }
			if r.Type == "test" && json.Unmarshal(r.Data, &data) != nil {
				a.t.Errorf("row %v is harmed", r.ID)
			}
			if data.Token != "" {
				if _, twice := found[data.Token]; twice {
					a.t.Errorf("%s is there twice", data.Token)
				}
				found[data.Token] = r.ID
			}
			after = r.ID.Sequence
		}
	}
	for token, id := range a.accepted {
		if found[token] != id {
			a.t.Errorf("%s was accepted as %v and is %v", token, id, found[token])
		}
	}
	for token := range a.refused {
		if id, ok := found[token]; ok {
			a.t.Errorf("%s was refused and is there as %v", token, id)
		}
	}
	a.t.Logf("%d accepted, %d refused, %d unknown, %d found", len(a.accepted), len(a.refused), a.n-len(a.accepted)-len(a.refused), len(found))
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
