package main

import (
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
	"time"
)

const (
	deviceEnv = "FIELDAGENT_DEMO_DEVICE"
	root      = "fieldagent/demo"
	reboot    = 2 * time.Second // from a kill to the next start
)

const deviceConfig = `device: {id: demo}
mqtt:
  servers: ["mqtt://%s"]
  reconnect: {min: 200ms, max: 2s}
sensors:
  - {name: machine, driver: host, every: 2s}
  - {name: tank, driver: simulated, wave: sine, mean: 21, amplitude: 4, period: 40s, noise: 0.1, every: 1s}
  - {name: cellar, driver: simulated, value: relative_humidity_percent, wave: walk, mean: 60, amplitude: 20, every: 1s}
  - {name: shaky, driver: simulated, wave: square, mean: 5, amplitude: 2, period: 20s, fail_every: 15, every: 1s}
inputs:
  - {name: door, line: GPIO17, debounce: 0s, event: {type: door, qos: 2}}
meters:
  - {name: energy, line: GPIO27, edge: rising, debounce: 0s, unit: kwh, pulses_per_unit: 1000, event: {every: 10s, qos: 2}}
outputs:
  - {name: lamp, line: GPIO22}
`

// device is the agent's process, and the application beside it that emits an event a second.
type device struct {
	dir  string
	view *view
	http *http.Client

	mu      sync.Mutex
	cmd     *exec.Cmd
	alive   io.Closer // its standard input: the device ends when this end is gone
	ended   chan struct{}
	restart *time.Timer
	over    bool
}

func newDevice(dir, addr string, v *view) (*device, error) {
	if err := os.WriteFile(filepath.Join(dir, "fieldagent.yaml"), fmt.Appendf(nil, deviceConfig, addr), 0o600); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "fieldagent.sock")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &device{dir: dir, view: v, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}}, nil
}

// start starts the agent's process; its log goes to a file in the folder.
func (d *device) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil || d.over {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), deviceEnv+"="+d.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours; the device is stopped in order
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the device: %w", err)
	}
	ended := make(chan struct{})
	d.cmd, d.alive, d.ended = cmd, in, ended
	go func() {
		defer close(ended)
		err := cmd.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.cmd = nil
		d.view.deviceUp(false)
		if !d.over {
			d.view.note(fmt.Sprintf("the agent ended (%v); it is started again in %v", err, reboot))
			d.restart = time.AfterFunc(reboot, d.revive)
		}
	}()
	d.view.deviceUp(true)
	return nil
}

// revive starts the agent if it is down.
func (d *device) revive() {
	if err := d.start(); err != nil {
		d.view.note(err.Error())
	}
}

// kill is the power plug, as far as a process goes.
func (d *device) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		d.view.note("kill -9 for the agent")
		_ = d.cmd.Process.Kill()
	}
}

// stop ends the agent as systemd would.
func (d *device) stop() error {
	d.mu.Lock()
	d.over = true
	if d.restart != nil {
		d.restart.Stop()
	}
	cmd, ended := d.cmd, d.ended
	if cmd == nil {
		d.mu.Unlock()
		return nil
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	d.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
		return errors.New("the agent did not end within 10 s of SIGTERM")
	}
	return nil
}

// produce emits an event a second, as an application on the device would. What is refused or unanswered is tried again with the next one.
func (d *device) produce(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.emit(ctx, fmt.Sprintf(`{"type":"vend","qos":2,"data":{"coin":%d}}`, n)); err != nil && ctx.Err() == nil {
			d.view.refused()
		}
	}
}

func (d *device) emit(ctx context.Context, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://device/v1/events", strings.NewReader(body))
	if err != nil {
		return err
	}
	began := time.Now()
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var a struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("the agent answers %s: %w", resp.Status, err)
	}
	d.view.stored(a.ID, began)
	return nil
}
