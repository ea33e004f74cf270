// Guest is /init of the emulated boards: it loads the kernel's modules, brings up the network and the disk, and keeps the agent running.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest is /init of an emulated board and runs nowhere else")
		os.Exit(2)
	}
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"tmpfs", "/run", "tmpfs"}, {"tmpfs", "/tmp", "tmpfs"}} {
		say(m[1], syscall.Mount(m[0], m[1], m[2], 0, ""))
	}
	mods, _ := filepath.Glob("/modules/*")
	sort.Strings(mods)
	for _, m := range mods {
		f, err := os.Open(m)
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
			f.Close()
		}
		say("module "+m, err)
	}
	say("lo", up("lo", "127.0.0.1"))
	say("network", wait(func() error { return up(ethernet(), "10.0.2.15") }))
	disk := option("disk")
	say("disk", wait(func() error { return syscall.Mount(disk, "/state", "ext4", 0, "") }))
	say("mux", writeByte("/dev/"+option("bus"), 0x70, 1))
	say("echo", quiet())
	go obey()
	for {
		cmd := exec.Command("/fieldagent", with("run", "--state", "/state/fieldagent")...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		err := cmd.Start()
		if err == nil {
			agent.Store(cmd.Process)
			err = cmd.Wait()
		}
		say("agent", err)
		time.Sleep(time.Second)
	}
}

// agent is the running one.
var agent atomic.Pointer[os.Process]

func with(args ...string) []string {
	return append(args, "--config", "/fieldagent.yaml", "--socket", "/run/fieldagent.sock")
}

// obey carries out what comes from the console, one "NUMBER COMMAND ARGUMENTS" a line, and says "guest: done NUMBER." after each.
func obey() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) < 2 {
			continue
		}
		say(in.Text(), do(f[1], f[2:]))
		fmt.Printf("guest: done %s.\n", f[0])
	}
}

// quiet keeps the console from repeating what it is told.
func quiet() error {
	t, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(0, unix.TCSETS, t)
}

func do(what string, args []string) error {
	switch what {
	case "fence": // the answer is all
		return nil
	case "i2c": // device, address, byte
		if len(args) != 3 {
			return fmt.Errorf("want three arguments")
		}
		addr, err := strconv.Atoi(args[1])
		b, err2 := strconv.Atoi(args[2])
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		return writeByte(args[0], addr, byte(b))
	case "stop":
		return agent.Load().Signal(syscall.SIGSTOP)
	case "cont":
		return agent.Load().Signal(syscall.SIGCONT)
	case "fieldagent", "alone": // alone: as if no agent ran
		args = with(args...)
		if what == "alone" {
			args = append(args, "--socket", "/run/nobody.sock")
		}
		cmd := exec.Command("/fieldagent", args...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		return cmd.Run()
	}
	return fmt.Errorf("unknown command")
}

func writeByte(dev string, addr int, b byte) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const i2cSlaveForce = 0x0706 // <linux/i2c-dev.h>
	if err := unix.IoctlSetInt(int(f.Fd()), i2cSlaveForce, addr); err != nil {
		return err
	}
	_, err = f.Write([]byte{b})
	return err
}

func say(what string, err error) {
	if err != nil {
		fmt.Printf("guest: %s: %v\n", what, err)
	}
}

// wait tries for 30 seconds: devices appear some time after their module.
func wait(try func() error) error {
	var err error
	for range 600 {
		if err = try(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func option(name string) string {
	b, _ := os.ReadFile("/proc/cmdline")
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	return ""
}

func ethernet() string {
	names, _ := filepath.Glob("/sys/class/net/*/device")
	sort.Strings(names)
	if len(names) == 0 {
		return "eth0"
	}
	return filepath.Base(filepath.Dir(names[0]))
}

// up gives an interface its address, /24, and switches it on.
func up(name, addr string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var ip [4]byte
	if _, err := fmt.Sscanf(addr, "%d.%d.%d.%d", &ip[0], &ip[1], &ip[2], &ip[3]); err != nil {
		return err
	}
	for _, step := range []struct {
		req uintptr
		ip  [4]byte
	}{{unix.SIOCSIFADDR, ip}, {unix.SIOCSIFNETMASK, [4]byte{255, 255, 255, 0}}} {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := ifr.SetInet4Addr(step.ip[:]); err != nil {
			return err
		}
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), step.req, uintptr(unsafe.Pointer(ifr))); e != 0 {
			return e
		}
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(ifr))); e != 0 {
		return e
	}
	return nil
}
