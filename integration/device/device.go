package device

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
	"sync"
	"syscall"
	"time"

	"fieldagent/integration/broker"
)

// Device is one agent with its folder: configuration, state, socket and log. Its process may come and go.
type Device struct {
	Program string
	Dir     string // short enough for a socket in it (unix(7): 107 bytes)

	http *http.Client

	mu   sync.Mutex
	cmd  *exec.Cmd
	died chan struct{}
}

// New writes the configuration and makes a device that does not run yet.
func New(program, dir, config string) (*Device, error) {
	d := &Device{Program: program, Dir: dir, died: make(chan struct{})}
	close(d.died)
	d.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", d.Socket())
	}}}
	return d, os.WriteFile(d.Config(), []byte(config), 0o600)
}

// Config, State, Socket and Log are its files.
func (d *Device) Config() string { return filepath.Join(d.Dir, "fieldagent.yaml") }
func (d *Device) State() string  { return filepath.Join(d.Dir, "state") }
func (d *Device) Socket() string { return filepath.Join(d.Dir, "s") }
func (d *Device) Log() string    { return filepath.Join(d.Dir, "agent.log") }

// Start starts the process. crashAt arms a fault point, such as "before mark:3"; empty arms none.
func (d *Device) Start(crashAt string) error {
	log, err := os.OpenFile(d.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.Program, "run", "--config", d.Config(), "--state", d.State(), "--socket", d.Socket())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if crashAt != "" {
		cmd.Env = append(os.Environ(), "FIELDAGENT_CRASH_AT="+crashAt)
	}
	if err := broker.StartChild(cmd); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	died := make(chan struct{})
	go func() { _ = cmd.Wait(); close(died) }()
	d.mu.Lock()
	d.cmd, d.died = cmd, died
	d.mu.Unlock()
	return nil
}

// Died is closed when the process has ended.
func (d *Device) Died() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.died
}

// Running says whether there is a process.
func (d *Device) Running() bool {
	select {
	case <-d.Died():
		return false
	default:
		return true
	}
}

// PID is the process's, 0 when there was none.
func (d *Device) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

// Exit is the exit code after the end, -1 for a signal.
func (d *Device) Exit() int {
	<-d.Died()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.ProcessState.ExitCode()
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (d *Device) Kill() { d.signal(syscall.SIGKILL) }

// Stop ends it with SIGTERM.
func (d *Device) Stop() { d.signal(syscall.SIGTERM) }

func (d *Device) signal(s syscall.Signal) {
	d.mu.Lock()
	cmd, died := d.cmd, d.died
	d.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(s)
	<-died
}

// Await returns nil when the local API answers, and an error when the process has ended or the time is over.
func (d *Device) Await(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		if c, err := net.Dial("unix", d.Socket()); err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the agent's socket does not answer within %v", limit)
		}
		select {
		case <-d.Died():
			return fmt.Errorf("the agent ended with code %d", d.Exit())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Emit hands in an event. id is set once it is on disk; status is the HTTP status, 0 when there was no answer.
func (d *Device) Emit(kind string, qos int, data any) (id string, status int, err error) {
	body, err := json.Marshal(map[string]any{"type": kind, "qos": qos, "data": data})
	if err != nil {
		return "", 0, err
	}
	resp, err := d.http.Post("http://agent/v1/events", "application/json", bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", 0, err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", resp.StatusCode, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(answer))
	}
	var got struct {
		ID string `json:"id"`
	}
	return got.ID, resp.StatusCode, json.Unmarshal(answer, &got)
}

// Get asks the local API.
func (d *Device) Get(path string, into any) error {
	resp, err := d.http.Get("http://agent" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
