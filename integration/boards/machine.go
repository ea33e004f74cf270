package boards

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Machine is a running emulated board.
type Machine struct {
	Board   Board
	cmd     *exec.Cmd
	console io.Writer
	qmp     *lineConn
	qtest   *lineConn
	mu      sync.Mutex
	log     strings.Builder
	news    chan struct{} // closed when the log grows
	told    int
	exited  chan struct{}
}

// Start boots a board. files go into its initramfs beside the kernel's modules; disk is an ext4 image that survives power cuts;
// the guest reaches broker (host:port on this machine's loopback) as 10.0.2.100:1883.
func Start(ctx context.Context, c Cache, b Board, dir, pipe, broker, disk string, files map[string][]byte) (*Machine, error) {
	mods, err := c.moduleFiles(b.Debian, b.Modules)
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for k, v := range files {
		all[k] = v
	}
	for i, p := range mods {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		all[fmt.Sprintf("modules/%02d-%s", i, filepath.Base(p))] = data
	}
	ramfs := filepath.Join(dir, "initramfs")
	if err := os.WriteFile(ramfs, initramfs(all), 0o644); err != nil {
		return nil, err
	}
	kernel, err := c.glob(b.Debian + "/boot/vmlinuz-*")
	if err != nil {
		return nil, err
	}
	dtb, err := c.glob(b.Debian + "/usr/lib/linux-image-*/" + b.DTB)
	if err != nil {
		return nil, err
	}
	qmp, qtest := filepath.Join(dir, "qmp"), filepath.Join(dir, "qtest")
	for _, s := range []string{qmp, qtest} {
		_ = os.Remove(s)
	}
	args := []string{"-M", b.Machine, "-kernel", kernel, "-dtb", dtb, "-initrd", ramfs, "-display", "none", "-no-reboot",
		"-L", c.path("qemu/usr/share/qemu"), "-append", "console=" + b.Console + " panic=-1 quiet loglevel=4 maxcpus=1 disk=" + b.Disk + " bus=" + b.Bus,
		"-qmp", "unix:" + qmp + ",server=on,wait=off", "-qtest", "unix:" + qtest + ",server=on,wait=off", "-qtest-log", "none",
		"-device", "tmp105,id=t0,bus=" + b.I2C + ",address=0x48", "-device", "ds1338,bus=" + b.I2C + ",address=0x68",
		"-device", "pca9546,id=mux,bus=" + b.I2C + ",address=0x70", "-device", "tmp105,id=t1,bus=i2c.0,address=0x49",
		"-drive", fmt.Sprintf(b.SD, disk)}
	forward := ",guestfwd=tcp:10.0.2.100:1883-cmd:" + pipe + " " + broker
	if b.Net == "usb" {
		args = append(args, "-netdev", "user,id=net0,restrict=on"+forward, "-device", "usb-net,netdev=net0")
	} else {
		args = append(args, "-nic", fmt.Sprintf(b.Net, forward))
	}
	for range b.Serial {
		args = append(args, "-serial", "null")
	}
	args = append(args, "-serial", "stdio")
	if b.Memory != "" {
		args = append(args, "-m", b.Memory)
	}
	m := &Machine{Board: b, exited: make(chan struct{}), news: make(chan struct{})}
	m.cmd = exec.CommandContext(ctx, c.path("qemu/usr/bin", b.QEMU), args...)
	if m.console, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stderr = m.cmd.Stdout
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.copyLog(out)
		_ = m.cmd.Wait()
		close(m.exited)
	}()
	if m.qmp, err = m.dial(ctx, qmp); err != nil {
		m.PowerOff()
		return nil, err
	}
	if m.qtest, err = m.dial(ctx, qtest); err != nil {
		m.PowerOff()
		return nil, err
	}
	if _, err := m.qmp.line(); err != nil { // greeting
		m.PowerOff()
		return nil, err
	}
	return m, m.QMP("qmp_capabilities", nil, nil)
}

// PowerOff is a power cut: QEMU is killed, nothing is told to the guest.
func (m *Machine) PowerOff() {
	_ = m.cmd.Process.Kill()
	<-m.exited
}

// Log returns what the guest's console has printed.
func (m *Machine) Log() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.String()
}

