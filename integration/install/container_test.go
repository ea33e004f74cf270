package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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

	"fieldagent/integration/broker"
)

// container is a Debian system booted by systemd-nspawn: its own systemd, processes and network, and no devices.
type container struct {
	t      *testing.T
	root   string // its file system, on this machine
	cmd    *exec.Cmd
	leader int // its process 1, as this machine counts
	log    bytes.Buffer
}

// boot starts a container on a copy of the root that is thrown away afterwards.
func boot(t *testing.T) *container {
	t.Helper()
	lower, err := Root(t.Context(), "amd64", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t}
	dir := t.TempDir()
	c.root = filepath.Join(dir, "root")
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount("overlay", c.root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, dir, dir)); err == nil {
		t.Cleanup(func() { _ = syscall.Unmount(c.root, syscall.MNT_DETACH) })
	} else if err := run(exec.Command("cp", "-a", "--reflink=auto", lower+"/.", c.root)); err != nil { // no overlayfs here
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(func() {
		if t.Failed() && c.leader > 0 && c.cmd != nil {
			t.Logf("journal:\n%s", tail(c.try("journalctl -u fieldagent --no-pager -o cat"), 6000))
		}
		c.cut()
	})
	return c
}

// start boots the system, with more options for nspawn, and waits until it is up.
func (c *container) start(options ...string) {
	c.t.Helper()
	args := append([]string{"--quiet", "--directory=" + c.root, "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe",
		"--hostname=box", "--timezone=off", "--resolv-conf=off"}, options...)
	c.cmd = exec.Command("systemd-nspawn", append(args, "systemd.firstboot=off")...)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := broker.StartChild(c.cmd); err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	wait(c.t, "the container's systemd", time.Minute, func() bool {
		// nspawn has short-lived children before it has the one that becomes systemd.
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.cmd.Process.Pid, c.cmd.Process.Pid))
		for _, pid := range strings.Fields(string(b)) {
			if comm, _ := os.ReadFile("/proc/" + pid + "/comm"); string(comm) == "systemd\n" {
				c.leader, _ = strconv.Atoi(pid)
				return true
			}
		}
		return false
	})
	state := ""
	defer func() {
		if c.t.Failed() {
			c.t.Logf("the system is %q; jobs:\n%s\nconsole:\n%s", state, c.try("systemctl list-jobs --no-pager; systemctl --failed --no-pager"), tail(c.log.String(), 3000))
		}
	}()
	wait(c.t, "boot", 5*time.Minute, func() bool {
		state = strings.TrimSpace(c.try("systemctl is-system-running"))
		return state == "running" || state == "degraded"
	})
	c.t.Logf("container up after %.1f s", time.Since(began).Seconds())
}

// cut is a power cut: everything in it dies at once.
func (c *container) cut() {
	if c.cmd != nil {
		_ = syscall.Kill(c.leader, syscall.SIGKILL)
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		c.cmd = nil
	}
}

// try runs a shell line in the container and returns what it prints, whatever becomes of it.
func (c *container) try(line string) string {
	out, _ := c.command(line).CombinedOutput()
	return string(out)
}

func (c *container) command(line string) *exec.Cmd {
	return exec.Command("nsenter", "--target", strconv.Itoa(c.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", line)
}

// must runs a line that may not fail.
func (c *container) must(line string) string {
	c.t.Helper()
	out, err := c.command(line).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// put copies a file of this machine into the container's /root.
func (c *container) put(file string) string {
	c.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("/root/"+filepath.Base(file), string(data))
	return "/root/" + filepath.Base(file)
}

func (c *container) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.root, name), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// unit is a property of the service as systemd shows it.
func (c *container) unit(property string) string {
	return strings.TrimSpace(c.try("systemctl show fieldagent --value --property=" + property))
}

// emit stores n events over the local API, numbered from first, and returns their ids.
func (c *container) emit(first, n int) []string {
	c.t.Helper()
	socket := fmt.Sprintf("/proc/%d/root/run/fieldagent/fieldagent.sock", c.leader)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	ids := make([]string, 0, n)
	for i := range n {
		body := fmt.Sprintf(`{"type":"test","qos":2,"data":{"p":1,"n":%d,"pad":"%s"}}`, first+i, strings.Repeat("x", 100))
		resp, err := client.Post("http://agent/v1/events", "application/json", strings.NewReader(body))
		if err != nil {
			c.t.Fatal(err)
		}
		var a struct{ ID, Error string }
		err = json.NewDecoder(resp.Body).Decode(&a)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusCreated {
			c.t.Fatalf("event %d: %d %s %v", first+i, resp.StatusCode, a.Error, err)
		}
		ids = append(ids, a.ID)
	}
	return ids
}

// wait tries until ok, for a limit.
func wait(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	if !waits(limit, ok) {
		t.Fatalf("%s: not within %v", what, limit)
	}
}

func waits(limit time.Duration, ok func() bool) bool {
	deadline := time.After(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}
