package e2e

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
	"syscall"
	"testing"
	"time"

	"fieldagent/integration/broker"
)

// device is one installation: a file, a folder of state, a socket, and the process when it runs.
type device struct {
	t    *testing.T
	dir  string
	file string
	log  *output
	cmd  *exec.Cmd
	died chan struct{}
	code int

	credentials map[string]string // of systemd: the secrets by name
}

// newDevice writes the configuration; run starts the agent.
func newDevice(t *testing.T, config string) *device {
	t.Helper()
	dir, err := os.MkdirTemp("", "fa-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, dir: dir, file: filepath.Join(dir, "fieldagent.yaml"), log: &output{}}
	d.write(config)
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", d.log)
		}
		os.RemoveAll(dir)
	})
	return d
}

func (d *device) write(config string) {
	d.t.Helper()
	if err := os.WriteFile(d.file, []byte(config), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) args(args ...string) []string {
	return append(args, "--config", d.file, "--state", filepath.Join(d.dir, "state"), "--socket", filepath.Join(d.dir, "s"))
}

// run starts the agent and waits until it is up.
func (d *device) run() {
	d.t.Helper()
	d.start()
	select {
	case <-d.died:
		d.t.Fatalf("the agent ended with code %d:\n%s", d.code, d.log)
	case <-d.up():
	}
}

func (d *device) start() {
	d.t.Helper()
	cmd := exec.Command(binary, d.args("run")...)
	cmd.Stderr, cmd.Stdout = d.log, d.log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=", "CREDENTIALS_DIRECTORY="+d.secrets())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := broker.StartChild(cmd); err != nil {
		d.t.Fatal(err)
	}
	died := make(chan struct{})
	d.cmd, d.died = cmd, died
	go func() {
		_ = cmd.Wait()
		d.code = cmd.ProcessState.ExitCode()
		close(died)
	}()
}

// up is closed when the agent answers on its socket.
func (d *device) up() <-chan struct{} {
	up := make(chan struct{})
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			select {
			case <-d.died:
				return
			default:
			}
			if _, _, err := d.request("GET", "/v1/status", ""); err == nil {
				close(up)
				return
			}
		}
	}()
	return up
}

// kill ends the agent as a power cut does.
func (d *device) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	<-d.died
	d.cmd = nil
}

// stop ends the agent as systemd does, and returns its exit code and how long that took.
func (d *device) stop() (code int, took time.Duration) {
	d.t.Helper()
	began := time.Now()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	select {
	case <-d.died:
	case <-time.After(patience):
		d.t.Fatalf("the agent does not end:\n%s", d.log)
	}
	d.cmd = nil
	return d.code, time.Since(began)
}

// request asks the local API.
func (d *device) request(method, path, body string) (status int, answer []byte, err error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.dir, "s"))
	}}}
	req, err := http.NewRequest(method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// get asks the local API for JSON.
func (d *device) get(path string) map[string]any {
	d.t.Helper()
	status, b, err := d.request("GET", path, "")
	var v map[string]any
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil || status != 200 {
		d.t.Fatalf("GET %s: %d, %v: %s", path, status, err, b)
	}
	return v
}

// post hands in an event over the socket and returns its id.
func (d *device) post(body string) string {
	d.t.Helper()
	status, b, err := d.request("POST", "/v1/events", body)
	var v struct{ ID string }
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil || status != 201 {
		d.t.Fatalf("POST %s: %d, %v: %s", body, status, err, b)
	}
	return v.ID
}

// cli runs a command beside the agent and returns what it prints; anything but the wanted exit code is a failure.
func (d *device) cli(code int, args ...string) string {
	d.t.Helper()
	out, errOut, got, _ := command(d.args(args...)...)
	if got != code {
		d.t.Fatalf("fieldagent %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errOut)
	}
	return out + errOut
}

// command runs the program to its end and returns its outputs, its exit code and its largest resident size in bytes.
func command(args ...string) (stdout, stderr string, code int, resident int64) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err.Error(), -1, 0
	}
	defer r.Close()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{measuring, binary}, args...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &errOut, []*os.File{w}
	err = cmd.Run()
	w.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err.Error(), -1, 0
	}
	_, _ = fmt.Fscan(r, &resident)
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode(), resident
}

// connected waits until the agent has its broker.
func (d *device) connected() {
	d.t.Helper()
	d.until("a connection", func() bool { return d.get("/v1/status")["broker"].(map[string]any)["connected"] == true })
}

// until asks again and again until cond is true.
func (d *device) until(what string, cond func() bool) {
	d.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-timeout:
			d.t.Fatalf("in vain: %s", what)
		}
	}
}

// startBroker starts mosquitto on a free port.
func startBroker(t *testing.T, lines ...string) broker.Broker {
	t.Helper()
	b, err := broker.Start("mosquitto", t.TempDir(), broker.Options{Lines: lines})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// local is a configuration for a broker on loopback, with quick reconnects.
func local(b broker.Broker, more string) string {
	return fmt.Sprintf("device: {id: pump-7}\nmqtt:\n  servers: [\"mqtt://%s\"]\n  reconnect: {min: 20ms, max: 200ms}\n%s", b.Addr(), more)
}

// hup makes the agent read its file again.
func (d *device) hup() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
}
