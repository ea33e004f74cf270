// Guest is /init of an emulated board: it loads the modules that the disk needs and hands over to the Debian system on it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest is /init of an emulated board and runs nowhere else")
		os.Exit(2)
	}
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		say(m[1], syscall.Mount(m[0], m[1], m[0], 0, ""))
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
	say("disk", mountDisk())
	for _, d := range []string{"/dev", "/proc", "/sys"} {
		say("move "+d, syscall.Mount(d, "/state"+d, "", syscall.MS_MOVE, ""))
	}
	say("chdir", os.Chdir("/state"))
	say("root", syscall.Mount(".", "/", "", syscall.MS_MOVE, ""))
	say("chroot", syscall.Chroot("."))
	say("chdir", os.Chdir("/"))
	say("exec", syscall.Exec("/sbin/init", []string{"/sbin/init"}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"}))
}

// mountDisk tries for a minute: the card appears some time after its module. A file system that lost its power is mended by its journal.
func mountDisk() error {
	b, _ := os.ReadFile("/proc/cmdline")
	disk := ""
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, "disk="); ok {
			disk = v
		}
	}
	var err error
	for range 1200 {
		if err = syscall.Mount(disk, "/state", "ext4", 0, ""); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func say(what string, err error) {
	if err != nil {
		fmt.Printf("guest: %s: %v\n", what, err)
	}
}
