package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agentProcess is the shipped agent, running.
type agentProcess struct {
	cmd    *exec.Cmd
	socket string
	http   *http.Client
	log    string
	began  time.Time
}

const brokerSection = `device: {id: bench}
mqtt: {servers: ["mqtt://%s"], window: %d, reconnect: {min: 50ms, max: 1s}}
outbox: {max_size: %dMiB}
`

// runAgent starts the agent on a state folder with more lines of configuration.
func runAgent(b testing.TB, state, config string) *agentProcess {
	b.Helper()
	dir, err := os.MkdirTemp(scratch, "agent-")
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(dir, "fieldagent.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	a := &agentProcess{socket: filepath.Join(dir, "s"), log: filepath.Join(dir, "log")}
	log, err := os.Create(a.log)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	a.cmd = exec.Command(binary, "run", "--config", file, "--state", state, "--socket", a.socket)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
	}}}
	a.began = time.Now()
	if err := a.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.stop(b) })
	return a
}

func (a *agentProcess) stop(b testing.TB) {
	if a.cmd.ProcessState != nil {
		return
	}
	a.http.CloseIdleConnections()
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	if err := a.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(a.log)
		b.Errorf("the agent: %v\n%s", err, text)
	}
}

// depth is the number of events in the outbox, -1 while the agent does not answer.
func (a *agentProcess) depth() int {
	resp, err := a.http.Get("http://agent/v1/status")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	var s struct{ Outbox struct{ Depth int } }
	if json.NewDecoder(resp.Body).Decode(&s) != nil {
		return -1
	}
	return s.Outbox.Depth
}

// empty waits until everything is delivered; look is called at each glance.
func (a *agentProcess) empty(b testing.TB, look func()) time.Duration {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Minute)
	for {
		if a.depth() == 0 {
			return time.Since(a.began)
		}
		if look != nil {
			look()
		}
		select {
		case <-tick.C:
		case <-deadline:
			text, _ := os.ReadFile(a.log)
			b.Fatalf("not drained in 20 minutes\n%s", text)
		}
	}
}

// emit stores one event through the local API.
func (a *agentProcess) emit(b testing.TB, qos int) {
	b.Helper()
	body := fmt.Sprintf(`{"type":"meter","qos":%d,"data":%s}`, qos, payload)
	resp, err := a.http.Post("http://agent/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	answer, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		b.Fatalf("%s: %s", resp.Status, answer)
	}
}

// statusKB reads a line of /proc/PID/status, such as RssAnon.
func statusKB(b testing.TB, pid int, key string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) > 1 && f[0] == key+":" {
			n, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("no %s in /proc/%d/status", key, pid)
	return 0
}

// cpu is the processor time of a running process, all its threads together.
func cpu(b testing.TB, pid int) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("no processor time of process %d: %v", pid, err)
	}
	total := time.Duration(0)
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // a thread that has ended
		}
		if f := strings.Fields(string(text)); len(f) > 0 {
			n, err := strconv.ParseInt(f[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			total += time.Duration(n)
		}
	}
	return total
}