func (m *Machine) copyLog(r io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		m.mu.Lock()
		m.log.Write(buf[:n])
		close(m.news)
		m.news = make(chan struct{})
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (m *Machine) dial(ctx context.Context, path string) (*lineConn, error) {
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return &lineConn{c: c, r: bufio.NewReader(c)}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", path, ctx.Err())
		case <-m.exited:
			return nil, fmt.Errorf("QEMU ended at once:\n%s", m.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// QMP carries out one command; what it returns goes into result, when that is not nil.
func (m *Machine) QMP(command string, args, result any) error {
	m.qmp.mu.Lock()
	defer m.qmp.mu.Unlock()
	req := map[string]any{"execute": command}
	if args != nil {
		req["arguments"] = args
	}
	data, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if _, err := m.qmp.c.Write(append(data, '\n')); err != nil {
		return err
	}
	for {
		l, err := m.qmp.line()
		if err != nil {
			return err
		}
		var resp struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal([]byte(l), &resp); err != nil {
			return err
		}
		switch {
		case resp.Error != nil:
			return fmt.Errorf("%s: %s", command, resp.Error.Desc)
		case resp.Return != nil && result != nil:
			return json.Unmarshal(resp.Return, result)
		case resp.Return != nil:
			return nil
		} // else an event
	}
}

// Set changes a property of a device.
func (m *Machine) Set(path, property string, value any) error {
	return m.QMP("qom-set", map[string]any{"path": path, "property": property, "value": value}, nil)
}

// SetTemperature sets the chip at 0x48, in thousandths of a degree Celsius.
func (m *Machine) SetTemperature(milli int) error {
	return m.Set("/machine/peripheral/t0", "temperature", milli)
}

// QTest carries out one qtest command and returns the words after OK.
func (m *Machine) QTest(format string, args ...any) (string, error) {
	m.qtest.mu.Lock()
	defer m.qtest.mu.Unlock()
	if _, err := fmt.Fprintf(m.qtest.c, format+"\n", args...); err != nil {
		return "", err
	}
	for {
		l, err := m.qtest.line()
		if err != nil {
			return "", err
		}
		if rest, ok := strings.CutPrefix(l, "OK"); ok {
			return strings.TrimSpace(rest), nil
		}
		if strings.HasPrefix(l, "FAIL") || strings.HasPrefix(l, "ERR") {
			return "", fmt.Errorf("qtest %s: %s", fmt.Sprintf(format, args...), l)
		} // else an IRQ line
	}
}

// Mux selects the channels of the multiplexer at 0x70 (bit 0: the second chip). The guest's /init writes it.
func (m *Machine) Mux(channels byte) error {
	_, err := m.Tell("i2c /dev/%s 112 %d", m.Board.Bus, channels)
	return err
}

// Tell has the guest's /init carry out a command, and returns what it printed meanwhile once it is done.
func (m *Machine) Tell(format string, args ...any) (string, error) {
	m.mu.Lock()
	m.told++
	begin, done := m.log.Len(), fmt.Sprintf("guest: done %d.", m.told)
	_, err := fmt.Fprintf(m.console, "%d %s\n", m.told, fmt.Sprintf(format, args...))
	m.mu.Unlock()
	for limit := time.After(3 * time.Minute); err == nil; {
		m.mu.Lock()
		text, news := m.log.String()[begin:], m.news
		m.mu.Unlock()
		if out, _, ok := strings.Cut(text, done); ok {
			return strings.ReplaceAll(out, "\r", ""), nil
		}
		select {
		case <-news:
		case <-m.exited:
			err = errors.New("QEMU ended")
		case <-limit:
			err = fmt.Errorf("no answer from the guest to: "+format, args...)
		}
	}
	return "", err
}

// Edge drives lines and returns when the guest's kernel has noted the edges: no interrupt is pending, and its threads have run before /init
// could answer on the one CPU. What comes sooner is merged by the emulated controllers, or worse.
func (m *Machine) Edge(high bool, lines ...string) error {
	for _, l := range lines {
		if err := m.Board.Lines.Drive(m, l, high); err != nil {
			return err
		}
	}
	for _, l := range lines {
		for {
			pending, err := m.Board.Lines.Pending(m, l)
			if err != nil {
				return err
			}
			if !pending {
				break
			}
		}
	}
	_, err := m.Tell("fence")
	return err
}

type lineConn struct {
	mu sync.Mutex
	c  net.Conn
	r  *bufio.Reader
}

func (l *lineConn) line() (string, error) {
	_ = l.c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	s, err := l.r.ReadString('\n')
	return strings.TrimSpace(s), err
}
