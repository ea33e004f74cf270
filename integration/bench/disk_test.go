package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is an ext4 file system on a loop device of its own, so that bytes can be counted where they reach the device.
type disk struct {
	b    testing.TB
	path string // where it is mounted
	dev  string // loop7
}

func newDisk(b testing.TB, mib int) *disk {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Fatal("counting bytes at a block device needs root (losetup, mount)")
	}
	dir, err := os.MkdirTemp(scratch, "disk-")
	if err != nil {
		b.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	d := &disk{b: b, path: filepath.Join(dir, "mnt")}
	f, err := os.Create(image)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(int64(mib) << 20); err != nil {
		b.Fatal(err)
	}
	f.Close()
	d.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	loop := strings.TrimSpace(d.run("losetup", "--find", "--show", image))
	d.dev = filepath.Base(loop)
	b.Cleanup(func() { d.run("losetup", "-d", loop) })
	if err := os.Mkdir(d.path, 0o700); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount(loop, d.path, "ext4", unix.MS_NOATIME, ""); err != nil {
		b.Fatalf("mount %s: %v", loop, err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
			b.Errorf("unmount: %v", err)
		}
	})
	return d
}

func (d *disk) run(name string, args ...string) string {
	d.b.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if p, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		cmd.Path, cmd.Err = p, nil
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.b.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// written is the number of bytes that have reached the device, everything flushed.
func (d *disk) written() float64 { return d.stat(6) * 512 }

// flushes is the number of times that the device was told to keep what it has: at least one for each sync.
func (d *disk) flushes() float64 { return d.stat(15) }

// stat reads one figure of the device, everything flushed (Documentation/block/stat.rst).
func (d *disk) stat(field int) float64 {
	d.b.Helper()
	f, err := os.Open(d.path)
	if err != nil {
		d.b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		d.b.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/%s/stat", d.dev))
	if err != nil {
		d.b.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) <= field {
		d.b.Fatalf("/sys/block/%s/stat has %d figures", d.dev, len(fields))
	}
	n, err := strconv.ParseFloat(fields[field], 64)
	if err != nil {
		d.b.Fatal(err)
	}
	return n
}

// used is the number of bytes that a folder takes.
func used(b testing.TB, dir string) float64 {
	b.Helper()
	total := int64(0)
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			total += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return float64(total)
}
